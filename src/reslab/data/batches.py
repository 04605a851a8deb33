"""The order of batches, and the two loaders: from a tensor in memory, or by worker processes from files on disk.

The order of an epoch is a function of (seed, epoch). The only state of a loader is the epoch and the number of batches
that it has yielded, so a resumed run sees exactly the batches that the uninterrupted run would have seen.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from reslab.data.images import UnreadableImageError, report_unreadable
from reslab.internals import has_workers, shut_down_workers
from reslab.interruption import blocked, leave_to_main_process
from reslab.memory import return_freed_memory

Batch = tuple[Tensor, Tensor]  # uint8 images (N, C, H, W), int64 labels (N,)
NumberedBatch = tuple[Tensor, Tensor, Tensor]  # also the images' numbers in their split's list, int64 (N,)
SeededIndex = tuple[int, int]  # an image's index and the seed of its random transform
NO_IMAGES = torch.empty(0, 3, 1, 1, dtype=torch.uint8)  # preprocessing makes it a batch of any size


def derive_seed(*parts: int) -> int:
    """Return one seed, from 0 to 2**63 - 1, for several numbers of at least 0, the same one on every machine.

    Lists of the same length with other numbers below 2**32 give other seeds. Zeros at the end of a list change nothing.
    """
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class BatchOrder:
    """A batch sampler, which yields this rank's share of each global batch as a tensor of indices.

    With `shuffle`, the order of an epoch is drawn from (seed, epoch), and the last incomplete batch is dropped, so that
    all steps have the same shape. Without it, every index comes once and in order, for any number of ranks; a remainder
    too small to give each rank an image joins the batch before it.

    With `repeats`, a shuffled epoch has as many batches as without, of as many images divided by `repeats`: the first
    ones of a new random order, each as often as `repeats` says, in one global batch or in two that follow each other
    (repeated augmentation: Hoffer et al. 2020, arXiv:1901.09335; Berman et al. 2019, arXiv:1902.05509). As in timm and
    torchvision, the copies of an image go to the ranks in turn.

    Args:
        indices: int64 (N,), the indices of one epoch.
        batch_size: the size of the global batch, over all ranks.
        shuffle: draw a new order in every epoch.
        seed: of the order.
        rank: this process's number, from 0.
        world_size: how many processes share each batch.
        sample_weights: float64 (N,); a shuffled epoch draws N indices with replacement, with these weights.
        repeats: how often each image of a shuffled epoch comes.

    Example:
        >>> order = BatchOrder(torch.arange(7), batch_size=3, shuffle=False)
        >>> list(order)
        [tensor([0, 1, 2]), tensor([3, 4, 5]), tensor([6])]
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
        repeats: int = 1,
    ) -> None:
        self.indices, self.batch_size, self.shuffle, self.seed = indices, batch_size, shuffle, seed
        self.rank, self.world_size, self.sample_weights, self.repeats = rank, world_size, sample_weights, repeats
        self.epoch = 0
        self.first_batch = 0  # number of the batch that the next iteration begins with

    def __len__(self) -> int:
        full, remainder = divmod(len(self.indices), self.batch_size)
        return full if self.shuffle else full + (remainder >= self.world_size or (full == 0 and remainder > 0))

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration. Lightning calls this before each epoch."""
        self.epoch = epoch

    def order(self) -> Tensor:
        """Return the indices of the epoch, over all ranks, in their order."""
        if not self.shuffle:
            return self.indices
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        if self.sample_weights is not None:
            draws = torch.multinomial(self.sample_weights, len(self.indices), replacement=True, generator=generator)
        else:
            draws = torch.randperm(len(self.indices), generator=generator)
        return self.indices[draws if self.repeats == 1 else self.repeated(draws)]

    def repeated(self, draws: Tensor) -> Tensor:
        """Return the complete batches of an epoch in which each draw comes `repeats` times.

        The places of a batch go to the ranks in turn, and so do the copies of an image that follow each other. A rank
        takes one from each half of its share in turn, because MixUp and CutMix mix neighbours: copies of an image would
        be mixed with each other.
        """
        numbers = torch.arange(len(self) * self.batch_size)
        place = numbers % self.batch_size
        rank, turn = place % self.world_size, place // self.world_size
        half = (self.batch_size - rank + 2 * self.world_size - 1) // (2 * self.world_size)  # of a share, rounded up
        source = (turn // 2 + turn % 2 * half) * self.world_size + rank
        return draws[(numbers - place + source) // self.repeats]

    def __iter__(self) -> Iterator[Tensor]:
        return self.batches_of(self.order())

    def batches_of(self, order: Tensor) -> Iterator[Tensor]:
        """Yield this rank's batches of an epoch's order as views of it, wherever it is in memory."""
        for number in range(self.first_batch, len(self)):
            takes_remainder = not self.shuffle and number == len(self) - 1
            batch = order[number * self.batch_size : None if takes_remainder else (number + 1) * self.batch_size]
            yield batch[self.rank :: self.world_size]


class BatchLoader:
    """The base class of both loaders. It yields batches of uint8 images (N, C, H, W) and int64 labels (N,).

    Lightning stores its state in a checkpoint. After a resume, the first pass over that epoch yields only its remaining
    batches; other epochs are complete.

    Args:
        order: the batches of each epoch.
        numbered: yield numbered batches, as a test needs them.
    """

    def __init__(self, order: BatchOrder, *, numbered: bool = False) -> None:
        self.numbered = numbered
        self.sampler = order  # Lightning looks for set_epoch under this name
        self.batch_sampler = None  # Lightning reads this attribute of every loader that has a sampler
        self.yielded = 0  # batches of this epoch so far
        self.resume_at: dict[int, int] = {}  # epoch: the batch that a resumed run continues with

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Batch]:
        self.yielded = self.sampler.first_batch = self.resume_at.pop(self.sampler.epoch, 0)
        for batch in self.batches():
            self.yielded += 1
            yield batch if self.numbered else batch[:2]  # type: ignore[misc]  # a numbered one has a third part

    def batches(self) -> Iterator[NumberedBatch]:
        """Yield the batches of `sampler`."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        # Older checkpoints hold the number of yielded batches as "given", so this name is kept.
        return {"epoch": self.sampler.epoch, "given": self.yielded}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.resume_at = {state["epoch"]: state["given"]}


class MemoryLoader(BatchLoader):
    """A loader of tensors in memory, where a batch is one index operation.

    Args:
        images: uint8 (N, C, H, W) on `device`.
        labels: int64 (N,) on `device`.
        order: the batches of each epoch.
        device: may be the device that trains.
        numbered: yield numbered batches.
    """

    def __init__(
        self, images: Tensor, labels: Tensor, order: BatchOrder, device: torch.device, *, numbered: bool = False
    ) -> None:
        super().__init__(order, numbered=numbered)
        self.images, self.labels, self.device = images, labels, device

    def batches(self) -> Iterator[NumberedBatch]:
        order = self.sampler.order().to(self.device)  # once in an epoch, so that no step copies
        for indices in self.sampler.batches_of(order):
            # On a CPU, it takes an eighth of the time of [].
            yield self.images.index_select(0, indices), self.labels.index_select(0, indices), indices


class FolderImages(Dataset[Any]):
    """Image files and their labels. It is indexed with a batch at a time: a list of (index, seed).

    Args:
        paths: the files; of many, as `Paths`, which worker processes share.
        labels: int64 (N,), one per file.
        read: maps a file and the seed of its random transform to uint8 (C, H, W), or raises UnreadableImageError.
        on_error: what a loader does about images that cannot be read, "stop" or "skip".
    """

    def __init__(self, paths: Sequence[str], labels: Tensor, read: Callable[[str, int], Tensor], on_error: str) -> None:
        self.paths, self.labels, self.read, self.on_error = paths, labels, read, on_error

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, batch: list[SeededIndex]) -> tuple[Tensor, Tensor, list[str]]:
        """Return the images that can be read, (N, C, H, W), their indices (N,), and what is wrong with the others."""
        images, indices, unreadable = [], [], []
        for index, seed in batch:
            try:
                images.append(self.read(self.paths[index], seed))
                indices.append(index)
            except UnreadableImageError as error:
                unreadable.append(str(error))
        pixels = default_collate(images) if images else NO_IMAGES
        return pixels, torch.tensor(indices, dtype=torch.int64), unreadable


class SeededBatchOrder:
    """Add to each index of a BatchOrder a seed that depends on (seed, epoch, batch, rank)."""

    def __init__(self, order: BatchOrder) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        order = self.order
        for number, batch in enumerate(order, start=order.first_batch):
            seed = derive_seed(order.seed, order.epoch, number, order.rank)
            yield [(index, seed + place) for place, index in enumerate(batch.tolist())]


class FolderLoader(BatchLoader):
    """A loader of files, decoded by worker processes. Neither order nor transforms depend on how many there are.

    An image that cannot be read is found when its turn comes. To open every file at the start would cost a minute for
    ImageNet and would miss files that are cut short (benchmarks/README.md). With `on_error="skip"` its batch becomes
    smaller by one, and all other images stay where (seed, epoch) has put them.

    Args:
        dataset: the files.
        order: the batches of each epoch.
        num_workers: processes that decode; 0 decodes in this one.
        numbered: yield numbered batches.
        in_training: every batch is a step of the training, whose schedule counts on it.

    Raises:
        UserError: while iterating, at an image that cannot be read, if `dataset.on_error` is "stop", and at a training
            batch without any image that can be read.
    """

    def __init__(
        self,
        dataset: FolderImages,
        order: BatchOrder,
        num_workers: int,
        *,
        numbered: bool = False,
        in_training: bool = False,
    ) -> None:
        super().__init__(order, numbered=numbered)
        self.labels, self.on_error, self.in_training = dataset.labels, dataset.on_error, in_training
        self.loader = make_data_loader(dataset, SeededBatchOrder(order), num_workers)
        self.left_out: set[str] = set()

    def batches(self) -> Iterator[NumberedBatch]:
        new, seen = list[str](), 0
        try:
            for images, indices, unreadable in self.loader:
                seen += len(indices) + len(unreadable)
                if self.on_error == "stop" or (self.in_training and not len(indices)):
                    report_unreadable(unreadable, len(indices) + len(unreadable), self.on_error)
                new += [file for file in unreadable if file not in self.left_out]
                self.left_out.update(unreadable)
                # The other processes wait in every batch for this one, even if it has no image of it.
                if len(indices) or self.sampler.world_size > 1:
                    yield images, self.labels[indices], indices
        finally:  # Lightning does not ask for anything after the last batch, so this runs when the iterator is closed
            report_unreadable(new, seen, "skip")

    def close(self) -> None:
        """End the worker processes now; another iteration starts new ones."""
        shut_down_workers(self.loader)


class ForkingLoader(DataLoader[Any]):
    """A DataLoader for worker processes that are forked from one that trains.

    They leave signals to it from their beginning, and do not keep what the step before has freed.
    """

    def check_worker_number_rationality(self) -> None:
        """Leave the number to the user, whom torch would warn twice. Training says which number may be faster."""

    def __iter__(self) -> Any:
        if self.num_workers and not has_workers(self):
            return_freed_memory()
        with blocked():
            return super().__iter__()


def make_data_loader(images: Dataset[Any], batches: Iterable[list[SeededIndex]], num_workers: int) -> DataLoader[Any]:
    """Return a loader that yields `images[batch]` for each of the batches, in order.

    It draws nothing from torch's global generator.
    """
    return ForkingLoader(
        images,
        batch_size=None,  # each element of the sampler is a batch already
        sampler=batches,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_to_main_process,
        generator=torch.Generator(),  # of the processes' seeds, which nothing uses; None would be the global generator
    )
