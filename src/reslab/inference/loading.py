"""Load a trained network. A checkpoint may come from a stranger: only classes that conf/ names are called for it."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf

from reslab.configuration import CONF, own_folders
from reslab.data.base import ImageSpec
from reslab.errors import UserError
from reslab.models.build import build_network
from reslab.models.weights import StateDict, is_state_dict, listed, mismatches
from reslab.run import Run
from reslab.training.checkpoints import read_checkpoint
from reslab.training.classifier import Classifier


class Trained(NamedTuple):
    """A trained classifier.

    Attributes:
        classifier: in evaluation mode, on the CPU.
        config: the configuration of its run.
        spec: the classes, the shape and the statistics of its images.
    """

    classifier: Classifier
    config: DictConfig
    spec: ImageSpec


def find_checkpoint(path: str | Path) -> Path:
    """Return the path itself if it is a file, otherwise the best checkpoint of the run in that folder.

    Raises:
        UserError: there is no such file, and no run with a checkpoint.
    """
    path = Path(path)
    if os.path.isfile(path):  # noqa: PTH113  # false for a name that is too long, where Path raises OSError
        return path
    try:
        return Run(path).checkpoint()
    except UserError as error:
        raise UserError(f"checkpoint={path}: neither a checkpoint nor the folder of a run that has one") from error


def load_classifier(path: Path, config_dir: str | Path | None = None) -> Trained:
    """Load a trained classifier. Nothing in the file can run code.

    Args:
        path: a checkpoint, best.ckpt or last.ckpt.
        config_dir: a folder of configuration that names classes of the user's own; None for the one that the command
            line names.

    Returns:
        The classifier with the weights of the checkpoint, its configuration and its image spec.

    Raises:
        UserError: the file is not a complete checkpoint of ResLab with finite weights, or it names a class that no file
            in conf/ names.
    """
    return restore_classifier(path, read_checkpoint(path), config_dir)


def restore_classifier(path: Path, checkpoint: dict[str, Any], config_dir: str | Path | None = None) -> Trained:
    """Build the classifier of a checkpoint that has been read: see `load_classifier`."""
    record = checkpoint["reslab"]
    own = own_folders(sys.argv[1:]) if config_dir is None else [Path(config_dir)]
    refuse_unknown_classes(path, record["config"], [CONF, *own])
    config = OmegaConf.create(record["config"])
    assert isinstance(config, DictConfig)
    spec = read_spec(path, record)
    config.model.weights = None  # the checkpoint's own weights are loaded below
    network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size)
    network.to(memory_format=torch.channels_last)  # as in training, so that results are equal to the last bit
    flip_averaging = bool(config.get("flip_averaging"))  # older runs do not have this option
    classifier = Classifier(network, spec, flip_averaging=flip_averaging)
    classifier.record = record
    own_state = classifier.state_dict()
    classifier.load_state_dict(own_state | read_weights(path, checkpoint, own_state))
    return Trained(classifier.eval(), config, spec)


def read_spec(path: Path, record: dict[str, Any]) -> ImageSpec:
    """Return the image spec of a checkpoint. Raise UserError if it is missing or has other fields than an ImageSpec."""
    try:
        return ImageSpec(**record["spec"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is not a complete checkpoint of ResLab: its image spec is missing or wrong") from error


def read_weights(path: Path, checkpoint: dict[str, Any], own: StateDict) -> StateDict:
    """Return the weights of a checkpoint for a classifier with the state `own`.

    Raises:
        UserError: weights are missing, do not fit, or are not finite; the message names them.
    """
    state = checkpoint.get("state_dict")
    if not is_state_dict(state):
        raise UserError(f"{path} is not a complete checkpoint of ResLab: it holds no weights (state_dict)")
    if problems := mismatches(state, own):
        raise UserError(f"{path} does not fit the network that it describes: {listed(problems)}")
    if broken := [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise UserError(f"{path} holds weights that are not finite ({listed(broken)}): use another checkpoint")
    return state


def refuse_unknown_classes(path: Path, config: dict[str, Any], folders: Sequence[Path]) -> None:
    """Raise UserError for a class that Hydra would call for the model or the data, unless one of the folders names it.

    The folders are conf/ and the user's own: whoever wrote a checkpoint must not choose what is called.
    """
    files = [file for folder in folders for group in ("model", "data") for file in folder.glob(f"{group}/*.yaml")]
    known = {OmegaConf.select(OmegaConf.load(file), "_target_") for file in files}
    for target in targets([config["model"], config["data"]]):
        if target not in known:
            raise UserError(
                f"{path} would call {target}, which no file in conf/model or conf/data names: refused; "
                "if the class is your own, give your folder of configuration: --config-dir, in Python config_dir="
            )


def targets(node: Any) -> Iterator[Any]:
    """Yield the names that Hydra would call, and the text that OmegaConf would replace by another value."""
    if isinstance(node, str) and "${" in node:
        yield node
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from targets(part)
