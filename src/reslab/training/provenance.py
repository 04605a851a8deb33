"""The origin of a result: the data, seed, device, processor, precision, versions and commit of its run."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision
from omegaconf import DictConfig, OmegaConf

from reslab.configuration import CONF, PACKAGE, flatten
from reslab.data.base import ImageDataModule
from reslab.run import Result
from reslab.training.classifier import Classifier
from reslab.training.record import LENGTH


def provenance(config: DictConfig, data: ImageDataModule, classifier: Classifier, trainer: L.Trainer) -> Result:
    """Return the origin of a run's metrics as plain values, for its result and its checkpoints."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    weights = data.weights_of_classes()
    return ({} if weights is None else {"class_weights": weights}) | {
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "parameters": sum(parameter.numel() for parameter in classifier.network.parameters()),
        "device": name,
        "precision": trainer.precision,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "git_commit": git_commit(),
        "data_checksum": data.checksum(),
        "files_checksum": data.files_checksum(),
    }


def requested_lengths(config: DictConfig, earlier: Mapping[str, Any] | None, step: int) -> list[dict[str, Any]]:
    """Return how long the run was asked to train, and from which optimizer step on.

    A schedule depends on the length, so a run that is resumed with another length is not the run that began with it.

    Args:
        config: the configuration of the run.
        earlier: the record of the checkpoint that it continues from; None for a new run.
        step: the step of that checkpoint.

    Returns:
        One dictionary for the beginning and one for each change: "step", and the options of the length.
    """
    now = {option: OmegaConf.select(config, option) for option in LENGTH}
    if earlier is None:
        return [{"step": 0} | now]
    before = flatten(earlier["config"])
    history = earlier.get("requested") or [{"step": 0} | {option: before.get(option) for option in LENGTH}]
    last = {option: history[-1][option] for option in LENGTH}
    return [*history, {"step": step} | now] if last != now else [*history]


def processor() -> str:
    """Return the number of this machine's cores, the name that Linux has for them, and the instructions torch uses."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{os.cpu_count()} x {name}, {torch.backends.cpu.get_cpu_capability()}"


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),  # a plain string, because checkpoints hold plain values only
        "torchvision": torchvision.__version__,
        "lightning": L.__version__,
    }


def git_commit() -> str | None:
    """Return the commit of ResLab's checkout; None for an installed wheel.

    If the code or conf/ differs from the commit, `-dirty-` and a checksum of the differences follow, so that runs of
    different code are not taken for runs of one. A wheel may be installed inside another project's repository, whose
    commit would say nothing about ResLab.
    """
    if CONF.is_relative_to(PACKAGE):
        return None
    code = ["--", str(PACKAGE.parent), str(CONF)]
    try:
        commit = git("rev-parse", "HEAD").decode().strip()
        changes = git("diff", "HEAD", "--binary", *code)
        new = sorted(git("ls-files", "-z", "--others", "--exclude-standard", *code).split(b"\0")[:-1])
        changes += b"".join(name + b"\0" + (PACKAGE / os.fsdecode(name)).read_bytes() for name in new)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}-dirty-{hashlib.sha256(changes).hexdigest()[:12]}" if changes else commit


def git(*arguments: str) -> bytes:
    """Return what git prints about the checkout. Raise OSError or CalledProcessError if it does not answer."""
    return subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, check=True).stdout
