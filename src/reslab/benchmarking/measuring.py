"""The measurement of one case: the Trainer's own steps, timed part by part, within a memory limit."""

import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from reslab.benchmarking.launching import LaunchTimes
from reslab.benchmarking.memory import limited_memory, peak_memory
from reslab.benchmarking.options import MEMORY_FORMATS
from reslab.benchmarking.rows import PARTS, Row
from reslab.errors import USER_ERRORS, one_line
from reslab.training.averaging import WeightAverage
from reslab.training.build import build_classifier, build_data, build_trainer
from reslab.training.classifier import Classifier
from reslab.training.graph import build_graphs
from reslab.training.limits import limit_steps
from reslab.training.process import prepare_process
from reslab.training.provenance import provenance
from reslab.training.threads import given_threads

# How torch, the CUDA libraries, C++ and oneDNN report that memory has run out. oneDNN gives no reason, but "could not
# create a primitive descriptor" has another one.
OUT_OF_MEMORY = re.compile(
    "allocate memory|out of memory|alloc_failed|bad_alloc|could not (create|execute) a primitive(?! d)", re.IGNORECASE
)


class Stopwatch(Callback):
    """Mark the end of each part of each step: start, data, forward, backward, optimizer, data, …

    The part `data` is the loader, augmentation and normalisation; `forward` the network, the loss and the metrics;
    `optimizer` the optimizer's step, the schedule, and the average of the weights with callbacks=ema.

    On a GPU a mark is an event in the GPU's stream. The parts are then the time that the GPU spent, and nothing waits.
    A CUDA graph cannot be divided: with graph=true, `data` is the loader alone and `forward` is the whole graph.
    """

    def __init__(self) -> None:
        self.marks: list[Any] = []

    def mark(self, *_: Any) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            if self.device.type == "mps":
                torch.mps.synchronize()
            self.marks.append(time.perf_counter())

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.device = trainer.strategy.root_device
        assert isinstance(pl_module, Classifier)
        self.has_graphs = pl_module.graphs is not None and pl_module.graphs.is_active
        if not self.has_graphs:
            # `preprocess` is not compiled, so its hook runs in a compiled network too.
            pl_module.preprocess.register_forward_hook(self.mark)
        self.mark()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.has_graphs:
            self.mark()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.mark()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.mark()

    def milliseconds(self) -> Tensor:
        """Return the time of each part of each step, (steps, parts)."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            times = [start.elapsed_time(end) for start, end in pairwise(self.marks)]
        else:
            times = [1000 * (end - start) for start, end in pairwise(self.marks)]
        return torch.tensor(times).view(-1, len(PARTS))


def measure(settings: dict[str, Any]) -> Row:
    """Train as the settings say and return the status with the measurements or the error.

    Args:
        settings: what `reslab.benchmarking.cases.training_settings` returns.
    """
    config = OmegaConf.create(settings)
    try:
        with given_threads(config):
            return {"status": "finished", **measure_steps(config)}
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or OUT_OF_MEMORY.search(str(error)):
            return {"status": "out of memory"}
        status = "refused" if isinstance(error, USER_ERRORS) else "failed"
        return {"status": status, "error": one_line(error, "benchmark")}


def measure_steps(config: DictConfig) -> Row:
    """Train, and return the speed, the time of each step and of its parts, the peak memory, and the provenance."""
    prepare_process(config.seed)
    stopwatch = Stopwatch()
    launches = LaunchTimes(config.trainer.max_steps, config.case.launched_steps)
    trainer = build_trainer(config, [*averages(config), stopwatch, launches], logger=None)
    device = trainer.strategy.root_device
    if device.type == "cuda":
        limit_steps(trainer, config.trainer.max_steps + 2 * config.case.launched_steps)
    with limited_memory(device, config.benchmark.memory_limit_mb):
        data = build_data(config, stages=("fit",))
        classifier = build_classifier(config, data)
        memory_format = getattr(torch, MEMORY_FORMATS[config.case.memory_format])
        classifier.network.to(memory_format=memory_format)
        classifier.preprocess.memory_format = memory_format
        classifier.graphs = graphs = build_graphs(config, classifier, trainer)
        trainer.fit(classifier, datamodule=data)
    warmup_steps = config.case.warmup_steps
    milliseconds = stopwatch.milliseconds()
    parts = milliseconds[warmup_steps:][: config.case.steps]  # (steps, parts)
    step = percentiles(parts.sum(1))
    extra = milliseconds[:warmup_steps].sum().item() - warmup_steps * step["median"]
    return {
        "images_per_second": 1000 * data.batch_size / step["median"],
        "step_ms": step,
        "parts_ms": {name: percentiles(part) for name, part in zip(PARTS, parts.T, strict=True)},
        "startup_seconds": max(0.0, extra / 1000),  # by which the warm-up took longer than as many measured steps
        "graph": graphs.outcome,
        **launches.milliseconds(),
        "peak_memory_mb": peak_memory(device) / 2**20,
        "accelerator": "cpu" if device.type == "cpu" else "gpu",
        "image_size": data.spec.image_size,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "run": provenance(config, data, classifier, trainer),
    }


def averages(config: DictConfig) -> list[WeightAverage]:
    """Return the callbacks that are part of a step. The others act at validations, checkpoints and the end."""
    made = instantiate(config.callbacks, _convert_="all") or {}
    return [each for each in made.values() if isinstance(each, WeightAverage)]


def percentiles(values: Tensor) -> dict[str, float]:  # (steps,)
    low, median, high = values.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return {"median": median, "p10": low, "p90": high}


def cpu_name() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.is_file() else None
    return found[1] if found else None
