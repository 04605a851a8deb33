"""Within a search that has a pruner: tells it of each validation, and ends a trial that falls behind."""

from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback

from reslab.errors import UserError


class Pruning(Callback):
    """Ends a run after an epoch, as early stopping does: with its checkpoints written, and `pruned` true."""

    def __init__(self, trial: "optuna.Trial", objective: str) -> None:  # type: ignore[name-defined]  # noqa: F821
        self.trial, self.objective, self.pruned = trial, objective, False
        self.reported = set(trial.study.trials[trial.number].intermediate_values)  # before the run was cut off

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if trainer.world_size > 1:
            raise UserError("hydra.sweeper.pruner works on one device: add trainer.devices=1")

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epochs = trainer.current_epoch + 1
        if trainer.sanity_checking or epochs in self.reported:
            return
        self.trial.report(trainer.callback_metrics[self.objective].item(), epochs)
        self.pruned = trainer.should_stop = self.trial.should_prune()


def pruning(folder: Path) -> list[Callback]:
    """For the run in this folder, if that is the job of a running trial; none otherwise."""
    number = folder.name.partition("_")[0]
    if not number.isdecimal() or not (folder.parent / "search.db").is_file():
        return []
    import optuna

    from reslab.search import PRUNERS, open_study

    study = open_study(folder.parent)
    search, trials = study.user_attrs["search"], study.trials
    if search["pruner"] == "none" or int(number) >= len(trials) or trials[int(number)].state.is_finished():
        return []
    study.pruner = PRUNERS[search["pruner"]]()
    return [Pruning(optuna.Trial(study, trials[int(number)]._trial_id), search["objectives"][0])]


def was_pruned(trainer: L.Trainer) -> bool:
    return any(isinstance(callback, Pruning) and callback.pruned for callback in trainer.callbacks)  # type: ignore[attr-defined]
