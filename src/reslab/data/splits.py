"""Splits of a data set into training, validation and test images."""

from typing import Literal

import torch
from torch import Tensor

from reslab.data.batches import FolderImages

SplitName = Literal["train", "val", "test"]


class Split:
    """Labelled images, and which of them belong to the split.

    Args:
        images: uint8 (N, C, H, W) in memory, or files on disk.
        labels: int64 (N,), from 0 to the number of classes - 1.
        indices: int64, the positions of the images that belong to the split; None for all of them.
    """

    def __init__(self, images: Tensor | FolderImages, labels: Tensor, indices: Tensor | None = None) -> None:
        self.images, self.labels = images, labels
        self.indices = torch.arange(len(labels)) if indices is None else indices

    def subset(self, positions: Tensor) -> "Split":
        """Return a split of the same images, with the indices at these positions of `indices`."""
        return Split(self.images, self.labels, self.indices[positions])

    def __len__(self) -> int:
        return len(self.indices)


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Choose a fraction of every class at random. The result depends on nothing but the arguments.

    Args:
        labels: int64 (N,).
        fraction: how much of each class to choose, rounded to whole images.
        seed: a different seed chooses other images.

    Returns:
        The positions in `labels` that were not chosen and those that were, each ascending.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        positions = (labels == label).nonzero().flatten()
        count = round(fraction * len(positions))
        chosen[positions[torch.randperm(len(positions), generator=generator)[:count]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


def test_split(labels: Tensor, fraction: float, split: SplitName) -> Tensor:
    """Return the positions of the "train" or the "test" images in a data set that has no test images of its own.

    A fraction of every class is for the test, the same one for every seed of a run.
    """
    training, test = stratified_split(labels, fraction, seed=0)
    return training if split == "train" else test


def content_bytes(images: Tensor | FolderImages) -> bytes | memoryview:
    """Return the bytes that the checksum of a data set covers.

    These are the pixels of images in memory, as a view without a copy. Of images on disk, they are only the names of
    the files and of their folders, one per line.
    """
    if isinstance(images, FolderImages):
        return "\n".join(f"{path.parent.name}/{path.name}" for path in images.paths).encode(errors="surrogateescape")
    return images.contiguous().numpy().data


def pixel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return the exact mean and standard deviation of each channel of uint8 images (N, C, H, W), scaled to [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.transpose(0, 1)]).double()
    frequency = counts / counts.sum(1, keepdim=True)  # (C, 256)
    mean = frequency @ levels
    std = (frequency @ levels.square() - mean.square()).sqrt()
    return mean.tolist(), std.tolist()
