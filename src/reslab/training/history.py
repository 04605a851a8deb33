"""What a run records while it trains: curves by step and by epoch, and metrics.csv."""

import math
import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from reslab.run import Run, numbered_from_1
from reslab.training.checkpoints import any_process, divergence_error, is_logged, is_validated_in_training
from reslab.training.classifier import Classifier

# The attributes that a checkpoint holds, under their own names.
SAVED_ATTRIBUTES = (
    "rows", "train_seconds", "train_images", "epoch_images", "logged_images", "logged_sums", "learning_rate",
    "validated_step",
)  # fmt: skip


class History(Callback):
    """Log `step/…` every `log_every_n_steps` batches and `train/…` after each epoch, and write metrics.csv.

    Seconds and images per second are those of training alone, without validation. The values are read from the device
    only for a step that is logged, so that otherwise a GPU never waits.

    Args:
        run: receives metrics.csv.

    Attributes:
        rows: the metrics by name, one row for each validation and for each end of an epoch. `epoch` counts from 1, and
            `step` counts the optimizer steps. `train/…` are means over the epoch up to this step; `val/…` are of the
            weights after it, and absent where these were not validated.
        running: the means over the epoch up to its last logged step, for the progress bar; empty before that.
        train_seconds: of all finished epochs.
        train_images: of all finished epochs, over all processes.
        validated_step: the number of optimizer steps of the weights that were validated last.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: list[dict[str, float]] = []
        self.train_seconds = 0.0
        self.train_images = 0
        self.learning_rate = 0.0
        self.elapsed = (0.0, 0.0)  # at the checkpoint: seconds since the epoch began and since the last logged step
        self.validated_step: int | None = None
        self.has_other_devices = False  # than before the resume
        self.start_epoch()

    def start_epoch(self) -> None:
        self.running: dict[str, float] = {}
        self.epoch_start = self.logged_at = time.perf_counter()
        self.epoch_images = self.logged_images = 0
        self.logged_sums: dict[str, float] = {}  # over the images of this epoch, up to the last logged step

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        now = time.perf_counter()
        elapsed = (now - self.epoch_start, now - self.logged_at)
        # Older checkpoints hold `elapsed` as "spent", so this name is kept.
        return {"spent": elapsed} | {name: getattr(self, name) for name in SAVED_ATTRIBUTES}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.elapsed = state["spent"]
        for name in SAVED_ATTRIBUTES:
            setattr(self, name, state.get(name, getattr(self, name)))  # older checkpoints lack the last two
        self.rows = numbered_from_1(self.rows)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self.has_other_devices = len(checkpoint["train_metrics"]) != trainer.world_size

    # training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Continue the sums and clocks of a run that is resumed within an epoch."""
        now = time.perf_counter()
        self.epoch_start, self.logged_at = (now - seconds for seconds in self.elapsed)
        if self.has_other_devices and self.epoch_images:
            assert isinstance(pl_module, Classifier)
            # The sums that were logged are those of one process, and now each has an equal share of all.
            self.logged_sums, self.logged_images, self.logged_at = self.sums(pl_module), self.epoch_images, now

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
        if is_logged(trainer, batch_idx):
            assert isinstance(pl_module, Classifier)
            self.log_step(trainer, pl_module)

    def log_step(self, trainer: L.Trainer, classifier: Classifier) -> None:
        """Log the means over the steps since the last logged one. Reading them waits for the device."""
        sums = self.sums(classifier)
        now, images = time.perf_counter(), self.epoch_images - self.logged_images
        metrics = {f"step/{name}": (sums[name] - self.logged_sums.get(name, 0.0)) / images for name in sums}
        if any_process(trainer, not math.isfinite(loss := metrics["step/loss"])):
            raise divergence_error(f"the loss became {loss} by step {trainer.global_step}", trainer)
        metrics |= {
            "step/learning_rate": self.learning_rate,
            "step/images_per_second": images / (now - self.logged_at),
        }
        running = {name: value / self.epoch_images for name, value in sums.items()}
        self.running = running | {"images_per_second": self.epoch_images / (now - self.epoch_start)}
        self.logged_sums, self.logged_images, self.logged_at = sums, self.epoch_images, now
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step=self.step)

    def sums(self, classifier: Classifier) -> dict[str, float]:
        """Return the means of this process over the epoch so far, times the images of all processes."""
        values = classifier.training_metrics()
        return {name: value.item() * self.epoch_images for name, value in values.items() if "top5" not in name}

    # validation within an epoch

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validated_in_training(trainer):
            return
        assert isinstance(pl_module, Classifier)
        if self.logged_images < self.epoch_images:  # the time of validation must not count as training
            self.log_step(trainer, pl_module)
        self.validation_start = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validated_in_training(trainer):
            return
        assert isinstance(pl_module, Classifier)
        seconds = time.perf_counter() - self.validation_start
        self.epoch_start, self.logged_at = self.epoch_start + seconds, self.logged_at + seconds
        self.validated_step = trainer.global_step
        if not trainer.is_last_batch:
            self.add_row(trainer, pl_module, self.epoch_metrics(trainer, pl_module))

    # ends of epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        train = self.end_epoch(trainer, pl_module)
        pl_module.log_dict(train, logger=False, sync_dist=trainer.world_size > 1)  # other callbacks read them there

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the epoch of a run that was resumed where it ends within one, so that no batch was left to train."""
        assert isinstance(pl_module, Classifier)
        if self.epoch_images and not trainer.is_last_batch:
            self.end_epoch(trainer, pl_module)

    def end_epoch(self, trainer: L.Trainer, classifier: Classifier) -> dict[str, torch.Tensor]:
        """Log and record the training metrics of an epoch, and return them."""
        train = self.epoch_metrics(trainer, classifier)
        classifier.train_metrics.reset()
        self.train_seconds += self.logged_at - self.epoch_start
        self.train_images += self.epoch_images
        # An epoch that a limit cut short is logged one step later, so that purge_step removes it on resume.
        step = trainer.global_step - 1 if trainer.is_last_batch else trainer.global_step
        for logger in trainer.loggers:
            logger.log_metrics({name: value.item() for name, value in train.items()}, step=step)
        if trainer.global_step > self.latest_step:  # else a validation within the epoch has ended the training
            self.add_row(trainer, classifier, train)
        self.epoch_images = self.logged_images = 0
        return train

    def epoch_metrics(self, trainer: L.Trainer, classifier: Classifier) -> dict[str, torch.Tensor]:
        """Return the training metrics of the epoch so far, as scalars and means over all processes."""
        seconds = self.logged_at - self.epoch_start
        train = {f"train/{name}": value for name, value in classifier.training_metrics().items()}
        train |= {
            "train/learning_rate": torch.tensor(self.learning_rate, device=classifier.device),
            "train/images_per_second": torch.tensor(self.epoch_images / seconds, device=classifier.device),
            "train/epoch_seconds": torch.tensor(seconds, device=classifier.device),
        }
        return {name: trainer.strategy.reduce(value, reduce_op="mean") for name, value in train.items()}

    # rows

    @property
    def latest_step(self) -> int:
        return int(self.rows[-1]["step"]) if self.rows else 0

    def add_row(self, trainer: L.Trainer, classifier: Classifier, train: Mapping[str, torch.Tensor]) -> None:
        """Add a row to metrics.csv, with the validation of its weights if there was one."""
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        row |= {name: float(value) for name, value in train.items()}
        if self.validated_step == trainer.global_step:
            row |= validation_metrics(trainer, classifier)
        self.rows.append(row)
        self.write_rows(trainer)

    def add_validation(self, trainer: L.Trainer, classifier: Classifier) -> None:
        """Complete the last row with the validation that Trainer.validate has just done."""
        self.rows[-1] |= validation_metrics(trainer, classifier)
        self.validated_step = trainer.global_step
        self.write_rows(trainer)

    def write_rows(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self.run.write_metrics(self.rows)

    # after training

    @property
    def epochs(self) -> int:
        """The number of epochs, with one that a limit cut short."""
        return len({row["epoch"] for row in self.rows})

    @property
    def images_per_second(self) -> float:
        return self.train_images / self.train_seconds if self.train_seconds else 0.0

    def metrics_at(self, step: int | None) -> dict[str, float]:
        """Return the row of the weights after `step` optimizer steps; the last one for None or without such a row."""
        rows = [row for row in self.rows if row["step"] == step] or self.rows[-1:]
        return rows[-1] if rows else {}


def validation_metrics(trainer: L.Trainer, classifier: Classifier) -> dict[str, float]:
    """Return what the last validation measured, and over how many images."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
    return metrics | {"val/images": classifier.evaluated_images["val"]}
