"""Load a trained network. A checkpoint may come from a stranger: only classes that conf/ names are called for it."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from reslab.configuration import CONF, nodes, own_folders
from reslab.data.images import WHITE
from reslab.data.spec import ImageSpec
from reslab.errors import RunError, UserError, is_mistake, one_line
from reslab.models.build import build_network
from reslab.models.weights import StateDict, is_state_dict, listed, mismatches, not_finite
from reslab.run import read_configuration
from reslab.training.checkpoints import read_checkpoint
from reslab.training.classifier import Classifier

# The options without which a network cannot be built and tested.
NEEDED = (
    "model._target_", "model.name", "model.freeze", "data._target_", "data.name", "data.root", "seed",
    "trainer.precision",
)  # fmt: skip


class Trained(NamedTuple):
    """A trained classifier.

    Attributes:
        classifier: in evaluation mode, on the CPU.
        config: the options of its run that an evaluation needs: see `recorded_options`.
        spec: the classes, the shape and the statistics of its images.
    """

    classifier: Classifier
    config: DictConfig
    spec: ImageSpec

    @property
    def background(self) -> Sequence[int] | None:
        """RGB values that show through transparent parts of image files; None: the transparency is dropped.

        White where the network was trained on a data set that is not read from image files, and so has no background.
        """
        reads_files = "in_memory" in self.config.data  # an option of all data sets of image files, also in old runs
        return self.spec.background if reads_files or self.spec.background else WHITE

    @property
    def file_channels(self) -> int:
        """The channels that image files are read with: 1 for grey, 3 for RGB. Raise UserError for other networks."""
        stored = len(self.spec.mean)
        if stored not in (1, 3):
            raise UserError(f"the network takes images of {stored} channels, and image files are grey or RGB")
        return stored


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
            in conf/ names, or a network that cannot be.
        RunError: there is too little memory for the network.
    """
    return restore_classifier(path, read_checkpoint(path), config_dir)


def restore_classifier(path: Path, checkpoint: dict[str, Any], config_dir: str | Path | None = None) -> Trained:
    """Build the classifier of a checkpoint that has been read: see `load_classifier`."""
    record = checkpoint["reslab"]
    config = recorded_options(path, record["config"], config_dir)
    spec = ImageSpec(**record["spec"])
    state = checkpoint.get("state_dict")
    restored = state if is_state_dict(state) else {}
    try:
        network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size, restored)
    except InstantiationException as error:
        kind = UserError if is_mistake(error) else RunError  # there may be too little memory
        raise kind(f"{path} describes a network that cannot be built: {one_line(error, 'config', ())}") from error
    network.to(memory_format=torch.channels_last)  # as in training, so that results are equal to the last bit
    classifier = Classifier(network, spec, flip_averaging=config.flip_averaging)
    classifier.record = record
    own_state = classifier.state_dict()
    classifier.load_state_dict(own_state | read_weights(path, checkpoint, own_state))
    return Trained(classifier.eval(), config, spec)


def recorded_options(path: Path, recorded: Mapping[str, Any], config_dir: str | Path | None = None) -> DictConfig:
    """Return the options of a run that an evaluation needs; whatever else the checkpoint says does not count.

    Args:
        path: the checkpoint, for messages.
        recorded: the configuration in its record, whose values have their types checked.
        config_dir: as for `load_classifier`.

    Returns:
        The groups `model` and `data`, `seed`, `flip_averaging`, `trainer.precision`, and a `folder` in which nothing is
        written. Nothing in them is an interpolation, and they call only classes that a file of conf/ or of the user's
        own folder names.

    Raises:
        UserError: something else would be called or computed, or an option is missing.
    """
    folders = [CONF, *(own_folders(sys.argv[1:]) if config_dir is None else [Path(config_dir)])]
    groups = {name: recorded.get(name, {}) for name in ("model", "data")}
    for name, options in groups.items():
        refuse_calls(path, name, options, folders)
    present = dict(nodes(recorded))
    if missing := [name for name in NEEDED if name not in present]:
        raise UserError(f"{path} is not a complete checkpoint of ResLab: its configuration has no {missing[0]}")
    options = groups | {
        "seed": recorded["seed"],
        "flip_averaging": recorded.get("flip_averaging", False),  # older runs do not have this option
        "trainer": {"precision": recorded["trainer"]["precision"]},
        "folder": ".",
    }
    if options["data"]["root"] is None:  # a shared network does not say where its data were
        options["data"] = options["data"] | {"root": OmegaConf.load(CONF / "data" / "_data.yaml").root}
    # The checkpoint's own weights are loaded. Nothing is downloaded for it.
    own_weights = {"weights": None} | ({"pretrained": False} if "pretrained" in options["model"] else {})
    options["model"] = options["model"] | own_weights
    config = OmegaConf.create(options)
    assert isinstance(config, DictConfig)
    return config


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
    if broken := not_finite(state):
        raise UserError(f"{path} holds weights that are not finite ({listed(broken)}): use another checkpoint")
    return state


def refuse_calls(path: Path, group: str, options: Mapping[str, Any], folders: Sequence[Path]) -> None:
    """Raise UserError for what Hydra or OmegaConf would call or compute, unless a file of the folders names it too.

    Args:
        path: the checkpoint, for messages.
        group: model or data.
        options: the options of that group in the checkpoint. Whoever wrote it must not choose what is called.
        folders: conf/ and the user's own folders of configuration.
    """
    known = [
        each
        for folder in folders
        for file in folder.glob(f"{group}/*.yaml")
        for each in instructions(read_configuration(file))
    ]
    for name, value in instructions(options):
        if is_interpolation(value) or (name, value) not in known:
            what = f"call {value}" if name.endswith("_target_") else f"compute {group}.{name}={value}"
            raise UserError(
                f"{path} would {what}, which no file in conf/{group} names: refused; "
                "if the class is your own, give your folder of configuration: --config-dir, in Python config_dir="
            )


def instructions(options: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield, with their names, Hydra's own keys (`_target_`, `_args_`, …) and text that OmegaConf would replace."""
    if is_interpolation(options):
        yield name, options
    parts = options.items() if isinstance(options, Mapping) else enumerate(options) if isinstance(options, list) else ()
    for key, value in parts:
        place = f"{name}.{key}" if name else str(key)
        if re.fullmatch("_.*_", str(key)):
            yield place, value
        yield from instructions(value, place)


def is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and "${" in value
