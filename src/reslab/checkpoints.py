"""A run's checkpoints: when they are written and how, which one a resumed run goes on from, a classifier from one."""

import logging
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from reslab.classifier import Classifier
from reslab.data.base import ImageSpec
from reslab.errors import CONF, RunError, UserError
from reslab.files import replaced
from reslab.interruption import Interrupted, signals
from reslab.models.build import build_network
from reslab.resuming import differences

log = logging.getLogger(__name__)


class LastCheckpoint(Checkpoint):
    """Writes last.ckpt after each epoch, within one every so many minutes and when a signal asks the run to end.

    Within an epoch only after an optimizer step that is not the epoch's last: no checkpoint holds gradients that are
    being accumulated, and Lightning (2.6) would not validate an epoch that it was resumed at the last step of. Several
    processes agree about it at the steps that are logged. Weights that are not finite are not written: RunError.
    """

    def __init__(self, dirpath: str, every_minutes: float) -> None:
        self.path, self.every_seconds = Path(dirpath) / "last.ckpt", 60 * every_minutes

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step, self.saved_at = trainer.global_step, time.monotonic()
        self.saved_step = self.step if trainer.ckpt_path else None
        signals.listen()  # again: Lightning has put its own handler in front

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped, self.step = trainer.global_step != self.step, trainer.global_step
        if trainer.is_last_batch or not stepped:
            return
        logged = (batch_idx + 1) % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        asked = due = False
        if trainer.world_size == 1 or logged:
            asked = any_process(trainer, signals.caught is not None)
            due = any_process(trainer, time.monotonic() - self.saved_at >= self.every_seconds)
        if asked or due or trainer.global_step == trainer.max_steps:  # a run may be given more steps
            self.save(trainer)
        if asked:
            raise interruption()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_last_batch:
            self.save(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if any_process(trainer, signals.caught is not None):
            raise interruption()

    def save(self, trainer: L.Trainer) -> None:
        assert trainer.lightning_module is not None
        for name, tensor in trainer.lightning_module.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise diverged(f"{name} is no longer finite after step {trainer.global_step}", trainer)
        for logger in trainer.loggers:
            logger.save()  # what was logged before is then not lost with this process
        trainer.save_checkpoint(self.path)
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step


def interruption() -> Interrupted:
    return Interrupted(signals.caught or signal.SIGTERM)  # where another process has caught it


def any_process(trainer: L.Trainer, answer: bool) -> bool:
    return trainer.strategy.reduce_boolean_decision(answer, all=False) if trainer.world_size > 1 else answer


def diverged(what: str, trainer: L.Trainer) -> RunError:
    rate = trainer.optimizers[0].param_groups[0]["lr"]
    kept = "no checkpoint was written yet"
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, LastCheckpoint) and callback.saved_step is not None:
            kept = f"{callback.path} is of step {callback.saved_step}"
    return RunError(f"{what}, at learning rate {rate:g}: lower optimizer.lr; {kept}")


class CheckpointFiles(TorchCheckpointIO):
    """How Lightning writes and reads them: whole or not at all; last.ckpt leaves its predecessor as previous.ckpt."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        keep = path.with_name("previous.ckpt") if path.name == "last.ckpt" else None
        with replaced(path, keep) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)


class BestCheckpoint(ModelCheckpoint):
    """Of two equal epochs the later one is the better: its learning rate had come further down."""

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and current == self.best_model_score
        return super().check_monitor_top_k(trainer, current) or equal

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The run's folder may have been moved; Lightning would then forget which weights were the best."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: here(path) for name, path in state_dict.items() if name.endswith("_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(state_dict | paths | {"dirpath": self.dirpath, "best_k_models": best})


def resumed_checkpoint(resume: Path, config: DictConfig) -> tuple[Path | None, int]:
    """The checkpoint of a run's folder to go on from, or the one that is named, and its step; (None, 0) to begin anew.

    A broken one is set aside and the one before it taken. Raises UserError if the run's `config` is not the one that
    the checkpoint was made with, and for a named checkpoint that is broken.
    """
    folder = resume / "checkpoints"
    candidates = [folder / f"{name}.ckpt" for name in ("last", "previous", "best")] if resume.is_dir() else [resume]
    for path in filter(Path.is_file, candidates):
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if path == resume:
                raise
            path.replace(path.with_suffix(".broken"))
            log.warning("%s: set aside as %s", error, path.with_suffix(".broken").name)
            continue
        if different := differences(checkpoint["reslab"]["config"], OmegaConf.to_container(config, resolve=True)):
            raise UserError(f"resume={resume} would be another run: {'; '.join(different)}; start a new one instead")
        log.info("resumed from %s, step %d", path, checkpoint["global_step"])
        return path, checkpoint["global_step"]
    log.warning("resume=%s: no checkpoint was written, so it begins anew", resume)
    return None, 0


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Raises UserError for what is not a checkpoint of ResLab."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of what it then refuses
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint["reslab"]["config"]
    except Exception as error:  # torch.load fails in many ways on what is not a checkpoint
        raise UserError(f"{path} is not a checkpoint of ResLab ({type(error).__name__})") from error
    return checkpoint


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint itself, or the best one of a run's folder (the last one where there was no validation)."""
    path = Path(path)
    candidates = [path] if path.is_file() else [path / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"checkpoint={path}: neither a checkpoint nor a run's folder with checkpoints/best.ckpt")


def load_classifier(path: Path) -> tuple[Classifier, DictConfig, ImageSpec]:
    """The trained classifier with the configuration and the image spec that it was trained with."""
    checkpoint = read_checkpoint(path)
    record = checkpoint["reslab"]
    refuse_other_targets(path, record["config"])
    config = OmegaConf.create(record["config"])
    assert isinstance(config, DictConfig)
    spec = ImageSpec(**record["spec"])
    config.model.weights = None  # those of the checkpoint follow
    network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size)
    network.to(memory_format=torch.channels_last)  # as in training, to the last bit
    classifier = Classifier(network, spec, flip_averaging=bool(config.get("flip_averaging")))  # older runs: without
    classifier.record = record
    classifier.load_state_dict(checkpoint["state_dict"])
    return classifier.eval(), config, spec


def refuse_other_targets(path: Path, config: dict[str, Any]) -> None:
    """Hydra calls whatever `_target_` names: of a checkpoint only what conf/ itself names for models and data."""
    files = [*CONF.glob("model/*.yaml"), *CONF.glob("data/*.yaml")]
    known = {OmegaConf.select(OmegaConf.load(file), "_target_") for file in files}
    for target in targets([config["model"], config["data"]]):
        if target not in known:
            raise UserError(f"{path} would call {target}, which no file in conf/model or conf/data names: refused")


def targets(node: Any) -> Iterator[Any]:
    """What Hydra would call, and what OmegaConf would put in its place: a checkpoint holds plain values."""
    if isinstance(node, str) and "${" in node:
        yield node
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from targets(part)
