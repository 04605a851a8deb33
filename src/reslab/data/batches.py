"""The order of batches, and the two ways to load them: from one tensor in memory, or by worker processes from disk.

An epoch's order is a function of (seed, epoch), and a loader's only state is the epoch and how many of its batches it
has given. A run resumed from that therefore sees exactly the batches that the uninterrupted run would have seen.
"""

import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from reslab.data.images import UnreadableImageError, settle

Batch = tuple[Tensor, Tensor]  # uint8 images (N, C, H, W), int64 labels (N,)


class BatchOrder:
    """A batch sampler: this rank's share of each global batch of `batch_size` indices out of `indices`.

    shuffle: draw a new order from (seed, epoch) and drop the last incomplete batch, so that every step has one shape.
    sample_weights: draw with replacement by these instead (one per index).
    Without shuffling every index comes once, in order, whatever the number of ranks; a rest too small to give each rank
    an image joins the batch before it.
    """

    def __init__(
        self,
        indices: Tensor,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        sample_weights: Tensor | None = None,
    ) -> None:
        self.indices, self.batch_size, self.shuffle, self.seed = indices, batch_size, shuffle, seed
        self.rank, self.world_size, self.sample_weights = rank, world_size, sample_weights
        self.epoch = 0
        self.start = 0  # the first batch that the next iteration gives

    def __len__(self) -> int:
        full, rest = divmod(len(self.indices), self.batch_size)
        return full if self.shuffle else full + (rest >= self.world_size or (full == 0 and rest > 0))

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before each epoch."""
        self.epoch = epoch

    def order(self) -> Tensor:
        if not self.shuffle:
            return self.indices
        generator = torch.Generator().manual_seed(mix(self.seed, self.epoch))
        if self.sample_weights is not None:
            draws = torch.multinomial(self.sample_weights, len(self.indices), replacement=True, generator=generator)
            return self.indices[draws]
        return self.indices[torch.randperm(len(self.indices), generator=generator)]

    def __iter__(self) -> Iterator[Tensor]:
        order = self.order()
        for number in range(self.start, len(self)):
            takes_rest = not self.shuffle and number == len(self) - 1
            batch = order[number * self.batch_size : None if takes_rest else (number + 1) * self.batch_size]
            yield batch[self.rank :: self.world_size]


def mix(*parts: int) -> int:
    """One generator seed from several numbers >= 0, well spread and the same on every machine."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class BatchLoader:
    """What both loaders share: the order, its length, and a state of two numbers that Lightning stores and restores."""

    def __init__(self, order: BatchOrder) -> None:
        self.sampler = order  # Lightning looks for set_epoch under this name
        self.batch_sampler = None  # and reads this one wherever there is the other
        self.given = 0  # batches of this epoch given so far
        self.resume_at: dict[int, int] = {}  # epoch: the first batch of it that a resumed run still has to see

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.given = self.sampler.start = self.resume_at.pop(self.sampler.epoch, 0)
        for batch in self.batches():
            self.given += 1
            yield batch

    def batches(self) -> Iterator[Batch]:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.sampler.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resume_at = {state["epoch"]: state["given"]}


class MemoryLoader(BatchLoader):
    """A batch is one index operation on tensors that may already lie on the training device."""

    def __init__(self, images: Tensor, labels: Tensor, order: BatchOrder, device: torch.device) -> None:
        super().__init__(order)
        self.images, self.labels, self.device = images, labels, device

    def batches(self) -> Iterator[Batch]:
        for indices in self.sampler:
            indices = indices.to(self.device, non_blocking=True)
            yield self.images.index_select(0, indices), self.labels[indices]  # eight times as fast as [] on a CPU


class FolderImages(Dataset[Any]):
    """Image files and their labels. A batch is asked for as [(index, the seed of its random transform), …].

    on_error: what to do about images that cannot be read, "stop" or "skip".
    """

    def __init__(self, paths: list[Path], labels: Tensor, read: Callable[[Path, int], Tensor], on_error: str) -> None:
        self.paths, self.labels, self.read, self.on_error = paths, labels, read, on_error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, keys: list[tuple[int, int]]) -> tuple[Tensor, Tensor, list[str]]:
        """Those that can be read, (N, C, H, W) and (N,), and what is wrong with the others."""
        images, indices, unreadable = [], [], []
        for index, seed in keys:
            try:
                images.append(self.read(self.paths[index], seed))
                indices.append(index)
            except UnreadableImageError as error:
                unreadable.append(str(error))
        return default_collate(images) if images else torch.empty(0), self.labels[indices], unreadable


class FolderKeys:
    """The batches of `order` as lists of (index, seed): the seeds too are a function of (seed, epoch)."""

    def __init__(self, order: BatchOrder) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = self.order
        for number, batch in enumerate(order, start=order.start):
            seed = mix(order.seed, order.epoch, number, order.rank)
            yield [(index, seed + place) for place, index in enumerate(batch.tolist())]


class FolderLoader(BatchLoader):
    """Images decoded by worker processes; neither order nor transforms depend on how many.

    An image that cannot be read is found when its turn comes: a look at every header would cost an ImageNet a minute
    at each start and miss what is cut short (benchmarks/README.md). Left out, it makes its batch smaller by one, so
    the others stay where (seed, epoch) has put them.
    """

    def __init__(self, dataset: FolderImages, order: BatchOrder, num_workers: int) -> None:
        super().__init__(order)
        self.on_error = dataset.on_error
        self.loader = folder_batches(dataset, FolderKeys(order), num_workers)
        self.left_out: set[str] = set()

    def batches(self) -> Iterator[Batch]:
        new, seen = list[str](), 0
        try:
            for images, labels, unreadable in self.loader:
                seen += len(labels) + len(unreadable)
                if self.on_error == "stop" or (self.sampler.shuffle and not len(labels)):  # all steps are counted on
                    settle(unreadable, len(labels) + len(unreadable), self.on_error)
                new += [file for file in unreadable if file not in self.left_out]
                self.left_out.update(unreadable)
                if len(labels):
                    yield images, labels
        finally:  # Lightning does not ask for more than the last batch
            settle(new, seen, "skip")

    def close(self) -> None:
        """End the worker processes: Python's garbage collector would wait five seconds for each."""
        if self.loader._iterator is not None and self.loader.num_workers:
            self.loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        self.loader._iterator = None


def folder_batches(images: FolderImages, keys: Iterable[list[tuple[int, int]]], num_workers: int) -> DataLoader[Any]:
    """images[k] for each k of `keys`, in order."""
    return DataLoader(
        images,
        batch_size=None,  # each key is a batch
        sampler=keys,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_interrupts_to_the_main_process,
    )


def leave_interrupts_to_the_main_process(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the main one finishes its step, for which it needs the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
