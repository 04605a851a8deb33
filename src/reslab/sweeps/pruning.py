"""Within a search that has a pruner: tells it of each validation, and ends a trial that falls behind."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from reslab.resuming import SWEEP_FILE

if TYPE_CHECKING:
    import optuna


class Pruning(Callback):
    """Ends a run after an epoch, as early stopping does: with its checkpoints written, and `pruned` true.

    Of a run's processes the first one alone opens the search; the others stop when it tells them.
    """

    def __init__(self, folder: Path, storage: str | None = None) -> None:
        self.folder, self.storage, self.pruned = folder, storage, False
        self.trial: optuna.Trial | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            from reslab.sweeps.search import running_trial

            self.trial, self.objective = running_trial(self.folder, self.storage)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        behind = self.trial is not None and self.falls_behind(self.trial, trainer)
        self.pruned = trainer.strategy.broadcast(behind)
        trainer.should_stop = trainer.should_stop or self.pruned  # early stopping may have asked

    def falls_behind(self, trial: "optuna.Trial", trainer: L.Trainer) -> bool:
        """An epoch that comes again, after the run was cut off, was reported, and all but the last one answered."""
        epochs, reported = trainer.current_epoch + 1, trial.study.trials[trial.number].last_step or 0
        if epochs < reported:
            return False
        if epochs > reported:
            trial.report(trainer.callback_metrics[self.objective].item(), epochs)
        return trial.should_prune()


def pruning(folder: Path) -> list[Callback]:
    """For the run in this folder, if that is a job of a search with a pruner; none otherwise."""
    sweep = folder.parent / SWEEP_FILE
    if not folder.name.partition("_")[0].isdecimal() or not sweep.is_file():
        return []
    search = OmegaConf.select(OmegaConf.load(sweep), "hydra.sweeper", default={})
    return [Pruning(folder, search.get("storage"))] if search.get("pruner", "none") != "none" else []


def was_pruned(trainer: L.Trainer) -> bool:
    return any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks)  # type: ignore[attr-defined]
