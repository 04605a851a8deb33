"""What a run records while it trains: curves by step and by epoch, metrics.csv, and one log line per epoch."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar

from reslab.run import Run
from reslab.training.checkpoints import divergence_error
from reslab.training.classifier import Classifier

log = logging.getLogger(__name__)

# The attributes that a checkpoint holds, under their own names.
SAVED_ATTRIBUTES = ("rows", "train_seconds", "train_images", "epoch_images", "logged_images", "logged_sums")


class History(Callback):
    """Log `step/…` every `log_every_n_steps` batches and `train/…` after each epoch, and write metrics.csv.

    Seconds and images per second are those of training alone, without validation. The values are read from the device
    only for a step that is logged, so that otherwise a GPU never waits.

    Args:
        run: receives metrics.csv, one row per epoch.

    Attributes:
        rows: the metrics of each epoch, by name.
        latest: the metrics of the last logged step, for the progress bar.
        train_seconds: of all finished epochs.
        train_images: of all finished epochs, over all processes.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []
        self.latest: dict[str, float] = {}
        self.train_seconds = 0.0
        self.train_images = 0
        self.elapsed = (0.0, 0.0)  # at the checkpoint: seconds since the epoch began and since the last logged step
        self.start_epoch()

    def start_epoch(self) -> None:
        self.epoch_start = self.logged_at = time.perf_counter()
        self.epoch_images = self.logged_images = 0
        self.logged_sums = {"loss": 0.0, "accuracy": 0.0}  # over the images of this epoch, up to the last logged step

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        elapsed = (now - self.epoch_start, now - self.logged_at)
        # Older checkpoints hold `elapsed` as "spent", so this name is kept.
        return {"spent": elapsed} | {name: getattr(self, name) for name in SAVED_ATTRIBUTES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.elapsed = state["spent"]
        for name in SAVED_ATTRIBUTES:
            setattr(self, name, state[name])

    # training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Continue the sums and clocks of a run that is resumed within an epoch."""
        now = time.perf_counter()
        self.epoch_start, self.logged_at = (now - seconds for seconds in self.elapsed)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start_epoch()

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.step = trainer.global_step  # optimizer steps before this batch
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
        """Log the means over the steps since the last logged one. Reading them waits for the device."""
        values = classifier.train_metrics.compute()
        running = {name: values[name].item() for name in self.logged_sums}
        now, images = time.perf_counter(), self.epoch_images - self.logged_images
        sums = {name: value * self.epoch_images for name, value in running.items()}
        metrics = {f"step/{name}": (sums[name] - self.logged_sums[name]) / images for name in sums}
        if not math.isfinite(loss := metrics["step/loss"]):
            raise divergence_error(f"the loss became {loss} by step {trainer.global_step}", trainer)
        metrics |= {
            "step/learning_rate": self.learning_rate,
            "step/images_per_second": images / (now - self.logged_at),
        }
        self.latest = metrics | {"running_accuracy": running["accuracy"]}
        self.logged_sums, self.logged_images, self.logged_at = sums, self.epoch_images, now
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=self.step)

    # epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        train = self.finish_epoch(trainer, pl_module)
        pl_module.log_dict(train, logger=False, sync_dist=trainer.world_size > 1)  # other callbacks read them there
        # An epoch that max_steps cut short is logged one step later, so that purge_step removes it on resume.
        step = trainer.global_step - 1 if trainer.is_last_batch else trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in train.items()}, step=step)
        self.add_row(trainer, train)

    def finish_epoch(self, trainer: L.Trainer, classifier: Classifier) -> dict[str, torch.Tensor]:
        """Return the training metrics of an epoch, as scalars and means over all processes."""
        seconds = self.logged_at - self.epoch_start
        self.train_seconds += seconds
        self.train_images += self.epoch_images
        train = {f"train/{name}": value for name, value in classifier.train_metrics.compute().items()}
        classifier.train_metrics.reset()
        train |= {
            "train/learning_rate": torch.tensor(self.learning_rate),
            "train/images_per_second": torch.tensor(self.epoch_images / seconds),
            "train/epoch_seconds": torch.tensor(seconds),
        }
        return {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in train.items()}

    def add_row(self, trainer: L.Trainer, train: Mapping[str, torch.Tensor]) -> None:
        """Add an epoch, with the validation metrics that Lightning has by now, to metrics.csv and to the log."""
        val = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row |= {name: float(value) for name, value in (dict(train) | val).items()}
        self.rows.append(row)
        if trainer.is_global_zero:
            self.run.write_metrics(self.rows)
            level = logging.DEBUG if shows_progress(trainer) else logging.INFO
            log.log(level, "epoch %d  %s", row["epoch"] + 1, epoch_line(row))

    # after training

    @property
    def images_per_second(self) -> float:
        return self.train_images / self.train_seconds if self.train_seconds else 0.0

    def best(self) -> dict[str, float]:
        """Return the row with the highest validation accuracy, among equal ones the latest.

        Without validation, return the last row; an empty one if a resumed run had nothing left to train.
        """
        validated = [row for row in reversed(self.rows) if "val/accuracy" in row]
        if validated:
            return max(validated, key=lambda row: row["val/accuracy"])
        return self.rows[-1] if self.rows else {}


def epoch_line(row: Mapping[str, float]) -> str:
    parts = [f"train loss {row['train/loss']:.4f} accuracy {row['train/accuracy']:.4f}"]
    if "val/accuracy" in row:
        parts.append(f"val loss {row['val/loss']:.4f} accuracy {row['val/accuracy']:.4f}")
    parts.append(f"{row['train/epoch_seconds']:.1f} s, {row['train/images_per_second']:,.0f} images/s")
    return "  ".join(parts)


def shows_progress(trainer: L.Trainer) -> bool:
    return any(isinstance(callback, ProgressBar) for callback in trainer.callbacks)  # type: ignore[attr-defined]


class ProgressBar(RichProgressBar):
    """Lightning's Rich progress bar, with the loss, the epoch's running accuracy and images per second.

    Args:
        history: has the values of the last logged step.
    """

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
