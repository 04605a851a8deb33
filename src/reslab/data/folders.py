"""Class folders: which folders of a data set are its splits, which are its classes, and what they hold."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reslab.data.images import (
    SUFFIXES,
    ImageFiles,
    first_few,
    is_hidden,
    list_images,
    report_not_read,
    suffix_of,
)
from reslab.data.splits import SplitName
from reslab.errors import UserError

log = logging.getLogger(__name__)

SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {  # in lower case; folders may have any
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


# splits


def find_splits(root: Path) -> dict[SplitName, Path]:
    """Return the folders in `root` that are splits, or nothing if the folders there are classes.

    A folder with the name of a split is one if it holds class folders. If it holds images itself, and folders with
    other names do so too, it is a class.

    Raises:
        UserError: the folders have names of splits and are neither splits nor classes beyond doubt.
    """
    folders = subfolders(root)
    split_of = {name: split for split, names in SPLIT_NAMES.items() for name in folders if name.lower() in names}
    if not split_of:
        return {}
    others = [name for name in folders if name not in split_of and holds_images(root / name)]
    if not others:
        return one_folder_per_split(root, split_of)
    if splits := [name for name in split_of if holds_class_folders(root / name)]:
        raise UserError(
            f"{root} holds class folders in {first_few(splits)} and images in {first_few(others)}: name the splits "
            "train, val and test and remove what is none, or put the folders of all classes into train/"
        )
    log.warning(
        "%s holds images, not class folders, in %s: a class, like %s", root, first_few(list(split_of)), others[0]
    )
    return {}


def one_folder_per_split(root: Path, split_of: dict[str, SplitName]) -> dict[SplitName, Path]:
    """Return the folder of each split. Raise UserError if there are two for one."""
    found: dict[SplitName, Path] = {}
    for name, split in split_of.items():
        if name not in SPLIT_NAMES and not holds_images(root / name):
            continue
        if split in found:
            raise UserError(f"{root} has two folders for one split, {found[split].name} and {name}: remove one")
        found[split] = root / name
    return found


def holds_images(folder: Path) -> bool:
    return bool(list_images(folder).paths)


def holds_class_folders(folder: Path) -> bool:
    return any(holds_images(folder / name) for name in subfolders(folder))


# classes


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that are not hidden, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def class_images(folder: Path, classes: Sequence[str]) -> list[list[str]]:
    """Return the image files of each class folder in `folder`.

    Each file counts once, whatever links lead to it. What could make a number mean something else is reported in the
    log: files that are not read, images outside the class folders, names that may stand for something else.

    Args:
        folder: the folder of a split.
        classes: the names of the class folders. One that is not there has no images.

    Raises:
        OSError: a folder cannot be read.
        UserError: a file is in two classes.
    """
    absent = ImageFiles([], {}, [], Counter())
    found = [list_images(folder / name) if (folder / name).is_dir() else absent for name in classes]
    report_not_read(folder, sum((files.not_read for files in found), Counter()))
    report_images_outside(folder)
    report_repeated_subfolders(folder, classes, found)
    report_similar_names(folder, classes)
    return once_each(folder, classes, found)


def report_same_folders(folder: Path, training_folder: Path, classes: Sequence[str]) -> None:
    """Warn about class folders of a split that are those of the training images, by a link."""
    if folder == training_folder:
        return
    shared = [name for name in classes if os.path.realpath(folder / name) == os.path.realpath(training_folder / name)]
    if shared:
        log.warning("%s holds the training images themselves, by a link: %s", folder, first_few(shared))


def report_images_outside(folder: Path) -> None:
    with os.scandir(folder) as entries:
        images = [entry.name for entry in entries if suffix_of(entry.name) in SUFFIXES and not is_hidden(entry.name)]
    images = sorted(name for name in images if not (folder / name).is_dir())
    if images:
        log.warning(
            "left out %d of the images in %s, which are outside its class folders: %s",
            len(images), folder, first_few(images),
        )  # fmt: skip


def report_similar_names(folder: Path, classes: Sequence[str]) -> None:
    counts = Counter(name.strip().casefold() for name in classes)
    if similar := [name for name in classes if counts[name.strip().casefold()] > 1]:
        log.warning("%s holds classes whose names differ only in case or spaces: %s", folder, first_few(similar))


def report_repeated_subfolders(folder: Path, classes: Sequence[str], found: Sequence[ImageFiles]) -> None:
    """Warn if all images are in subfolders of the same names in every class: those may be the real classes."""
    if any(len(files.folders) < 2 for files in found):
        return
    inner = [outermost_subfolders(folder / name, files) for name, files in zip(classes, found, strict=True)]
    common = sorted(set.intersection(*inner))
    if len(common) > 1 and not any("" in names for names in inner):
        log.warning(
            "the classes of %s are %s, and each has all its images in subfolders of the same names (%s): if those are "
            "the classes, name the outer folders train, val and test", folder, first_few(classes), first_few(common),
        )  # fmt: skip


def outermost_subfolders(folder: Path, files: ImageFiles) -> set[str]:
    """Return the names of the subfolders of a folder that hold its images; "" stands for the folder itself."""
    parts = (path.removeprefix(f"{folder}{os.sep}").partition(os.sep) for path in files.paths)
    return {name if separator else "" for name, separator, _ in parts}


def once_each(folder: Path, classes: Sequence[str], found: Sequence[ImageFiles]) -> list[list[str]]:
    """Return the paths of each class, without links to files that are there under another name too."""
    if not any(files.links for files in found) and not any((folder / name).is_symlink() for name in classes):
        return [files.paths for files in found]
    kept: list[list[str]] = [[] for _ in classes]
    class_of: dict[str, int] = {}
    for label, files in enumerate(found):
        for path, real in zip(files.paths, files.real_paths(), strict=True):
            if class_of.get(real, label) != label:
                raise UserError(
                    f"{path} is also in the class {classes[class_of[real]]}, by a link: remove one of the two"
                )
            if real not in class_of:
                class_of[real] = label
                kept[label].append(path)
    if repeated := sum(len(files.paths) for files in found) - len(class_of):
        log.warning("left out %d of the links in %s, whose images are there under another name", repeated, folder)
    return kept
