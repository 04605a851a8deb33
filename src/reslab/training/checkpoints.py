"""The checkpoints of a run: when and how they are written, and which one a resumed run continues from."""

import logging
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from omegaconf import DictConfig
from torch import Tensor

from reslab.configuration import to_dict
from reslab.errors import Interrupted, RunError, UserError
from reslab.files import replaced
from reslab.interruption import postponed_news_of_workers, signals
from reslab.models.weights import (
    SAFETENSORS,
    DamagedFileError,
    StateDict,
    describe_load_error,
    is_state_dict,
    load_tensors,
    save_safetensors,
)
from reslab.run import LAST, PREVIOUS, Run, differences
from reslab.text import for_shell
from reslab.training.options import divergence_advice
from reslab.training.record import checked_record, recorded_threads

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Write last.ckpt after each epoch, every few minutes within an epoch, at the end, and at an interruption.

    Within an epoch, it is written only after an optimizer step that is not the epoch's last one: a checkpoint never
    holds gradients that are being accumulated, and Lightning (2.6) would skip the validation of an epoch that is
    resumed at its last step. With several processes, they decide together, at logged steps only.

    Args:
        every_minutes: minutes between two checkpoints within an epoch.

    Raises:
        RunError: during training, if a weight is no longer finite. Such weights are not written.
        Interrupted: during training, after the checkpoint that a signal asked for.
    """

    def __init__(self, every_minutes: float) -> None:
        self.every_seconds = 60 * every_minutes

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.path = Run(trainer.default_root_dir).last

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.saved_at = time.monotonic()
        self.saved = (trainer.ckpt_path, trainer.global_step) if trainer.ckpt_path else None
        signals.listen()  # again: Lightning's own handler of SIGTERM could end the run without this checkpoint

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch or not ends_optimizer_step(trainer, batch_idx):
            return
        # On resume, Lightning (2.6) would leave out a validation that is due after the batch of the checkpoint.
        if not is_validated_next(trainer, batch_idx):
            self.save_if_due(trainer, trainer.world_size == 1 or is_logged(trainer, batch_idx))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if is_validated_in_training(trainer) and not trainer.is_last_batch:
            self.save_if_due(trainer, looks=True)

    def save_if_due(self, trainer: L.Trainer, looks: bool) -> None:
        """Save where the time has come, at a signal, and where the training ends within an epoch.

        Args:
            trainer: the trainer.
            looks: look at the clock and for signals, which all processes do together.
        """
        interrupted = due = False
        if looks:
            interrupted = any_process(trainer, signals.caught is not None)
            due = any_process(trainer, time.monotonic() - self.saved_at >= self.every_seconds)
        # Also where a limit or a callback ends the training, so that a resumed run can take more steps.
        if interrupted or due or trainer.should_stop or trainer.global_step == trainer.max_steps:
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
        for logger in trainer.loggers:
            logger.save()  # so that the points before this checkpoint are not lost if the process is killed
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved = time.monotonic(), (self.path, trainer.global_step)


class BestCheckpoint(Checkpoint):
    """Write best.ckpt for the validation with the best value of `monitor`.

    Among equal values the latest counts, because its learning rate was the lowest. A value that is not a number is
    never better than another one.

    Args:
        monitor: a metric of validation.
        mode: max if more is better, min if less is.

    Attributes:
        best_score: the best value; None before the first validation.
        best_step: the number of optimizer steps of the weights in best.ckpt.
    """

    def __init__(self, monitor: str, mode: str) -> None:
        self.monitor, self.mode = monitor, mode
        self.best_score: float | None = None
        self.best_step: int | None = None
        self.is_due = False
        self.earlier_rows: list[dict[str, float]] = []  # of the checkpoint that a resumed run continues from

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.run = Run(trainer.default_root_dir)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.forget_replaced()

    def forget_replaced(self) -> None:
        """Forget the best validation if best.ckpt holds other weights by now.

        A run that is resumed from an older checkpoint repeats the validations that came after it.
        """
        if self.best_step is not None and step_of(self.run.best) != self.best_step:
            if not self.run.best.exists():
                log.warning("%s is missing: the best weights from now on take its place", self.run.best)
            self.best_score, self.best_step = None, None

    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "best_score": self.best_score, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best_score, self.best_step = state["best_score"], state["best_step"]
        if state["monitor"] != self.monitor and self.best_step is not None:
            row = next((row for row in self.earlier_rows if row["step"] == self.best_step), {})
            self.best_score = row.get(self.monitor)
            message = "best.ckpt was chosen by %s and stays until a later validation is better by %s"
            log.warning(message, state["monitor"], self.monitor)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Read the state that older versions saved with Lightning's ModelCheckpoint."""
        states = checkpoint["callbacks"]
        self.earlier_rows = states["History"]["rows"]
        older = next((state for key, state in states.items() if key.startswith(f"{self.state_key}{{")), None)
        if older is not None and older["monitor"] == self.monitor and older["best_model_score"] is not None:
            self.best_score = float(older["best_model_score"])
            rows = [row for row in self.earlier_rows if row.get(self.monitor) == self.best_score]
            self.best_step = int(rows[-1]["step"]) if rows else None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validated_in_training(trainer):
            return
        self.is_due = self.is_best(float(trainer.callback_metrics[self.monitor]), trainer.global_step)
        if self.is_due and not trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.is_due:  # a checkpoint of the last batch is complete only now
            self.save(trainer)

    def is_best(self, score: float, step: int) -> bool:
        """Return whether no validation before had a better value, and if so, remember this one."""
        best = self.best_score
        if best is not None and not math.isnan(best) and not (score >= best if self.mode == "max" else score <= best):
            return False
        self.best_score, self.best_step = score, step
        return True

    def save(self, trainer: L.Trainer) -> None:
        trainer.save_checkpoint(self.run.best)
        self.is_due = False

    def compare_last(self, trainer: L.Trainer, source: Path) -> None:
        """Take a checkpoint of the last weights as the best one if the validation after training says that it is.

        A run that is resumed would not have validated these weights, so it goes back to the best checkpoint of before.
        """
        is_best = self.is_best(float(trainer.callback_metrics[self.monitor]), trainer.global_step)
        if is_best and trainer.is_global_zero and source != self.run.best:
            with replaced(self.run.best, keep=self.run.best_before_end) as partial:
                shutil.copyfile(source, partial)
        trainer.strategy.barrier()


def step_of(checkpoint: Path) -> int | None:
    """Return the number of optimizer steps of the weights in a checkpoint; None if it cannot be read."""
    try:
        return int(read_checkpoint(checkpoint)["global_step"])
    except UserError:
        return None


def is_logged(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether a batch is one of those at which the processes of a run look at their values together."""
    last = trainer.is_last_batch or trainer.global_step == trainer.max_steps  # in between, a limit has ended the run
    return last or (batch_idx + 1) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]


def ends_optimizer_step(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether the optimizer has made its step after a batch, so that no gradients are being accumulated."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def is_validated_next(trainer: L.Trainer, batch_idx: int) -> bool:
    """Return whether trainer.val_check_interval asks for a validation after a batch."""
    every = trainer.val_check_batch
    if not trainer.enable_validation or not sum(trainer.num_val_batches) or not every or math.isinf(every):
        return False
    is_epoch = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
    return is_epoch and (batch_idx + 1) % every == 0


def is_validated_in_training(trainer: L.Trainer) -> bool:
    """Return whether the present validation is one of the training; the others only check or repeat something."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def any_process(trainer: L.Trainer, answer: bool) -> bool:
    """Return whether the answer of any process is true. Every process must call this."""
    return trainer.strategy.reduce_boolean_decision(answer, all=False) if trainer.world_size > 1 else answer


def interruption_error() -> Interrupted:
    return Interrupted(signals.caught or signal.SIGTERM)  # another process may have caught the signal


def refuse_lost_weights(checkpoint: Mapping[str, Any], trainer: L.Trainer) -> None:
    """Raise RunError if a value of a checkpoint that is about to be written is no longer finite."""
    weights = {**checkpoint["state_dict"], **checkpoint.get("last_weights", {})}
    for name, tensor in [*weights.items(), *optimizer_tensors(checkpoint)]:
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise divergence_error(f"{name} is no longer finite after step {trainer.global_step}", trainer)


def optimizer_tensors(checkpoint: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for optimizer in checkpoint.get("optimizer_states", ()):
        for state in optimizer["state"].values():
            yield from ((f"the optimizer's {key}", value) for key, value in state.items() if isinstance(value, Tensor))


def divergence_error(problem: str, trainer: L.Trainer) -> RunError:
    """Return the error for a loss or a weight that is no longer finite. It names the last good checkpoint."""
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    kept = "no checkpoint was written yet"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and callback.saved is not None:
            kept = "{} is of step {}".format(*callback.saved)
    advice = divergence_advice(trainer.lightning_module.record["config"])  # type: ignore[index, arg-type]
    return RunError(f"{problem}, at learning rate {rate:g}: {advice}; {kept}")


class CheckpointFiles(TorchCheckpointIO):
    """The part of Lightning that writes and reads checkpoints.

    A file is written completely before it replaces the old one. The last.ckpt that is replaced becomes previous.ckpt.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        keep = path.with_name(PREVIOUS) if path.name == LAST else None
        with postponed_news_of_workers(), replaced(path, keep) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        return read_checkpoint(Path(path))  # on the CPU, whatever Lightning asks for


class Resumed(NamedTuple):
    """What a resumed run continues from.

    Attributes:
        checkpoint: the file.
        step: the number of optimizer steps of its weights.
        record: what the classifier had recorded (`Classifier.record`).
        shapes: the tensors of the weights, without their values, by name. The Trainer reads the values.
        broken: newer checkpoints of the folder that cannot be read.
    """

    checkpoint: Path
    step: int
    record: dict[str, Any]
    shapes: StateDict
    broken: list[Path]


def resumed_checkpoint(resume: Path, config: DictConfig) -> Resumed | None:
    """Find the checkpoint that a resumed run continues from. Nothing in its folder changes.

    Args:
        resume: the run's folder, or one of its checkpoints.
        config: the configuration of the resumed run.

    Returns:
        The newest checkpoint that can be read; None if the run has not written any, so that it starts again.

    Raises:
        UserError: the configuration would make it another run, the named checkpoint or the best one is broken, or the
            checkpoints are missing.
    """
    broken: list[Path] = []
    for path in Run(resume).resumable_checkpoints() if resume.is_dir() else [resume]:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if path == resume:
                raise
            broken.append(path)
            log.warning("%s: it is renamed to %s", error, path.with_suffix(".broken").name)
            continue
        record = checkpoint["reslab"]
        refuse_another_run(resume, record["config"] | {"threads": recorded_threads(record)}, config)
        refuse_shorter_run(checkpoint, config)
        refuse_pipes(Run(config.folder).folder)
        refuse_broken_best(Run(config.folder).best)
        log.info("resumed from %s, step %d", path, checkpoint["global_step"])
        state = checkpoint.get("state_dict")  # the Trainer says what is wrong with it
        shapes = {name: tensor.to("meta") for name, tensor in state.items()} if is_state_dict(state) else {}
        return Resumed(path, checkpoint["global_step"], record, shapes, broken)
    if broken:
        names = ", ".join(path.name for path in broken)
        raise UserError(f"resume={resume}: none of its checkpoints can be read ({names}); start a new run")
    if lost := Run(resume).lost_checkpoints:
        raise UserError(f"{lost}: {for_shell(f'from={resume}')} repeats the run in a new folder")
    log.warning("resume=%s: the run has no checkpoint, so it starts again", resume)
    return None


def refuse_another_run(resume: Path, saved: dict[str, Any], config: DictConfig) -> None:
    """Raise UserError if the configuration differs from the saved one where a resumed run may not differ."""
    if different := differences(saved, to_dict(config, resolve=True)):
        others = f"{for_shell(f'from={resume}')} repeats it with other settings"
        more = f"{for_shell(f'model.weights={resume}')} begins a new run from its weights"
        raise UserError(f"resume={resume} would be another run: {'; '.join(different)}; {others}, {more}")


def refuse_shorter_run(checkpoint: Mapping[str, Any], config: DictConfig) -> None:
    """Raise UserError if the run has trained longer than is asked for, or was frozen by an older version."""
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["started"]
    for unit, done in (("epochs", epochs), ("steps", checkpoint["global_step"])):
        asked = config.trainer[f"max_{unit}"]
        if 0 <= asked < done:
            raise UserError(f"trainer.max_{unit}={asked} is less than the {done} {unit} that the run has begun")
    if any(key.startswith("BackboneFinetuning") for key in checkpoint["callbacks"]):
        raise UserError(
            "this run was begun with model.freeze in an older version, which froze other parts of the network and "
            "cannot be resumed: start a new run"
        )


def refuse_pipes(folder: Path) -> None:
    """Raise UserError for a pipe in a run's folder: to write to it would wait for its other end."""
    for path in folder.glob("*"):
        if path.is_fifo():
            raise UserError(f"{path} is a pipe: remove it to resume the run")


def refuse_broken_best(best: Path) -> None:
    """Raise UserError if best.ckpt is there and cannot be read: other weights would take its place in the result."""
    if os.path.lexists(best):
        try:
            read_checkpoint(best)
        except UserError as error:
            raise UserError(
                f"{best} cannot be read, so the best weights so far are lost: remove it to resume with the best "
                "weights from now on"
            ) from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint on the CPU. All that reads one starts here.

    Raises:
        UserError: it is not a checkpoint of ResLab, it is damaged, or its record has a value of a wrong type.
    """
    try:
        checkpoint: dict[str, Any] = load_tensors(path)
    except DamagedFileError as error:
        raise UserError(f"{path} cannot be read, {error}: use another checkpoint") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises many kinds of errors for other files
        raise UserError(f"{path} is not a checkpoint of ResLab: {describe_load_error(error)}") from error
    try:
        checkpoint["reslab"]["config"]
    except (KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path} is not a checkpoint of ResLab: it holds no record of a run") from error
    return checkpoint | {"reslab": checked_record(path, checkpoint)}


def add_to_record(path: Path, entries: Mapping[str, Any]) -> None:
    """Add entries to the record of a checkpoint. Everything else in it, and its time, stay as they are.

    Raises:
        UserError: it is not a checkpoint of ResLab, or the entries are not what a record may hold.
        OSError: it cannot be written.
    """
    path = path.resolve()  # a link stays one
    checkpoint, status = load_tensors(path), path.stat()
    checkpoint["reslab"] = dict(checkpoint["reslab"]) | dict(entries)
    checked_record(path, checkpoint)
    with replaced(path) as partial:
        if path.suffix == SAFETENSORS:
            save_safetensors(partial, checkpoint)
        else:
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
        os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))  # it says when the weights were saved
