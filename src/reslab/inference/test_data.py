"""Which images a network is tested on: those of classes that it knows, and none that it was trained on."""

import inspect
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from reslab.configuration import to_dict
from reslab.data.base import ImageDataModule
from reslab.data.batches import FolderImages
from reslab.data.folders import split_named
from reslab.data.image_folder import ClassFolders, ImageFolder
from reslab.data.images import first_few
from reslab.data.splits import Split
from reslab.data.training_files import folder_of_training_files, without_training_images
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.inference.options import UnknownClasses
from reslab.text import counted

log = logging.getLogger(__name__)

OF_THE_NETWORK = ("channels", "mean", "std", "background")  # with other values it would be another network
NEW_SIZES = ("eval_size", "resize", "interpolation", "fit")  # the options that older runs, and classes, do not have
DIVISION = ("labels", "group", "folds", "fold", "test_fraction")  # they say which images are for the test
LISTED_CLASSES = 10


class TestData(NamedTuple):
    """The images of an evaluation.

    Attributes:
        data: the data set. Its test split has the images to test, with the labels of the network.
        found: how many test images the data set has.
        left_out: how many of them are not in the test split, because the network was "trained_on" them or because they
            are of "unknown_classes".
    """

    data: ImageDataModule
    found: int
    left_out: dict[str, int]


def build_test_data(trained: Trained, config: DictConfig, checkpoint: Path) -> TestData:
    """Read the images that a network is tested on.

    Args:
        trained: the network and the configuration of its run.
        config: a composed conf/evaluate.yaml.
        checkpoint: the file of the network, for messages.

    Raises:
        UserError: the options contradict one another, or there are no images to test.
    """
    own_root = folder_of_own_data(trained, config)
    options = data_options(trained, config, own_root)
    own_labels = trained.config.data.get("labels")
    is_own = is_same_folder(options["root"], own_root) and options.get("labels") == own_labels
    with advice_for_own_data(not names_data(config)):
        data = build_data_set(options, trained)
        if isinstance(data, ImageFolder):
            data.tests_all = not is_own and config.data.test_fraction is None
            refuse_unknown_split(data, trained, own_root, checkpoint)
        data.setup("test")
    split = data.splits["test"]
    if split is None:
        whole = f": data.root={data.root}/<a folder of class folders> tests all of its images"
        raise UserError(
            f"data={data.name} has no test set in {data.root}{whole if isinstance(data, ImageFolder) else ''}"
        )
    refuse_other_division(split, data, options, trained, own_root)
    found = len(split)
    split, trained_on = without_seen_images(split, data, trained, own_root)
    split, unknown = with_labels_of_network(split, data, trained.spec.classes, config.unknown_classes, checkpoint)
    data.splits["test"] = split
    return TestData(data, found, {"trained_on": trained_on, "unknown_classes": unknown})


# the data set


def build_data_set(options: Mapping[str, Any], trained: Trained) -> ImageDataModule:
    """Build a data set whose images become squares as the network takes them; none of its splits has been read."""
    data: ImageDataModule = instantiate(options, seed=trained.config.seed, _convert_="all")
    if isinstance(data, ClassFolders):
        data.fitting_in_evaluation = trained.spec.fitting(training=False)
        data.stored_channels = trained.file_channels
    return data


def read_own_data(trained: Trained, config: DictConfig) -> ImageDataModule:
    """Read the training and validation images of a run's own data set, which the network takes as in a test.

    Args:
        trained: the network and the configuration of its run.
        config: a composed conf/evaluate.yaml, which names no data set.

    Raises:
        UserError: they cannot be read.
    """
    options = data_options(trained, config, folder_of_own_data(trained, config))
    with advice_for_own_data(True):
        data = build_data_set(options, trained)
        data.setup("fit")
    return data


def names_data(config: DictConfig) -> bool:
    """Return whether the command line names a data set. It may still be the run's own."""
    return "_target_" in config.data


def folder_of_own_data(trained: Trained, config: DictConfig) -> Path:
    """Return where the run's own data set is now."""
    if names_data(config) and config.root is not None:
        raise UserError(f"root= is the folder of the run's own data set: data={config.data.name} takes data.root=")
    moved = None if names_data(config) else config.root or config.data.root
    is_known = moved or names_data(config) or trained.classifier.record["config"]["data"]["root"] is not None
    if not is_known and issubclass(get_class(trained.config.data._target_), ImageFolder):
        raise UserError(
            f"a shared network does not say where the images of data={trained.config.data.name} are: set root=…"
        )
    return Path(moved or trained.config.data.root)


def data_options(trained: Trained, config: DictConfig, own_root: Path) -> dict[str, Any]:
    """Return the options of the data set: the run's own, or the one that the command line names.

    The images have the sizes of `trained.spec`, which are those that the command line gives or else the run's.
    """
    given = {name: value for name, value in to_dict(config.data, resolve=True).items() if value is not None}
    if fixed := [name for name in OF_THE_NETWORK if name in given]:
        raise UserError(f"data.{fixed[0]} is that of the network, which was trained with it: leave the option out")
    own = to_dict(trained.config.data, resolve=True)
    if names_data(config):
        absent: dict[str, Any] = dict.fromkeys(("root", "channels", "mean", "std"))
        sizes = {name: value for name in NEW_SIZES if (value := getattr(trained.spec, name)) is not None}
        options = absent | sizes | given
    else:
        options = own | given | {"root": str(own_root)}
    options["image_size"] = trained.spec.image_size
    if trained.spec.eval_size:
        options["eval_size"] = trained.spec.eval_size
    if options.get("resize") != trained.spec.resize:  # views=crops cuts squares out of the resized images
        options["resize"] = trained.spec.resize
    kind = get_class(options["_target_"])
    for name in ("on_error", "test_fraction"):
        if name in given and not takes(kind, name):
            raise UserError(f"data={options['name']} has no option data.{name}")
    if issubclass(kind, ClassFolders):
        # Each image is read once, and its path is needed.
        options |= {"in_memory": False, "background": trained.background}
    divided_as_own = {name: own[name] for name in DIVISION if name in own and is_of_run(options, own, own_root)}
    divided_as_given = {name: given[name] for name in DIVISION if name in given}
    whole = {"test_fraction": 0.0} if issubclass(kind, ImageFolder) else {}
    return options | whole | divided_as_own | divided_as_given


def is_of_run(options: Mapping[str, Any], own: Mapping[str, Any], own_root: Path) -> bool:
    """Return whether the images are those of which the run was trained on a part, and tested another part.

    Args:
        options: of the data set.
        own: the options of the run's own data set.
        own_root: where that is now.
    """
    kind, in_own_folder = get_class(options["_target_"]), is_same_folder(options["root"], own_root)
    if issubclass(kind, ImageFolder):
        return in_own_folder
    return options["_target_"] == own["_target_"] and (in_own_folder or not issubclass(kind, ClassFolders))


def takes(kind: type, argument: str) -> bool:
    """Return whether the constructor of a class, or of one of its base classes, has an argument of this name."""
    return any(argument in inspect.signature(base).parameters for base in kind.__mro__ if "__init__" in vars(base))


def is_same_folder(folder: str | Path | None, other: Path) -> bool:
    return folder is not None and Path(folder).resolve() == other.resolve()


@contextmanager
def advice_for_own_data(own: bool) -> Iterator[None]:
    """Let messages about the run's own data set name the option of this command, `root`, instead of `data.root`."""
    try:
        yield
    except UserError as error:
        if not own:
            raise
        raise UserError(re.sub(r"\bdata\.root\b(?!=)", "root=…", str(error)).replace("data.root=", "root=")) from error


def refuse_unknown_split(data: ImageFolder, trained: Trained, own_root: Path, checkpoint: Path) -> None:
    """Raise UserError if the images may be those of the training, and nothing tells.

    Older runs did not record their images, and divided class folders by another rule. Their test/ is still known.
    """
    root, own = data.root.resolve(), own_root.resolve()
    if "training_files" in trained.classifier.record or not root.is_dir():
        return
    is_undivided = root == own and not data.split_folders()
    is_part = own in root.parents and split_named(root.relative_to(own).parts[0]) != "test"
    if is_undivided or is_part:
        raise UserError(
            f"{checkpoint} is of an older version, which did not record on which images of {own_root} the network was "
            "trained: test it on other images, data=imagefolder data.root=<a folder with test/, or of classes>"
        )


# images that the network was trained on


def refuse_other_division(
    split: Split, data: ImageDataModule, options: Mapping[str, Any], trained: Trained, own_root: Path
) -> None:
    """Raise UserError if the images are those of the run and divided otherwise, and in memory, where nothing tells."""
    own = to_dict(trained.config.data, resolve=True)
    if isinstance(split.images, FolderImages) or data.has_test_images or not is_of_run(options, own, own_root):
        return
    if changed := " and ".join(f"data.{name}" for name in DIVISION if options.get(name) != own.get(name)):
        raise UserError(
            f"{changed} would divide data={data.name} otherwise than in the training, so that the test has images that "
            f"the network was trained on: leave {changed} out"
        )


def without_seen_images(split: Split, data: ImageDataModule, trained: Trained, own_root: Path) -> tuple[Split, int]:
    """Leave out the test images that the network was trained on: see `without_training_images`.

    Returns:
        The other images, and how many were left out.
    """
    record = trained.classifier.record.get("training_files")
    if record is None or not isinstance(split.images, FolderImages):
        return split, 0
    others, known = without_training_images(split, data.root, own_root, trained.spec.classes, record)
    if is_same_folder(data.root, own_root):
        lists_all = isinstance(data, ImageFolder) and not data.labels and not data.split_folders()
        if lists_all and (gone := len(record) - int(known.sum())):
            log.warning(
                "%s of the images that the network was trained or validated on are no longer in %s",
                f"{gone:,}",
                data.root,
            )
    elif (found := folder_of_training_files(split.images.paths, data.root, record)) is not None:
        folder, named = found
        if alike := int((named & ~known)[split.indices].sum()):
            log.warning(
                "%s of the %s test images have names of images that the network was trained or validated on: if %s is "
                "the run's own folder, test with root=%s instead of data=%s",
                f"{alike:,}", f"{len(split):,}", folder, folder, data.name,
            )  # fmt: skip
    return others, len(split) - len(others)


# classes


def with_labels_of_network(
    split: Split, data: ImageDataModule, known: list[str], unknown_classes: UnknownClasses, checkpoint: Path
) -> tuple[Split, int]:
    """Give the test images the labels of the network's classes.

    Args:
        split: the test images, with the labels of the data set.
        data: the data set.
        known: the names of the network's classes.
        unknown_classes: what to do about images of other classes: see conf/evaluate.yaml.
        checkpoint: the file of the network, for messages.

    Returns:
        The images, and how many of other classes were left out.

    Raises:
        UserError: the network does not know a class that has test images, or none that has, or has several of its name.
    """
    if unknown_classes == "by_position":
        if len(data.classes) != len(known):
            raise UserError(
                f"unknown_classes=by_position needs as many classes: {checkpoint} knows {len(known)} and "
                f"data={data.name} has {len(data.classes)}"
            )
        return split, 0
    labels = torch.tensor(labels_by_name(data.classes, known))[split.labels]  # -1: the network has no such class
    is_unknown = labels[split.indices] < 0
    count = int(is_unknown.sum())
    if count:
        numbers = split.labels[split.indices[is_unknown]].unique().tolist()
        problem = (
            f"{checkpoint} does not know {first_few([data.classes[number] for number in numbers], LISTED_CLASSES)}"
        )
        if unknown_classes == "refuse" or count == len(split):
            same = len(data.classes) == len(known)
            position = ", by_position takes them in the network's order" if same else ""
            raise UserError(
                f"{problem} of data={data.name}, only {first_few(known, LISTED_CLASSES)}: "
                f"unknown_classes=skip leaves out images of classes that it does not know{position}"
            )
        log.warning("left out %s of classes that the network does not know: %s", counted(count, "image"), problem)
    images = split.images
    if isinstance(images, FolderImages):
        images = FolderImages(images.paths, labels, images.read, images.on_error)
    return Split(images, labels, split.indices[~is_unknown], files=split.files), count


def labels_by_name(classes: Sequence[str], known: Sequence[str]) -> list[int]:
    """Return the label of each of `classes` among the `known` ones, and -1 for one that is not known.

    MNIST calls its classes "0 - zero" to "9 - nine"; other data sets call them "0" to "9", which is the same.

    Raises:
        UserError: several of the `known` classes have the name of one of `classes`, and the two lists differ.

    Example:
        >>> labels_by_name(["dog", "cat", "7"], ["cat", "7 - seven"])
        [-1, 0, 1]
    """
    found = positions_by_name(classes, known)
    if several := [name for name, positions in zip(classes, found, strict=True) if len(positions) > 1]:
        raise UserError(
            f"several classes of the network have the name {first_few(several, LISTED_CLASSES)}: which one is meant is "
            "not known"
        )
    return [positions[0] if positions else -1 for positions in found]


def positions_by_name(classes: Sequence[str], known: Sequence[str]) -> list[list[int]]:
    """Return, for each of `classes`, where its name stands among the `known` ones.

    Where the two are equal, each class is at its own position, even if several have one name.
    """
    if list(classes) == list(known):
        return [[position] for position in range(len(known))]
    whole, short = defaultdict(list), defaultdict(list)
    for position, name in enumerate(known):
        whole[name].append(position)
        short[short_name(name)].append(position)
    return [whole[name] or short[short_name(name)] for name in classes]


def short_name(name: str) -> str:
    return name[0] if re.fullmatch(r"\d - [a-z]+", name) else name
