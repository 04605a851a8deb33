"""How much of an epoch the training waits for images from the disk."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from reslab.data.batches import FolderLoader, NumberedBatch
from reslab.machine import processors

log = logging.getLogger(__name__)

# A loader that never waits would shorten the epoch by this share. Rounds of one loader on one machine differ by 10 to
# 17% (benchmarks/results/disk_path.json), so that less could not be told from chance.
NOTABLE_SHARE = 0.1


class LoaderWait(Callback):
    """Measure the first whole epoch of this process, and log one line if the loader of image files limits its speed.

    The first batch is left out: it starts the worker processes.

    A GPU computes steps that Python has launched before, and Python may wait for a batch meanwhile. There the measure
    is how long the GPU itself is idle, which two events around each wait know. Nothing waits for them before the epoch
    ends.

    Args:
        level: the level of the line.
    """

    def __init__(self, level: int) -> None:
        self.level = level
        self.is_measuring = False
        self.is_done = True  # nothing is left to measure

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.device = trainer.strategy.root_device
        loader = trainer.train_dataloader
        if isinstance(loader, FolderLoader):
            self.is_done = False
            loader.batches = self.watched(loader.batches)  # type: ignore[method-assign]

    def watched(self, batches: Callable[[], Iterator[NumberedBatch]]) -> Callable[[], Iterator[NumberedBatch]]:
        """Return a function that yields the same batches, and measures how long the training waits for each of them."""

        def measured() -> Iterator[NumberedBatch]:
            iterator = batches()
            while True:
                start = self.mark() if self.is_measuring else None
                batch = next(iterator, None)
                if batch is None:
                    return
                if start is not None:
                    self.waits.append((start, self.mark()))
                yield batch

        return measured

    def mark(self) -> Any:
        """Return the present: a moment, or on an NVIDIA GPU an event behind all that it still has to compute."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.is_measuring = False
        self.waits: list[tuple[Any, Any]] = []  # the beginning and the end of each
        self.validations: list[tuple[Any, Any]] = []  # as above, of those between two batches

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.is_done:
            return
        self.ended = self.mark()
        if batch_idx == 0:  # a run that is resumed within an epoch begins with another number
            self.is_measuring, self.started = True, self.ended

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_measuring:
            self.validation_started = self.mark()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_measuring and not trainer.is_last_batch:
            self.validations.append((self.validation_started, self.mark()))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_measuring and self.waits:
            self.is_measuring, self.is_done = False, True
            validation = sum(self.seconds(*each) for each in self.validations)
            training = self.seconds(self.started, self.ended) - validation
            share = sum(self.seconds(*wait) for wait in self.waits) / training
            if share > NOTABLE_SHARE:
                log.log(self.level, "%s", advice(share, trainer.datamodule.num_workers))  # type: ignore[attr-defined]

    def seconds(self, start: Any, end: Any) -> float:
        if self.device.type != "cuda":
            return float(end - start)
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def advice(share: float, workers: int) -> str:
    """Return a line that says how much of an epoch was spent waiting, and what makes it less."""
    more_workers = f"data.num_workers={processors()} ({workers} now) or " if workers < processors() else ""
    return f"training waited for image files in {share:.0%} of the epoch: {more_workers}data.in_memory=true is faster"
