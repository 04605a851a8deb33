"""A callback that benchmarks/gpu.py adds to a run of src/train.py, to measure its steps."""

import json
import os
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from gpu_runs import STARTED
from lightning.pytorch.callbacks import Callback

from reslab.benchmarking.launching import LaunchTimes
from reslab.benchmarking.memory import peak_memory


class StepProbe(Callback):
    """Measure the first step, the steps of the second epoch, and after it a few steps one at a time.

    The file gets "first_step_s", the seconds from the start of the command to the end of the first step; "step_ms",
    the mean of a step of the second epoch, without its first tenth; "peak_mb"; and on a GPU what
    `reslab.benchmarking.launching` measures.

    Args:
        file: receives the measurements as JSON.
        epoch_steps: the optimizer steps of an epoch.
        launched_steps: see LaunchTimes.
    """

    def __init__(self, file: str, epoch_steps: int, launched_steps: int) -> None:
        self.file, self.epoch_steps = Path(file), epoch_steps
        self.begins = epoch_steps + max(1, epoch_steps // 10)
        self.launches = LaunchTimes(2 * epoch_steps, launched_steps)
        self.measured: dict[str, float] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.launches.on_train_start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step in (1, self.begins, 2 * self.epoch_steps):
            if trainer.strategy.root_device.type == "cuda":
                torch.cuda.synchronize()
            self.mark(trainer.global_step)
        self.launches.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def mark(self, step: int) -> None:
        if step == 1:
            self.measured["first_step_s"] = time.time() - float(os.environ[STARTED])
        if step == self.begins:
            self.began = time.perf_counter()
        if step == 2 * self.epoch_steps:
            self.measured["step_ms"] = 1000 * (time.perf_counter() - self.began) / (step - self.begins)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        peak = peak_memory(trainer.strategy.root_device) / 2**20
        self.file.write_text(json.dumps(self.measured | {"peak_mb": peak} | self.launches.milliseconds()))
