"""How long a run still takes, from the seconds of the batches and validations that it has done."""

import logging
import math
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from reslab.training.checkpoints import is_validated_in_training
from reslab.training.limits import TrainingLimits

log = logging.getLogger(__name__)

# A forward pass takes about a third of a step: the gradients of a convolution are two convolutions of its size.
FORWARD_SHARE = 1 / 3
MEASURED_SECONDS = 1.0  # of steps before the rest is estimated; the first step, which prepares much, is left out
LONG_ON_CPU = 20 * 60  # seconds


class Pace(Callback):
    """Measure the batches and validations of this process, and log once how long the run takes.

    Args:
        level: the level of this line.
        forward_passes: of each image that is validated: two with flip averaging.
        max_seconds: a limit of the run's time, over all parts of a run that is resumed; None without one.

    Attributes:
        seconds_left: until the end of the training, also where the limit is what ends it; None before it is known.
    """

    def __init__(self, level: int, forward_passes: int = 1, max_seconds: float | None = None) -> None:
        self.level, self.forward_passes, self.max_seconds = level, forward_passes, max_seconds
        self.seconds_left: float | None = None
        self.is_logged = False
        self.batches = self.validations = 0  # that were measured
        self.batch_seconds = self.validation_seconds = 0.0
        self.batch_ended: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.first_epoch, self.first_step = trainer.current_epoch + 1, trainer.global_step + 1
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        self.limits = next(callback for callback in callbacks if isinstance(callback, TrainingLimits))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self.batch_ended is not None:
            self.batches, self.batch_seconds = self.batches + 1, self.batch_seconds + now - self.batch_ended
            self.seconds_left = min(self.estimate(trainer, batch_idx + 1), self.seconds_of_limit)
        self.batch_ended = now
        is_measured = self.batch_seconds >= MEASURED_SECONDS or (self.batches > 0 and trainer.is_last_batch)
        if is_measured and not self.is_logged and not self.limits.time_is_up:
            self.is_logged = True
            self.log_estimate(trainer, self.estimate(trainer, batch_idx + 1))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.validation_started = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_validated_in_training(trainer):
            seconds = time.perf_counter() - self.validation_started
            self.validations, self.validation_seconds = self.validations + 1, self.validation_seconds + seconds
            if self.batch_ended is not None:
                self.batch_ended += seconds

    @property
    def seconds_of_limit(self) -> float:
        """Seconds that `max_seconds` leaves."""
        return math.inf if self.max_seconds is None else max(0.0, self.max_seconds - self.limits.elapsed)

    def estimate(self, trainer: L.Trainer, done: int) -> float:
        """Return the seconds for all epochs or steps that are left, after `done` batches of the epoch."""
        per_batch = self.batch_seconds / self.batches
        length, validations = int(trainer.num_training_batches), validations_in_epoch(trainer)
        epochs_left = batches_left(trainer, done) / length
        if self.validations:
            per_validation = self.validation_seconds / self.validations
        else:
            per_validation = per_batch * FORWARD_SHARE * self.forward_passes * sum(trainer.num_val_batches)
        return epochs_left * (length * per_batch + validations * per_validation)

    def log_estimate(self, trainer: L.Trainer, seconds: float) -> None:
        """Log how long the run takes, and that its limit of time ends it or what makes a long one on a CPU shorter."""
        line = f"{self.length(trainer)}: about {brief_duration(seconds)}"
        if self.seconds_of_limit < seconds:
            line += f"; trainer.max_time ends the run in {brief_duration(self.seconds_of_limit)}"
        elif seconds > LONG_ON_CPU and trainer.strategy.root_device.type == "cpu":
            limit = "max_steps" if ends_by_steps(trainer) else "max_epochs"
            line += f" on this CPU; a GPU, a smaller model or a smaller trainer.{limit} takes less"
        log.log(self.level, "%s", line)

    def length(self, trainer: L.Trainer) -> str:
        """Return what this process trains, by the limit that comes first."""
        if ends_by_steps(trainer):
            return span("step", self.first_step, trainer.max_steps)
        assert trainer.max_epochs is not None
        return span("epoch", self.first_epoch, trainer.max_epochs)


def ends_by_steps(trainer: L.Trainer) -> bool:
    """Return whether trainer.max_steps ends the training before trainer.max_epochs does."""
    if trainer.max_steps == -1:
        return False
    steps_per_epoch = math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)
    epochs = trainer.max_epochs or -1
    return epochs < 0 or trainer.max_steps < epochs * steps_per_epoch


def span(unit: str, first: int, last: int) -> str:
    """Return the parts of a run that are left.

    Example:
        >>> [span("epoch", *ends) for ends in ((1, 1), (1, 60), (3, 60), (60, 60))]
        ['1 epoch', '60 epochs', 'epochs 3 to 60', 'epoch 60']
    """
    if first == 1:
        return f"{last:,} {unit}{'s' * (last != 1)}"
    return f"{unit}s {first:,} to {last:,}" if first < last else f"{unit} {last:,}"


def batches_left(trainer: L.Trainer, done: int) -> int:
    """Return how many batches the run still trains on, after `done` batches of the epoch."""
    length, left = int(trainer.num_training_batches), math.inf
    if (trainer.max_epochs or -1) > 0:
        left = (trainer.max_epochs - trainer.current_epoch) * length - done  # type: ignore[operator]
    if trainer.max_steps != -1:
        left = min(left, (trainer.max_steps - trainer.global_step) * trainer.accumulate_grad_batches)
    return max(0, int(left))


def validations_in_epoch(trainer: L.Trainer) -> float:
    """Return how many validations there are in an epoch on average."""
    every = trainer.val_check_batch
    if not sum(trainer.num_val_batches) or not every or math.isinf(every):
        return 0.0
    return (int(trainer.num_training_batches) // int(every)) / (trainer.check_val_every_n_epoch or 1)


def brief_duration(seconds: float) -> str:
    """Return a duration in the unit that suits it.

    Example:
        >>> [brief_duration(seconds) for seconds in (0.3, 25.2, 754, 12_600, 400_000)]
        ['1 s', '25 s', '13 min', '3.5 h', '4.6 days']
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 36 * 3600 else f"{seconds / 86_400:.1f} days"
