"""The limits of a training: a number of optimizer steps, and a time."""

import time
from datetime import timedelta
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from reslab.training.checkpoints import ends_optimizer_step, is_logged


class TrainingLimits(Callback):
    """End the training after the optimizer step that reaches `trainer.max_steps` or `trainer.max_time`.

    When a run is resumed, Lightning's own limit of steps (2.6) repeats an epoch that was complete, and its limit of
    time may end a run between the batches of one optimizer step. Here Lightning knows the limit only while it trains,
    and time is up only where a step is complete.

    Args:
        max_steps: the number of optimizer steps; -1 for no limit.
        max_time: seconds of training and validation, over all parts of a run that is resumed; None for no limit.

    Attributes:
        time_is_up: whether `max_time` has ended the training.
    """

    def __init__(self, max_steps: int, max_time: float | None) -> None:
        self.max_steps, self.max_time = max_steps, max_time
        self.seconds = 0.0  # of the earlier parts of a resumed run
        self.started: float | None = None
        self.time_is_up = False

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, without those between its parts."""
        return self.seconds + (time.monotonic() - self.started if self.started is not None else 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.elapsed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        limit_steps(trainer, -1)  # until the state of the loops has been restored

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.started = time.monotonic()
        limit_steps(trainer, self.max_steps)
        self.end_if_time_is_up(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        looks = trainer.world_size == 1 or is_logged(trainer, batch_idx)  # several processes decide together
        if looks and ends_optimizer_step(trainer, batch_idx):
            self.end_if_time_is_up(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds, self.started = self.elapsed, None
        limit_steps(trainer, self.max_steps)

    def end_if_time_is_up(self, trainer: L.Trainer) -> None:
        if self.max_time is not None and trainer.strategy.broadcast(self.elapsed >= self.max_time):
            self.time_is_up = True
            limit_steps(trainer, trainer.global_step)


def limit_steps(trainer: L.Trainer, steps: int) -> None:
    trainer.fit_loop.epoch_loop.max_steps = steps


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration as days:hours:minutes:seconds, e.g. 00:12:00:00."""
    days, hours, minutes, seconds = map(int, duration.split(":"))
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
