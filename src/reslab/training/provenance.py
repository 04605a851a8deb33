"""The origin of a result: the data, seed, device, precision, versions and commit of its run."""

import subprocess
import sys

import lightning as L
import torch
import torchvision
from omegaconf import DictConfig

from reslab.configuration import CONF, PACKAGE
from reslab.data.base import ImageDataModule
from reslab.run import Result
from reslab.training.classifier import Classifier


def provenance(config: DictConfig, data: ImageDataModule, classifier: Classifier, trainer: L.Trainer) -> Result:
    """Return the origin of a run's metrics as plain values, for its result and its checkpoints."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "parameters": sum(parameter.numel() for parameter in classifier.network.parameters()),
        "device": name,
        "precision": trainer.precision,
        "versions": versions(),
        "git_commit": git_commit(),
        "data_checksum": data.checksum(),
    }


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),  # a plain string, because checkpoints hold plain values only
        "torchvision": torchvision.__version__,
        "lightning": L.__version__,
    }


def git_commit() -> str | None:
    """Return the commit of ResLab's checkout, with `-dirty` if files differ from it; None for an installed wheel.

    A wheel may be installed inside another project's repository, whose commit would say nothing about ResLab.
    """
    if CONF.is_relative_to(PACKAGE):
        return None
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
