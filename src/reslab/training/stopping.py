"""Early stopping that a resumed run obeys, and why a run has ended before its length."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from reslab.training.limits import TrainingLimits
from reslab.training.schedules import optimizer_steps


class EarlyStopping(callbacks.EarlyStopping):
    """End the training after `patience` validations without improvement.

    Lightning's own class (2.6) decides after last.ckpt has been written, so that a run that was killed after its last
    epoch would train more epochs when it is resumed, and it replaces a new `patience` by that of the checkpoint.

    Args:
        monitor: a metric of validation.
        mode: max if more is better, min if less is.
        patience: the number of validations without improvement.
    """

    def __init__(self, monitor: str, mode: str, patience: int) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End a resumed run that had been ended already. More patience lets it continue, unless a NaN has ended it."""
        has_ended = self.stopping_reason not in (
            EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.PATIENCE_EXHAUSTED
        )  # fmt: skip
        trainer.should_stop = trainer.should_stop or has_ended or self.wait_count >= self.patience


def stop_reason(trainer: L.Trainer) -> str | None:
    """Return why a training has ended before its length; None where it has reached that."""
    if trainer.global_step >= optimizer_steps(trainer):
        return None
    callbacks_of_run = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, TrainingLimits) and callback.time_is_up for callback in callbacks_of_run):
        return "trainer.max_time is over"
    if was_pruned(trainer):
        return "it fell behind the other trials of its search"
    if not trainer.should_stop:
        return None
    stopping = (callback for callback in callbacks_of_run if isinstance(callback, callbacks.EarlyStopping))
    return next(filter(None, map(early_stopping_reason, stopping)), "a callback has ended it")


def was_pruned(trainer: L.Trainer) -> bool:
    """Return whether a callback ended the run because it fell behind in a search."""
    return any(getattr(callback, "pruned", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def early_stopping_reason(callback: callbacks.EarlyStopping) -> str | None:
    """Return why a callback has ended a training; None if it has not."""
    if callback.wait_count >= callback.patience:
        validations = f"{callback.wait_count} validation{'s' * (callback.wait_count != 1)}"
        return f"{callback.monitor} has not improved in {validations}"
    if callback.stopping_reason in (EarlyStoppingReason.NOT_STOPPED, EarlyStoppingReason.PATIENCE_EXHAUSTED):
        return None  # the second with more patience than before
    return str(callback.stopping_reason_message).removesuffix(" Signaling Trainer to stop.")


def stop_moment(trainer: L.Trainer) -> str:
    """Return when a training has ended: `epoch 2 of 8`, or `step 45 of 160` within an epoch or a limit of steps."""
    steps = optimizer_steps(trainer)
    epoch, within = divmod(trainer.global_step * (trainer.max_epochs or 0), steps)
    if trainer.max_steps < 0 and not within:
        return f"epoch {epoch:,} of {trainer.max_epochs:,}"
    return f"step {trainer.global_step:,} of {steps:,}"
