"""Splits of a data set into training, validation and test images."""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from reslab.data.batches import FolderImages
from reslab.data.images import first_few
from reslab.errors import UserError

log = logging.getLogger(__name__)

SplitName = Literal["train", "val", "test"]
SPLIT_WORDS: dict[SplitName, str] = {"train": "training", "val": "validation", "test": "test"}  # e.g. training images
GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples, modulo 1, are as evenly distributed as those of any number


class Groups(NamedTuple):
    """Which images belong together, e.g. those of one patient: a split has all of them or none.

    Attributes:
        names: the names of the groups.
        of_images: int64 (N,), the number of the group of each image.
    """

    names: list[str]
    of_images: Tensor


class Split:
    """Labelled images, and which of them belong to the split.

    Args:
        images: uint8 (N, C, H, W) in memory, or files on disk.
        labels: int64 (N,), from 0 to the number of classes - 1.
        indices: int64, the positions of the images that belong to the split; None for all of them.
        groups: the images that belong together; None: each image may be in any split.
        files: the file of each image that was read into memory; None where there are no files, or `images` names them.

    Attributes:
        files: the file of each image, in the order of `images`; None for a data set that does not consist of files.
    """

    def __init__(
        self,
        images: Tensor | FolderImages,
        labels: Tensor,
        indices: Tensor | None = None,
        groups: Groups | None = None,
        files: Sequence[str] | None = None,
    ) -> None:
        self.images, self.labels, self.groups = images, labels, groups
        self.files = images.paths if isinstance(images, FolderImages) else files
        self.indices = torch.arange(len(labels)) if indices is None else indices

    @property
    def paths(self) -> list[str]:
        """The files of its images, which consist of files."""
        assert self.files is not None
        return [self.files[index] for index in self.indices.tolist()]

    def subset(self, positions: Tensor) -> "Split":
        """Return a split of the same images, with the indices at these positions of `indices`."""
        return Split(self.images, self.labels, self.indices[positions], self.groups, self.files)

    def __len__(self) -> int:
        return len(self.indices)


# which images are chosen


def stratified_split(labels: Tensor, fraction: float, seed: int, keys: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose a fraction of every class. The result depends on nothing but the arguments.

    Args:
        labels: int64 (N,).
        fraction: how much of each class to choose: see `chosen_count`.
        seed: a different seed chooses other images; without effect if there are keys.
        keys: int64 (N,): the images of a class with the lowest keys are chosen, so that an image's key decides its
            side. None draws them at random by their positions in the class.

    Returns:
        The positions in `labels` that were not chosen and those that were, each ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for positions in positions_of_classes(labels):
        if keys is None:
            order = torch.randperm(len(positions), generator=generator)
        else:
            order = keys[positions].argsort(stable=True)
        chosen[positions[order[: chosen_count(len(positions), fraction)]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def fold_numbers(labels: Tensor, folds: int, keys: Tensor | None = None) -> Tensor:
    """Divide images into folds that have every class in proportion, the same ones for every seed of a run.

    The images of a class are placed at equal distances by their keys, from a place that differs between classes: with
    the same one, small classes would all be in the first folds. An image that is added moves at most one image of its
    class at each boundary between two folds.

    Args:
        labels: int64 (N,).
        folds: how many there are.
        keys: those of `stratified_split`.

    Returns:
        int64 (N,), from 0 to folds - 1.
    """
    generator = torch.Generator().manual_seed(0)
    numbers = torch.empty(len(labels), dtype=torch.int64)
    for positions in positions_of_classes(labels):
        count = len(positions)
        order = torch.randperm(count, generator=generator) if keys is None else keys[positions].argsort(stable=True)
        start = int(labels[positions[0]]) * GOLDEN_RATIO % 1
        number = ((torch.arange(count) + start) / count * folds).long()
        numbers[positions[order]] = number.clamp_(max=folds - 1)  # the division may round up to 1
    return numbers


def others(chosen: Tensor, count: int) -> Tensor:
    """Return the positions from 0 to count - 1 that were not chosen, ascending."""
    is_left = torch.ones(count, dtype=torch.bool)
    is_left[chosen] = False
    return is_left.nonzero().flatten()


def positions_of_classes(labels: Tensor) -> Iterator[Tensor]:
    """Yield the positions of the images of each class that has any, ascending, in the order of the labels."""
    counts = labels.unique(return_counts=True)[1]
    yield from labels.argsort(stable=True).split(counts.tolist())


def chosen_count(count: int, fraction: float) -> int:
    """Return how many of the `count` images of a class a split takes.

    That is the fraction, rounded to whole images, but at least one image where the fraction is not 0, and never the
    last one: a class of one image is not split.
    """
    return min(max(round(fraction * count), 1), count - 1) if fraction else 0


def spread_over_classes(labels: Tensor, seed: int) -> Tensor:
    """Return an order of images in which every beginning holds each class in proportion, to within one image.

    The images of a class are shuffled and placed at equal distances, from a place that is drawn for each class.

    Args:
        labels: int64 (N,).
        seed: a different seed gives another order.

    Returns:
        int64 (N,), the positions in `labels`.
    """
    generator = torch.Generator().manual_seed(seed)
    places = torch.empty(len(labels), dtype=torch.float64)
    for positions in positions_of_classes(labels):
        steps = torch.randperm(len(positions), generator=generator)
        places[positions] = (steps + torch.rand(1, dtype=torch.float64, generator=generator)) / len(positions)
    return places.argsort(stable=True)


# files


def path_hashes(paths: Sequence[str | Path], root: Path, purpose: str, seed: int = 0) -> Tensor:
    """Return a hash of each path within the root, which is the same wherever the root is.

    Args:
        paths: files below `root`, as they were found there.
        root: the folder of the data set.
        purpose: at most 16 letters; the same paths have other hashes for another purpose.
        seed: and for another seed.

    Returns:
        int64 (N,): BLAKE2b of eight bytes, little-endian, personalised by the purpose, with the seed as its salt.
    """
    return hashes(names_within(paths, root), purpose, seed)


def hashes(names: Sequence[bytes], purpose: str, seed: int = 0) -> Tensor:
    """Return a hash of each name, int64 (N,): see `path_hashes`."""
    blake2b, person, salt = hashlib.blake2b, purpose.encode(), seed.to_bytes(8, "little")
    digests = [blake2b(name, digest_size=8, person=person, salt=salt).digest() for name in names]
    return torch.from_numpy(np.frombuffer(b"".join(digests), dtype="<i8").astype(np.int64))


def names_within(paths: Sequence[str | Path], root: Path) -> list[bytes]:
    """Return each path within the root, with slashes.

    All of them are one text meanwhile, because Path.relative_to would take ten times as long.
    """
    if not paths:
        return []
    prefix = folder_prefix(root)
    text = "\0" + "\0".join(map(str, paths))  # no path contains a zero
    return os.fsencode(text.replace(f"\0{prefix}", "\0").replace(os.sep, "/")[1:]).split(b"\0")


def folder_prefix(root: Path) -> str:
    """Return what the paths of the files below a root begin with."""
    return "" if root == Path() else os.path.join(root, "")  # noqa: PTH118  # a Path drops the slash at the end


def file_keys(split: Split, root: Path, purpose: str, seed: int = 0) -> Tensor | None:
    """Return the hash of the path of each image in a split, int64 (N,); None for images in memory."""
    if not isinstance(split.images, FolderImages):
        return None
    return path_hashes(split.paths, root, purpose, seed)


# content


def report_missing_classes(name: SplitName, split: Split, classes: Sequence[str]) -> None:
    """Warn about classes of which a split has no image: its accuracy says nothing about them."""
    counts = split.labels[split.indices].bincount(minlength=len(classes)).tolist()
    if missing := [each for each, count in zip(classes, counts, strict=True) if count == 0]:
        of = f"{len(missing)} of the {len(classes)} classes"
        log.warning("no %s images of %s: %s", SPLIT_WORDS[name], of, first_few(missing))


def balanced_weights(labels: Tensor, classes: Sequence[str]) -> list[float]:
    """Return weights of classes with which each class counts alike, as scikit-learn computes them.

    Of N images in C classes, each of a class of n images counts N / (C n), so that an image counts 1 on the average.

    Args:
        labels: int64 (N,).
        classes: their names.

    Raises:
        UserError: a class has no image.
    """
    counts = labels.bincount(minlength=len(classes))
    if absent := [name for name, count in zip(classes, counts.tolist(), strict=True) if count == 0]:
        raise UserError(
            f"data.class_weights=balanced needs training images of every class: there is none of {first_few(absent)}; "
            "give a list of weights instead"
        )
    return (len(labels) / (len(classes) * counts.double())).tolist()


def checksum(splits: Sequence[Split], root: Path) -> str:
    """Return the SHA-256 of the images and labels of some splits: see `ImageDataModule.checksum`."""
    digest = hashlib.sha256()
    previous: Tensor | FolderImages | None = None
    for split in splits:
        digest.update(split.indices.numpy().data)
        digest.update(split.labels.numpy().data)
        if split.images is not previous:  # both may be parts of one
            digest.update(content_bytes(split.images, root))
        previous = split.images
    return digest.hexdigest()


def pixel_checksum(split: Split | None) -> str | None:
    """Return the SHA-256 of the list of images that a split numbers; None for images that are known by their files."""
    if split is None or split.files is not None:
        return None
    return hashlib.sha256(content_bytes(split.images, Path())).hexdigest()


def content_bytes(images: Tensor | FolderImages, root: Path) -> bytes | memoryview:
    """Return the bytes that the checksum of a data set covers.

    These are the pixels of images in memory, as a view without a copy. Of images on disk, they are only the paths of
    the files within the root, one per line.
    """
    if isinstance(images, FolderImages):
        return b"\n".join(names_within(images.paths, root))
    return images.contiguous().numpy().data


def pixel_statistics(images: Tensor, indices: Tensor) -> tuple[list[float], list[float]]:
    """Return the exact mean and standard deviation of each channel of some images, scaled to [0, 1].

    Args:
        images: uint8 (N, C, H, W).
        indices: int64, the images that count.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in indices.split(4096):  # a copy of a part at a time
        for channel, pixels in enumerate(images[part].transpose(0, 1)):
            counts[channel] += pixels.flatten().bincount(minlength=256)
    levels = torch.arange(256, dtype=torch.float64) / 255
    frequency = counts.double() / counts.sum(1, keepdim=True)  # (C, 256)
    mean = frequency @ levels
    std = (frequency @ levels.square() - mean.square()).clamp(min=0).sqrt()
    return mean.tolist(), std.tolist()
