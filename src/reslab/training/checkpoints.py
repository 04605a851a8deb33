"""The checkpoints of a run: when and how they are written, and which one a resumed run continues from."""

import logging
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from reslab.errors import Interrupted, RunError, UserError
from reslab.files import replaced
from reslab.interruption import signals
from reslab.run import LAST, PREVIOUS, Run, differences

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Write last.ckpt after each epoch, every few minutes within an epoch, and when a signal interrupts the run.

    Within an epoch, it is written only after an optimizer step that is not the epoch's last one: a checkpoint never
    holds gradients that are being accumulated, and Lightning (2.6) would skip the validation of an epoch that is
    resumed at its last step. With several processes, they decide together, at logged steps only.

    Args:
        dirpath: the folder of the checkpoints.
        every_minutes: minutes between two checkpoints within an epoch.

    Raises:
        RunError: during training, if a weight is no longer finite. Such weights are not written.
        Interrupted: during training, after the checkpoint that a signal asked for.
    """

    def __init__(self, dirpath: str, every_minutes: float) -> None:
        self.path, self.every_seconds = Path(dirpath) / LAST, 60 * every_minutes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step, self.saved_at = trainer.global_step, time.monotonic()
        self.saved_step = self.step if trainer.ckpt_path else None
        signals.listen()  # again: Lightning's own handler of SIGTERM could end the run without this checkpoint

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if trainer.is_last_batch or not stepped:
            return
        logged = (batch_idx + 1) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        interrupted = due = False
        if trainer.world_size == 1 or logged:
            interrupted = any_process(trainer, signals.caught is not None)
            due = any_process(trainer, time.monotonic() - self.saved_at >= self.every_seconds)
        # Also save at max_steps, so that a resumed run can take more steps.
        if interrupted or due or trainer.global_step == trainer.max_steps:
            self.save(trainer)
        if interrupted:
            raise interruption_error()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if any_process(trainer, signals.caught is not None):
            raise interruption_error()

    def save(self, trainer: L.Trainer) -> None:
        assert trainer.lightning_module is not None
        for name, tensor in trainer.lightning_module.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise divergence_error(f"{name} is no longer finite after step {trainer.global_step}", trainer)
        for logger in trainer.loggers:
            logger.save()  # so that the points before this checkpoint are not lost if the process is killed
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step


def any_process(trainer: L.Trainer, answer: bool) -> bool:
    """Return whether the answer of any process is true. Every process must call this."""
    return trainer.strategy.reduce_boolean_decision(answer, all=False) if trainer.world_size > 1 else answer


def interruption_error() -> Interrupted:
    return Interrupted(signals.caught or signal.SIGTERM)  # another process may have caught the signal


def divergence_error(problem: str, trainer: L.Trainer) -> RunError:
    """Return the error for a loss or a weight that is no longer finite. It names the last good checkpoint."""
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    kept = "no checkpoint was written yet"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and callback.saved_step is not None:
            kept = f"{callback.path} is of step {callback.saved_step}"
    return RunError(f"{problem}, at learning rate {rate:g}: lower optimizer.lr; {kept}")


class CheckpointFiles(TorchCheckpointIO):
    """The part of Lightning that writes and reads checkpoints.

    A file is written completely before it replaces the old one. The last.ckpt that is replaced becomes previous.ckpt.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        keep = path.with_name(PREVIOUS) if path.name == LAST else None
        with replaced(path, keep) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)


class BestCheckpoint(ModelCheckpoint):
    """Write best.ckpt for the epoch with the best value of `monitor`.

    Among equal epochs the latest counts, because its learning rate was the lowest. The arguments are those of
    Lightning's ModelCheckpoint.
    """

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and current == self.best_model_score
        return super().check_monitor_top_k(trainer, current) or equal

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue with the best score, also where the run's folder was moved: Lightning would then forget it."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: moved(path) for name, path in state_dict.items() if name.endswith("_path")}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


def resumed_checkpoint(resume: Path, config: DictConfig) -> tuple[Path | None, int]:
    """Find the checkpoint that a resumed run continues from.

    A broken checkpoint of the folder is renamed to *.broken, and the one before it is used.

    Args:
        resume: the run's folder, or one of its checkpoints.
        config: the configuration of the resumed run.

    Returns:
        The checkpoint and its step; (None, 0) if the run has not written any, so that it starts again.

    Raises:
        UserError: the configuration would make it another run, or the named checkpoint is broken.
    """
    for path in Run(resume).resumable_checkpoints() if resume.is_dir() else [resume]:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if path == resume:
                raise
            path.replace(path.with_suffix(".broken"))
            log.warning("%s: renamed to %s", error, path.with_suffix(".broken").name)
            continue
        refuse_another_run(resume, checkpoint["reslab"]["config"], config)
        refuse_fewer_epochs(checkpoint["epoch"], config)
        log.info("resumed from %s, step %d", path, checkpoint["global_step"])
        return path, checkpoint["global_step"]
    log.warning("resume=%s: no checkpoint was written, so the run starts again", resume)
    return None, 0


def refuse_another_run(resume: Path, saved: dict[str, Any], config: DictConfig) -> None:
    """Raise UserError if the configuration differs from the saved one where a resumed run may not differ."""
    now = OmegaConf.to_container(config, resolve=True)
    assert isinstance(now, dict)
    if different := differences(saved, {str(name): value for name, value in now.items()}):
        raise UserError(f"resume={resume} would be another run: {'; '.join(different)}; start a new one instead")


def refuse_fewer_epochs(epoch: int, config: DictConfig) -> None:
    """Raise UserError if the run has more epochs than are asked for. Lightning would refuse it too late."""
    if 0 <= config.trainer.max_epochs < epoch:
        raise UserError(
            f"trainer.max_epochs={config.trainer.max_epochs} is less than the {epoch} epochs that the run has trained"
        )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint on the CPU. Raise UserError if it is not one of ResLab."""
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns about some of the files that it then refuses
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["reslab"]["config"]
    except Exception as error:  # torch.load raises many kinds of errors for other files
        raise UserError(f"{path} is not a checkpoint of ResLab ({type(error).__name__})") from error
    return checkpoint
