"""The best checkpoint of a run, and a classifier from it: everything else is read from there."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from reslab.classifier import Classifier
from reslab.data.base import ImageSpec
from reslab.errors import UserError
from reslab.models.build import build_network


class BestCheckpoint(ModelCheckpoint):
    """Of two equal epochs the later one is the better: its learning rate had come further down."""

    def check_monitor_top_k(self, trainer: L.Trainer, current: Tensor | None = None) -> bool:
        equal = current is not None and current == self.best_model_score
        return super().check_monitor_top_k(trainer, current) or equal


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
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        record = checkpoint["reslab"]
    except Exception as error:  # torch.load fails in many ways on what is not a checkpoint
        raise UserError(f"{path} is not a checkpoint of ResLab ({type(error).__name__})") from error
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
