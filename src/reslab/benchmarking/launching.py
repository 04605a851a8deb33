"""The time of a step on the host and on the GPU, each measured in steps that begin with an idle GPU."""

import statistics
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from reslab.internals import occupy_gpu


class LaunchTimes(Callback):
    """Measure how long Python takes to launch a step, and how long an NVIDIA GPU takes to compute it.

    Python launches kernels and does not wait for them, so that a step takes the longer one of the two times. It is the
    last callback, so that a step includes what the others do.

    The first half of the measured steps is timed by Python's clock. Before each step of the second half the GPU is kept
    busy for longer than Python needs for a step, so that it then finds the whole step in its queue and never waits.

    Args:
        after: the optimizer steps before the measured ones.
        steps: the number of measured steps of each half; 0 to measure nothing.
    """

    def __init__(self, after: int, steps: int) -> None:
        self.after, self.steps = after, steps
        self.host: list[float] = []  # seconds
        self.events: list[tuple[Any, Any]] = []  # the beginning and the end of a step on the GPU
        self.started: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.root_device.type != "cuda":
            self.steps = 0

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.started is not None:
            self.end_step()
        self.started = None
        if trainer.global_step >= self.after and len(self.events) < self.steps:
            self.start_step()

    def start_step(self) -> None:
        torch.cuda.synchronize()
        if len(self.host) == self.steps:
            occupy_gpu(3 * statistics.median(self.host))  # a single one may hold the end of an epoch
            self.begin = torch.cuda.Event(enable_timing=True)
            self.begin.record()
        self.started = time.perf_counter()

    def end_step(self) -> None:
        assert self.started is not None
        if len(self.host) < self.steps:
            self.host.append(time.perf_counter() - self.started)
        else:
            end = torch.cuda.Event(enable_timing=True)
            end.record()
            self.events.append((self.begin, end))

    def milliseconds(self) -> dict[str, float]:
        """Return the medians "host_ms" and "gpu_ms"; nothing where no step was measured."""
        if not self.events:
            return {}
        torch.cuda.synchronize()
        gpu = [begin.elapsed_time(end) for begin, end in self.events]
        return {"host_ms": 1000 * statistics.median(self.host), "gpu_ms": statistics.median(gpu)}
