"""Early stopping that a resumed run obeys."""

from typing import Any

import lightning as L
from lightning.pytorch import callbacks


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
        """End a resumed run that had been ended already."""
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
