"""Which files a run has seen: the record that its checkpoints hold, and what later differs from it."""

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from reslab.data.asking import ask_each
from reslab.data.batches import FolderImages
from reslab.data.headers import MOST_FILES
from reslab.data.images import first_few
from reslab.data.splits import Split, file_keys, hashes, names_within, path_hashes
from reslab.errors import UserError
from reslab.text import counted

log = logging.getLogger(__name__)

RECORD = "file"  # the purpose of the hashes that a run records
FIRST_BYTES = 8192  # of a file: what stands before the pixels, and of all but tiny images some of them


def files_checksum(splits: Sequence[Split], root: Path, classes: Sequence[str]) -> str | None:
    """Return the SHA-256 of files and their labels, which does not depend on how they are divided into splits.

    It covers the names of the classes, the paths within the root and the label of each, and the size and the first 8 KB
    of each file. Of more than `MOST_FILES`, the content of a part counts, which the paths choose.

    Args:
        splits: they consist of files.
        root: the folder of the data set.
        classes: their names.

    Returns:
        None without splits.
    """
    if not splits:
        return None
    paths = [path for split in splits for path in split.paths]
    labels = torch.cat([split.labels[split.indices] for split in splits])
    keys = path_hashes(paths, root, RECORD)
    order = keys.argsort(stable=True)
    digest = hashlib.sha256("\0".join([*classes, ""]).encode(errors="surrogateescape"))
    digest.update(torch.stack([keys, labels])[:, order].numpy().tobytes())
    for parts in ask_each(size_and_beginning, [paths[index] for index in order[:MOST_FILES].tolist()]):
        digest.update(b"".join(parts))
    return digest.hexdigest()


def size_and_beginning(path: str) -> bytes:
    """Return the size of a file and its first bytes; nothing of what is no file or cannot be read."""
    try:
        if not os.path.isfile(path):  # to open a pipe would wait for its other end
            return b""
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # a Path for each of many files takes as long
            return os.fstat(file.fileno()).st_size.to_bytes(8, "little") + file.read(FIRST_BYTES)
    except OSError:
        return b""


def are_training_files(paths: Sequence[str | Path], root: Path, training_files: Tensor) -> Tensor:
    """Return, bool (N,), which of the files below `root` a run was trained or validated on.

    Args:
        paths: files below `root`.
        root: the folder of the data set, where it is now.
        training_files: the record of the run: see `ImageDataModule.training_files`.
    """
    return torch.isin(path_hashes(paths, root, RECORD), training_files)


def folder_of_training_files(
    paths: Sequence[str | Path], root: Path, training_files: Tensor
) -> tuple[Path, Tensor] | None:
    """Return the folder in which files have the names of those that a run was trained or validated on.

    It is `root` or the nearest folder above it, because a part of a data set may be a data set of its own.

    Args:
        paths, root, training_files: as for `are_training_files`.

    Returns:
        The folder, and bool (N,), which of the files have such names; None if none of them has.
    """
    names, inner = names_within(paths, root), root.resolve()
    for folder in (inner, *inner.parents):
        outer = os.fsencode(inner.relative_to(folder).as_posix()) + b"/" if folder != inner else b""
        known = torch.isin(hashes([outer + name for name in names], RECORD), training_files)
        if known.any():
            return root if folder == inner else folder, known
    return None


def trained_files(files: Tensor, validated: Tensor | None) -> Tensor:
    """Return those of the recorded files of a run that it was trained on, without those that it validated on."""
    return files if validated is None else files[~torch.isin(files, validated)]


def without_training_images(
    split: Split, root: Path, own_root: Path, classes: Sequence[str], training_files: Tensor
) -> tuple[Split, Tensor]:
    """Leave out the test images that a network was trained on, which a warning counts.

    Args:
        split: the test images, on disk.
        root: the folder of their data set.
        own_root: the folder of the data set that the network was trained on, where it is now.
        classes: the names of the network's classes.
        training_files: the record of the run: see `ImageDataModule.training_files`.

    Returns:
        The other images; and bool (N,), which of all images of `split.images` the network was trained on, or on others
        of their group.

    Raises:
        UserError: there are no others.
    """
    assert isinstance(split.images, FolderImages)
    names = [os.fsdecode(name) for name in names_within(split.images.paths, root)]
    here = [f"{root.resolve()}{os.sep}{name}" for name in names]
    places, own = [*here, *map(os.path.realpath, here)], own_root.resolve()
    recorded = are_training_files(places, own, training_files).view(2, -1).any(0)
    inner = without_outer_folders(places, own, classes)
    moved = are_training_files(inner, own, training_files).view(2, -1).any(0)
    known = recorded | moved
    if split.groups:  # of which a split has all images or none
        known |= torch.isin(split.groups.of_images, split.groups.of_images[known])
    count = int(known[split.indices].sum())
    if count == len(split):
        raise UserError(f"the network was trained on all {count:,} test images of {root}: give other images")
    if count:
        log.warning("left out %s that the network was trained or validated on", counted(count, "image"))
    if by_name := int((moved & ~recorded)[split.indices].sum()):
        log.warning(
            "%s of them are in another folder within %s than in the training, and have the same names: test images of "
            "other origin from outside of it", f"{by_name:,}", own_root,
        )  # fmt: skip
    return split.subset((~known[split.indices]).nonzero().flatten()), known


def without_outer_folders(paths: Sequence[str], root: Path, classes: Sequence[str]) -> list[str]:
    """Return each path below `root` without the folders above its class folder, into which it may have been moved.

    Example:
        >>> without_outer_folders(["/pets/train/cat/1.png", "/pets/cat/2.png", "/a/cat/3.png"], Path("/pets"), ["cat"])
        ['/pets/cat/1.png', '/pets/cat/2.png', '/a/cat/3.png']
    """
    prefix, known, found = f"{root}{os.sep}", set(classes), list[str]()
    for path in paths:
        parts = Path(path.removeprefix(prefix)).parts if path.startswith(prefix) else ()
        place = next((place for place, part in enumerate(parts[:-1]) if part in known), 0)
        found.append(str(root.joinpath(*parts[place:])) if place else path)
    return found


def file_changes(splits: Sequence[Split], root: Path, training_files: Tensor | None, test: Split | None = None) -> str:
    """Say how the files of a run differ from its record: see `ImageDataModule.training_files`. Return "" if unknown.

    The record has no names, so only the new files are named.

    Args:
        splits: the training and validation images.
        root: the folder of the data set.
        training_files: the record.
        test: the test images, if they are files, to which some of the recorded ones may belong now.
    """
    keys = [file_keys(split, root, RECORD) for split in splits]
    if training_files is None or not splits or any(each is None for each in keys):
        return ""
    new = list[bytes]()
    for split, each in zip(splits, keys, strict=True):
        if each is not None:
            new += names_within(split.subset((~torch.isin(each, training_files)).nonzero().flatten()).paths, root)
    gone = training_files[~torch.isin(training_files, torch.cat([each for each in keys if each is not None]))]
    tested = file_keys(test, root, RECORD) if test else None
    moved = 0 if tested is None else int(torch.isin(gone, tested).sum())
    missing = len(gone) - moved
    changes = [f"{len(new):,} new ({first_few([os.fsdecode(name) for name in new])})"] if new else []
    changes += [f"{moved:,} moved to the test images"] if moved else []
    return ", ".join([*changes, *([f"{missing:,} missing"] if missing else [])])
