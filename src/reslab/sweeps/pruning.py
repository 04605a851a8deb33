"""Within a search that has a pruner: tells it of each validation, and ends a trial that falls behind."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import Callback
from omegaconf import OmegaConf

from reslab.resuming import SWEEP_FILE

if TYPE_CHECKING:
    import optuna

ANSWER = "pruner"  # of a trial's attributes


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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A run that was cut off after it had been told to end trains no further epoch."""
        self.end_if(trainer, self.trial is not None and answer(self.trial) == (trainer.current_epoch, True))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.end_if(trainer, self.trial is not None and self.falls_behind(self.trial, trainer))

    def end_if(self, trainer: L.Trainer, behind: bool) -> None:
        self.pruned = trainer.strategy.broadcast(behind)
        trainer.should_stop = trainer.should_stop or self.pruned  # early stopping may have asked

    def falls_behind(self, trial: "optuna.Trial", trainer: L.Trainer) -> bool:
        """An epoch that comes again, after the run was cut off, has the answer that it had."""
        epochs = trainer.current_epoch + 1
        if epochs > answer(trial)[0]:
            if epochs > (trial.study.trials[trial.number].last_step or 0):  # or the kill came before the answer
                trial.report(trainer.callback_metrics[self.objective].item(), epochs)
            trial.set_user_attr(ANSWER, (epochs, bool(trial.should_prune())))  # numpy's has no JSON
        return answer(trial) == (epochs, True)


def answer(trial: "optuna.Trial") -> tuple[int, bool]:
    """The pruner's last one: after how many epochs, and whether the trial was to end."""
    epochs, ends = trial.user_attrs.get(ANSWER, (0, False))
    return epochs, ends


def pruning(folder: Path) -> list[Callback]:
    """For the run in this folder, if that is a job of a search with a pruner; none otherwise."""
    sweep = folder.parent / SWEEP_FILE
    if not folder.name.partition("_")[0].isdecimal() or not sweep.is_file():
        return []
    search = OmegaConf.select(OmegaConf.load(sweep), "hydra.sweeper", default={})
    return [Pruning(folder, search.get("storage"))] if search.get("pruner", "none") != "none" else []


def was_pruned(trainer: L.Trainer) -> bool:
    return any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks)  # type: ignore[attr-defined]
