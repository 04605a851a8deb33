"""All images of a data set in one order, with the split and the class of each, and the look at all of them."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from reslab.data.base import ImageDataModule
from reslab.data.batches import FolderImages, ForkingLoader
from reslab.data.splits import SplitName
from reslab.data_checks.facts import Files, Seen, look_at_memory
from reslab.internals import shut_down_workers
from reslab.interruption import leave_to_main_process
from reslab.training.progress import can_show_bar

FILES_AT_ONCE, IMAGES_AT_ONCE = 64, 1024  # of a worker process, and of images in memory
BAR_WIDTH = 20  # columns; the `^C` of a terminal still has room beside the bar, else it would begin another line


class Images:
    """The images of a data set, the training images first.

    Args:
        data: a data set whose splits have been read.

    Attributes:
        names: of the splits, in order; a validation on the test images has no split of its own.
        splits: int64 (N,), the number of each image's split in `names`.
        labels: int64 (N,).
        indices: int64 (N,), the position of each image in the tensor or the list of files of its split.
    """

    def __init__(self, data: ImageDataModule) -> None:
        self.data = data
        test = data.splits.get("test")
        order: tuple[SplitName, ...] = ("train", "val", "test")
        self.of_split = {
            name: split for name in order if (split := data.splits.get(name)) and not (name == "val" and split is test)
        }
        self.names = list(self.of_split)
        self.indices = np.concatenate([split.indices.numpy() for split in self.of_split.values()])
        self.labels = np.concatenate([split.labels[split.indices].numpy() for split in self.of_split.values()])
        counts = [len(split) for split in self.of_split.values()]
        self.splits = np.repeat(np.arange(len(counts)), counts)
        self.background = data.background

    def __len__(self) -> int:
        return len(self.indices)

    def source(self, position: int) -> Tensor | str:
        """Return an image in memory, uint8 (C, H, W), or the path of its file."""
        images = self.of_split[self.names[self.splits[position]]].images
        index = int(self.indices[position])
        return images.paths[index] if isinstance(images, FolderImages) else images[index]

    def name(self, position: int) -> str:
        """Return an image's path within the root, or for an image in memory e.g. `test[7]`."""
        source = self.source(position)
        if isinstance(source, str):
            return os.path.relpath(source, self.data.root).replace(os.sep, "/")
        return f"{self.names[self.splits[position]]}[{self.indices[position]}]"

    @property
    def are_files(self) -> bool:
        return any(isinstance(split.images, FolderImages) for split in self.of_split.values())


def look_at_all(images: Images) -> Seen:
    """Decode every image. A bar shows on a terminal how far it is."""
    seen, done = [], 0
    parts = parts_of_files(images) if images.are_files else parts_of_memory(images)
    with progress_bar("looking at the images", len(images)) as bar:
        for part in parts:
            seen.append(part)
            done += len(part.facts)
            bar.update(bar.task_ids[0], completed=done)
            bar.refresh()
    starts = np.cumsum([0, *(len(part.facts) for part in seen)])
    unreadable = {
        int(start) + place: reason
        for start, part in zip(starts, seen, strict=False)
        for place, reason in part.unreadable.items()
    }
    facts: NDArray[Any] = np.concatenate([part.facts for part in seen])
    return Seen(facts, np.sum([part.levels for part in seen], axis=0), unreadable)


def parts_of_files(images: Images) -> Iterator[Seen]:
    """Look at files in worker processes."""
    paths = [str(images.source(position)) for position in range(len(images))]
    files = Files(paths, images.splits == 0, images.background)
    yield from in_processes(files, len(images), images.data.num_workers)


def in_processes(dataset: Any, count: int, num_workers: int) -> Iterator[Any]:
    """Yield `dataset[batch]` for batches of positions, in order, from worker processes."""
    batches = [list(part) for part in np.split(np.arange(count), range(FILES_AT_ONCE, count, FILES_AT_ONCE))]
    loader = ForkingLoader(
        dataset,
        batch_size=None,  # each element of the sampler is a batch already
        sampler=batches,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,  # those that shut_down_workers can end
        collate_fn=as_it_is,
        worker_init_fn=leave_to_main_process,
        generator=torch.Generator(),
    )
    try:
        yield from loader
    finally:
        shut_down_workers(loader)


def as_it_is(value: Any) -> Any:
    return value  # torch would turn arrays into tensors


def parts_of_memory(images: Images) -> Iterator[Seen]:
    for name, split in images.of_split.items():
        assert isinstance(split.images, Tensor)
        for positions in split.indices.split(IMAGES_AT_ONCE):
            yield look_at_memory(split.images, positions, trains=name == "train")


def progress_bar(what: str, total: int) -> Progress:
    """Return a bar that no other thread draws, since worker processes would inherit its locks."""
    columns = (TextColumn(what), BarColumn(BAR_WIDTH), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, auto_refresh=False, transient=True, disable=not can_show_bar())
    bar.add_task("", total=total)
    return bar
