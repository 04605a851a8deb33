"""What a run records of itself while it trains: curves by step and by epoch, metrics.csv, and one line an epoch."""

import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from reslab.checkpoints import diverged
from reslab.classifier import Classifier
from reslab.files import write_csv

log = logging.getLogger(__name__)

KEPT = ("rows", "train_seconds", "train_images", "epoch_images", "logged_images", "logged_sums")  # in checkpoints


class History(Callback):
    """Logs `step/…` every `log_every_n_steps` and `train/…` each epoch; keeps metrics.csv, a row an epoch.

    Seconds and images per second are of training alone, without validation. The figures are read from the device only
    when a step is logged, so a GPU never waits for them.
    """

    def __init__(self, folder: str) -> None:
        self.path = Path(folder) / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self.latest: dict[str, float] = {}  # of the last step that was logged, for the progress bar
        self.train_seconds = 0.0
        self.train_images = 0
        self.spent = (0.0, 0.0)
        self.start_epoch()

    def start_epoch(self) -> None:
        self.epoch_start = self.logged_at = time.perf_counter()
        self.epoch_images = self.logged_images = 0
        self.logged_sums = {"loss": 0.0, "accuracy": 0.0}

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        spent = (now - self.epoch_start, now - self.logged_at)
        return {"spent": spent} | {name: getattr(self, name) for name in KEPT}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that is resumed within an epoch goes on with its sums and its clock."""
        now = time.perf_counter()
        self.epoch_start, self.logged_at = (now - seconds for seconds in self.spent)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start_epoch()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.epoch_images += len(batch[1]) * trainer.world_size
        last = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        if last or (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            assert isinstance(pl_module, Classifier)
            self.log_step(trainer, pl_module)

    def log_step(self, trainer: L.Trainer, classifier: Classifier) -> None:
        """Means over the steps since the last logged one; reading them waits for the device."""
        values = classifier.train_metrics.compute()
        running = {name: values[name].item() for name in self.logged_sums}
        now, images = time.perf_counter(), self.epoch_images - self.logged_images
        sums = {name: value * self.epoch_images for name, value in running.items()}
        step = {f"step/{name}": (sums[name] - self.logged_sums[name]) / images for name in sums}
        if not math.isfinite(step["step/loss"]):
            raise diverged(f"the loss became {step['step/loss']} by step {trainer.global_step}", trainer)
        step |= {
            "step/learning_rate": self.learning_rate,
            "step/images_per_second": images / (now - self.logged_at),
        }
        self.latest = step | {"running_accuracy": running["accuracy"]}
        self.logged_sums, self.logged_images, self.logged_at = sums, self.epoch_images, now
        for logger in trainer.loggers:
            logger.log_metrics(step, step=trainer.fit_loop.epoch_loop._batches_that_stepped)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        seconds = self.logged_at - self.epoch_start
        self.train_seconds += seconds
        self.train_images += self.epoch_images
        train = {f"train/{name}": value for name, value in pl_module.train_metrics.compute().items()}
        pl_module.train_metrics.reset()
        train |= {
            "train/learning_rate": torch.tensor(self.learning_rate),
            "train/images_per_second": torch.tensor(self.epoch_images / seconds),
            "train/epoch_seconds": torch.tensor(seconds),
        }
        train = {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in train.items()}
        pl_module.log_dict(train, logger=False, sync_dist=trainer.world_size > 1)  # for callbacks
        step = trainer.fit_loop.epoch_loop._batches_that_stepped - 1
        if not trainer.is_last_batch:  # max_steps ends here: a run that is given more drops the point of half an epoch
            step += 1
        for logger in trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in train.items()}, step=step)
        val = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in (train | val).items()}
        self.rows.append(row)
        if trainer.is_global_zero:
            write_csv(self.path, self.rows, dict.fromkeys(name for row in self.rows for name in row))
            level = logging.DEBUG if shows_progress(trainer) else logging.INFO
            log.log(level, "epoch %d  %s", row["epoch"] + 1, describe(row))

    @property
    def images_per_second(self) -> float:
        return self.train_images / self.train_seconds if self.train_seconds else 0.0

    def best(self) -> dict[str, float]:
        """The epoch with the highest validation accuracy, of equal ones the latest; the last without validation."""
        validated = [row for row in reversed(self.rows) if "val/accuracy" in row]
        if validated:
            return max(validated, key=lambda row: row["val/accuracy"])
        return self.rows[-1] if self.rows else {}  # none where a resumed run had nothing left to do


def describe(row: Mapping[str, float]) -> str:
    parts = [f"train loss {row['train/loss']:.4f} accuracy {row['train/accuracy']:.4f}"]
    if "val/accuracy" in row:
        parts.append(f"val loss {row['val/loss']:.4f} accuracy {row['val/accuracy']:.4f}")
    parts.append(f"{row['train/epoch_seconds']:.1f} s, {row['train/images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def shows_progress(trainer: L.Trainer) -> bool:
    return any(isinstance(callback, ProgressBar) for callback in trainer.callbacks)  # type: ignore[attr-defined]


class ProgressBar(RichProgressBar):
    """Lightning's Rich bar with the loss, the epoch's running accuracy and images per second."""

    def __init__(self, history: History) -> None:
        super().__init__(leave=True)
        self.history = history

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        latest = self.history.latest
        if not latest:
            return {}
        shown: dict[str, Any] = {
            "loss": latest["step/loss"],
            "accuracy": latest["running_accuracy"],
            "images/s": f"{latest['step/images_per_second']:,.0f}",
        }
        if "val/accuracy" in trainer.callback_metrics:
            shown["val"] = trainer.callback_metrics["val/accuracy"].item()
        return shown
