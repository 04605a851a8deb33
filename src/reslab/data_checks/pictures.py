"""Small pictures of images, and the contact sheet of a class."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from reslab.data.headers import evenly_spaced
from reslab.data.thumbnails import SIDE, picture_of, thumbnail
from reslab.data_checks.facts import LEAST_SIZE
from reslab.data_checks.images import Images, in_processes, progress_bar

COLUMNS, GAP = 8, 4  # of a sheet
ALL_SHEETS, MOST_OF_CLASS, LEAST_OF_CLASS = 2_000, 24, 4  # pictures: of many classes, each gets fewer


class Pictures(Dataset[list[Image.Image | None]]):
    """The pictures of some images.

    Args:
        sources: images in memory or paths of files.
        background: what shows through transparent parts.
    """

    def __init__(self, sources: Sequence[Tensor | str], background: Sequence[int] | None) -> None:
        self.sources, self.background = sources, background

    def __getitem__(self, batch: Sequence[int]) -> list[Image.Image | None]:
        """Return the pictures of a batch; None for a file that cannot be read."""
        found = (picture_of(self.sources[number], self.background, LEAST_SIZE) for number in batch)
        return [None if picture is None else thumbnail(picture.convert("RGB")) for picture in found]


def pictures_of(images: Images, positions: Sequence[int]) -> dict[int, Image.Image]:
    """Return the pictures of the images at some positions, without files that cannot be read."""
    dataset = Pictures([images.source(position) for position in positions], images.background)
    made: list[Image.Image | None] = []
    num_workers = images.data.num_workers if images.are_files else 0
    with progress_bar("making the pictures", len(positions)) as bar:
        for part in in_processes(dataset, len(positions), num_workers):
            made += part
            bar.update(bar.task_ids[0], completed=len(made))
            bar.refresh()
    return {position: picture for position, picture in zip(positions, made, strict=True) if picture is not None}


def chosen_of_classes(images: Images, facts: NDArray[Any]) -> list[list[int]]:
    """Return the positions of the images on the sheet of each class: training images, where there are any."""
    most = max(LEAST_OF_CLASS, min(MOST_OF_CLASS, ALL_SHEETS // len(images.data.classes)))
    order = np.lexsort((images.splits, images.labels))  # by class, and then by split
    order = order[facts["is_readable"][order]]
    bounds = np.searchsorted(images.labels[order], range(len(images.data.classes) + 1))
    chosen = []
    for start, end in pairwise(bounds):
        of_class = order[start:end].tolist()
        training = [position for position in of_class if images.splits[position] == 0]
        chosen.append(list(evenly_spaced(training or of_class, most)))
    return chosen


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return a grid of pictures, with transparent gaps."""
    columns = min(COLUMNS, max(1, len(pictures)))
    rows = -(-len(pictures) // columns)
    cell = SIDE + GAP
    grid = Image.new("RGBA", (columns * cell - GAP, max(1, rows * cell - GAP)))
    for number, picture in enumerate(pictures):
        left, top = number % columns * cell, number // columns * cell
        grid.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
    return grid


def available(pictures: Mapping[int, Image.Image], positions: Sequence[int]) -> list[Image.Image]:
    return [pictures[position] for position in positions if position in pictures]
