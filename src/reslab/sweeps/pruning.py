"""A callback that reports the validations of a run to Optuna's pruner, and ends the run if its trial falls behind."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
from lightning.pytorch.callbacks import Callback

from reslab.options import require_package
from reslab.sweeps.folder import Sweep
from reslab.training.checkpoints import is_validated_in_training
from reslab.training.schedules import optimizer_steps

if TYPE_CHECKING:
    import optuna

ANSWER = "pruner"  # the attribute of a trial that holds the pruner's last answer


class Pruning(Callback):
    """End the trial of this run if it falls behind.

    The pruner is asked at the first validation of each epoch, which is at its end unless `trainer.val_check_interval`
    is set. The run stops there, as in early stopping: its checkpoints are written, and `pruned` becomes true. If the
    run is no longer in its search, or its trial has ended already, the run is trained to its end.

    Only the first process opens the search; it broadcasts the decision.

    Args:
        folder: the run's folder, which is in the sweep's folder. Its name begins with the number of the trial.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.pruned = Path(folder), False
        self.trial: optuna.Trial | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.is_global_zero:
            self.trial = running_trial(self.folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop at once if the pruner had already ended this trial before an interruption."""
        self.end_if(trainer, lambda trial: last_answer(trial) == (trainer.current_epoch, True))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_validated_in_training(trainer):
            is_over = trainer.global_step >= optimizer_steps(trainer)  # nothing would be saved
            self.end_if(trainer, lambda trial: self.falls_behind(trial, trainer) and not is_over)

    def end_if(self, trainer: L.Trainer, falls_behind: "Callable[[optuna.Trial], bool]") -> None:
        """End the run if its trial falls behind. Raise RunError if another process holds the database for too long."""
        self.pruned = trainer.strategy.broadcast(self.trial is not None and asked(self.trial, falls_behind))
        trainer.should_stop = trainer.should_stop or self.pruned  # early stopping may have set it

    def falls_behind(self, trial: "optuna.Trial", trainer: L.Trainer) -> bool:
        """Ask the pruner, unless it answered for this epoch before the run was interrupted."""
        epochs = trainer.current_epoch + 1
        if epochs > last_answer(trial)[0]:
            if epochs > (trial.study.trials[trial.number].last_step or 0):  # else it was reported without an answer
                trial.report(trainer.callback_metrics[objective_of(trial)].item(), epochs)
            trial.set_user_attr(ANSWER, (epochs, bool(trial.should_prune())))  # JSON has no numpy.bool
        return last_answer(trial) == (epochs, True)


def running_trial(folder: Path) -> "optuna.Trial | None":
    """Return the trial of the run in this folder; None if it is not running, or if the folder is in no search."""
    sweep, number = Sweep(folder.parent), folder.name.partition("_")[0]
    if not sweep.exists or not number.isdecimal():
        return None
    require_package("optuna", "hydra/sweeper=optuna", "search")
    from reslab.sweeps.study import open_running_trial

    return open_running_trial(sweep, int(number))


def asked(trial: "optuna.Trial", question: "Callable[[optuna.Trial], bool]") -> bool:
    from reslab.sweeps.study import errors_of_use

    with errors_of_use():
        return question(trial)


def objective_of(trial: "optuna.Trial") -> str:
    from reslab.sweeps.study import DEFINITION

    return str(trial.study.user_attrs[DEFINITION]["objectives"][0])


def last_answer(trial: "optuna.Trial") -> tuple[int, bool]:
    """Return after how many epochs the pruner was last asked, and whether it ended the trial."""
    epochs, ends = trial.user_attrs.get(ANSWER, (0, False))
    return epochs, ends
