"""One case of a benchmark: the Trainer's own steps with a stopwatch, within a limit of memory."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from reslab.benchmarking import PARTS
from reslab.errors import USER_ERRORS, one_line
from reslab.training import (
    build_classifier,
    build_data,
    build_trainer,
    freezing,
    prepare_process,
    provenance,
)

MEMORY_FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
# what torch, CUDA's libraries, C++ and oneDNN (which names no reason) say; "primitive descriptor" is another matter
NO_MEMORY = re.compile(
    "allocate memory|out of memory|alloc_failed|bad_alloc|could not (create|execute) a primitive(?! d)", re.IGNORECASE
)
MARGIN = 0.9  # of the free memory: other processes may take more meanwhile


class Stopwatch(Callback):
    """Marks the end of each part of each step: (start, data, forward, backward, optimizer, data, …).

    data: loader, augmentation and normalisation; forward: network, loss and metrics; optimizer: its step and schedule.
    On a GPU a mark is an event in its stream, so nothing waits for it and the parts are what the GPU spent.
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
        pl_module.get_submodule("preprocess").register_forward_hook(self.mark)  # outside of what is compiled
        self.mark()

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self.mark()

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mark()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.mark()

    def milliseconds(self) -> Tensor:  # (steps, parts)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            spent = [start.elapsed_time(end) for start, end in pairwise(self.marks)]
        else:
            spent = [1000 * (end - start) for start, end in pairwise(self.marks)]
        return torch.tensor(spent).view(-1, len(PARTS))


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    """Figures of train.py's `settings` with a `case`; what went wrong is a row too."""
    try:
        return {"status": "finished", **measure_steps(OmegaConf.create(settings))}
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or NO_MEMORY.search(str(error)):
            return {"status": "out of memory"}
        status = "refused" if isinstance(error, USER_ERRORS) else "failed"  # what the user, or the case, got wrong
        return {"status": status, "error": one_line(error, "benchmark")}


def measure_steps(config: DictConfig) -> dict[str, Any]:
    prepare_process(config.seed)
    stopwatch = Stopwatch()
    trainer = build_trainer(config, [stopwatch, *freezing(config)], logger=None)
    device = trainer.strategy.root_device
    with limited_memory(device, config.benchmark.memory_limit_mb):
        data = build_data(config, stages=("fit",))
        classifier = build_classifier(config, data)
        memory_format = MEMORY_FORMATS[config.case.memory_format]
        classifier.network.to(memory_format=memory_format)
        classifier.preprocess.memory_format = memory_format
        trainer.fit(classifier, datamodule=data)
    parts = stopwatch.milliseconds()[config.case.warmup_steps :]  # (steps, parts)
    step = spread(parts.sum(1))
    return {
        "images_per_second": 1000 * data.batch_size / step["median"],
        "step_ms": step,
        "parts_ms": {name: spread(part) for name, part in zip(PARTS, parts.T, strict=True)},
        "peak_memory_mb": peak_memory(device) / 2**20,
        "accelerator": "cpu" if device.type == "cpu" else "gpu",
        "image_size": data.spec.image_size,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "run": provenance(config, data, classifier, trainer),
    }


def spread(values: Tensor) -> dict[str, float]:  # (steps,)
    low, median, high = values.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return {"median": median, "p10": low, "p90": high}


# memory


@contextmanager
def limited_memory(device: torch.device, limit_mb: float | None) -> Iterator[None]:
    """Within it an allocation fails where the system would otherwise end this process, or another one, for it.

    A GPU does so by itself. On a CPU the limit counts from what the libraries have taken by now.
    """
    if device.type == "cuda" and limit_mb is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb * 2**20 / total), device)
    if device.type != "cpu" or sys.platform != "linux":  # elsewhere the system does not count what is mapped
        yield
        return
    import resource  # Windows has none

    torch.ones(2**20).add_(1)  # starts OpenMP's threads: libgomp would end the process where one has no memory
    allowed = round(MARGIN * free_memory() if limit_mb is None else limit_mb * 2**20)
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = kilobytes("/proc/self/status", "VmData") * 1024 + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def kilobytes(file: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    assert found
    return int(found[1])


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that Linux can still give, within the container's limit where there is one (cgroups 2 and 1)."""
    free = kilobytes("/proc/meminfo", "MemAvailable") * 1024
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        if (cgroup / limit).is_file() and (text := (cgroup / limit).read_text().strip()) != "max":
            free = min(free, int(text) - int((cgroup / usage).read_text()))
    return max(free, 0)


def peak_memory(device: torch.device) -> int:
    """Bytes: on a GPU what torch has allocated there, images included; else of this whole process, torch included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "linux":  # whose ru_maxrss begins with the parent's
        return kilobytes("/proc/self/status", "VmHWM") * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def cpu_name() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.is_file() else None
    return found[1] if found else None
