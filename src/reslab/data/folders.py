"""Class folders: which folders of a data set are its splits, which are its classes, and what they hold."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from reslab.data.asking import ask_each
from reslab.data.images import (
    SUFFIXES,
    ImageFiles,
    first_few,
    is_dead_link,
    is_folder,
    is_hidden,
    list_images,
    report_dead_links,
    report_not_read,
    suffix_of,
)
from reslab.data.paths import Paths
from reslab.data.splits import SplitName
from reslab.errors import UserError
from reslab.text import counted

log = logging.getLogger(__name__)

SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {  # in lower case; folders may have any
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


# splits


def split_named(name: str) -> SplitName | None:
    """Return the split that a name stands for, in any case; None for another name."""
    return SPLIT_OF.get(name.lower())


def find_splits(root: Path) -> dict[SplitName, Path]:
    """Return the folders in `root` that are splits, or nothing if the folders there are classes.

    A folder with the name of a split is one if it holds class folders. If it holds images itself, and folders with
    other names do so too, it is a class.

    Raises:
        UserError: the folders have names of splits and are neither splits nor classes beyond doubt.
    """
    folders = subfolders(root)
    refuse_dead_links(root, [name for name in dead_links(root) if split_named(name)])
    split_of = {name: split for split in SPLIT_NAMES for name in folders if split_named(name) == split}
    if not split_of:
        return {}
    others = [name for name in folders if name not in split_of and holds_images(root / name)]
    splits = [name for name in split_of if holds_class_folders(root / name)]
    if not others:
        return one_folder_per_split(root, split_of, splits)
    if splits:
        kind = "also in" if any(holds_class_folders(root / name) for name in others) else "images in"
        raise UserError(
            f"{root} holds class folders in {first_few(splits)} and {kind} {first_few(others)}: name the splits "
            "train, val and test and remove what is none, or put the folders of all classes into train/"
        )
    log.warning(
        "%s holds images, not class folders, in %s: a class, like %s", root, first_few(list(split_of)), others[0]
    )
    return {}


def one_folder_per_split(
    root: Path, split_of: dict[str, SplitName], with_classes: Sequence[str]
) -> dict[SplitName, Path]:
    """Return the folder of each split. Raise UserError if there are two for one.

    Args:
        root: the folder of the data set.
        split_of: the split of each folder.
        with_classes: those of the folders that hold class folders.
    """
    found: dict[SplitName, Path] = {}
    for name, split in split_of.items():
        if name not in SPLIT_NAMES and not holds_images(root / name):
            continue
        if split in found:
            advice = "" if with_classes else ", or put the folders into train/ if they are classes"
            raise UserError(f"{root} has two folders for one split, {found[split].name} and {name}: remove one{advice}")
        found[split] = root / name
    return found


def report_splits(where: str | Path, named: Mapping[SplitName, str], counts: Mapping[SplitName, int]) -> None:
    """Say in one line of the log what was taken as which split.

    Args:
        where: the folder or the file that has the splits.
        named: what each split is called there.
        counts: how many images each has.
    """
    taken = (
        f"{named[split]} is {split} ({counted(counts[split], 'image')})" for split in SPLIT_NAMES if split in named
    )
    log.info("%s: %s", where, ", ".join(taken))


def holds_images(folder: Path) -> bool:
    return bool(list_images(folder).paths)


def holds_class_folders(folder: Path) -> bool:
    return any(holds_images(folder / name) for name in subfolders(folder))


# classes


def subfolders(folder: Path) -> list[str]:
    """Return the names of the folders in a folder that are not hidden, sorted."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_folder(entry) and not is_hidden(entry.name))


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders in the folder of a split, sorted. Raise UserError for a dead link."""
    refuse_dead_links(folder, dead_links(folder))
    return subfolders(folder)


def dead_links(folder: Path) -> list[str]:
    """Return the names of the links to nothing in a folder that may have led to a folder, sorted."""
    with os.scandir(folder) as entries:
        dead = [entry.name for entry in entries if is_dead_link(entry) and not is_hidden(entry.name)]
    return sorted(name for name in dead if suffix_of(name) not in SUFFIXES)


def refuse_dead_links(folder: Path, names: Sequence[str]) -> None:
    if names:
        raise UserError(
            f"{folder} holds links whose targets are not there: {first_few(names)}: correct them or remove them"
        )


def list_classes(folder: Path, classes: Sequence[str]) -> list[ImageFiles]:
    """Return what each class folder in `folder` holds. A class without a folder has no images."""
    listed = ask_each(list_class, [folder / name for name in classes], at_a_time=1)
    return list(chain.from_iterable(listed))


def list_class(folder: Path) -> ImageFiles:
    if not folder.is_dir():
        return ImageFiles.none()
    found = list_images(folder)
    return found._replace(paths=Paths(found.paths))


def class_images(folder: Path, classes: Sequence[str], found: Sequence[ImageFiles]) -> list[Sequence[str]]:
    """Return the image files of each class folder in `folder`.

    Each file counts once, whatever links lead to it. What could make a number mean something else is reported in the
    log: files that are not read, links to nothing, images outside the class folders.

    Args:
        folder: the folder of a split.
        classes: the names of the class folders.
        found: what they hold: see `list_classes`.

    Raises:
        OSError: a folder cannot be read.
        UserError: a file is in two classes.
    """
    report_not_read(folder, sum((files.not_read for files in found), Counter()))
    report_dead_links(folder, [link for files in found for link in files.dead_links])
    report_images_outside(folder)
    return once_each(folder, classes, found)


def without_images_of(
    other: Path, others: Sequence[ImageFiles], folder: Path, found: Sequence[ImageFiles], paths: list[Sequence[str]]
) -> list[Sequence[str]]:
    """Return the images of a split that are not also in another split, by a symbolic link. The rest is reported.

    Args:
        other: the folder of the other split.
        others: what its class folders hold.
        folder: the folder of the split.
        found: what its class folders hold.
        paths: the images of each class among `found`.

    Raises:
        UserError: all images are also in the other split.
    """
    if not leaves(other, others) and not leaves(folder, found):
        return paths
    taken = {real for files in others for real in files.real_paths()}
    shared = {
        path for files in found for path, real in zip(files.paths, files.real_paths(), strict=True) if real in taken
    }
    left = [[path for path in of_class if path not in shared] for of_class in paths]
    total, count = sum(map(len, paths)), sum(map(len, paths)) - sum(map(len, left))
    if count and count == total:
        raise UserError(
            f"the images in {folder} are those in {other}, by links: give it images of its own or remove {folder}"
        )
    if count:
        names = [os.path.relpath(path, folder) for of_class in paths for path in of_class if path in shared]
        log.warning(
            "left out %s of the images in %s, which are also in %s, by links: %s",
            f"{count:,}", folder, other, first_few(names),
        )  # fmt: skip
    return [*left]


def leaves(folder: Path, found: Sequence[ImageFiles]) -> bool:
    """Return whether links may lead from the folder of a split to images elsewhere."""
    real = os.path.realpath(folder)
    class_places = [files.folders[next(iter(files.folders))] for files in found if files.folders]
    moved = any(os.path.dirname(place) != real for place in class_places)  # noqa: PTH120
    return moved or folder.is_symlink() or any(files.links for files in found)


def report_images_outside(folder: Path) -> None:
    with os.scandir(folder) as entries:
        images = [entry.name for entry in entries if suffix_of(entry.name) in SUFFIXES and not is_hidden(entry.name)]
    images = sorted(name for name in images if not (folder / name).is_dir())
    if images:
        log.warning(
            "left out %d of the images in %s, which are outside its class folders: %s",
            len(images), folder, first_few(images),
        )  # fmt: skip


def report_class_names(folder: Path, classes: Sequence[str], found: Sequence[ImageFiles]) -> None:
    """Warn about names that may stand for something else. The arguments are those of `class_images`."""
    report_repeated_subfolders(folder, classes, found)
    report_similar_names(folder, classes)


def report_similar_names(where: str | Path, classes: Sequence[str]) -> None:
    counts = Counter(name.strip().casefold() for name in classes)
    if similar := [name for name in classes if counts[name.strip().casefold()] > 1]:
        log.warning("%s holds classes whose names differ only in case or spaces: %s", where, first_few(similar))


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


def once_each(folder: Path, classes: Sequence[str], found: Sequence[ImageFiles]) -> list[Sequence[str]]:
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
    return [*kept]
