"""The LightningDataModule that every data set shares: split, order, loaders, and what the network must know."""

import hashlib
import logging
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from filelock import FileLock
from torch import Tensor

from reslab.data.batches import BatchLoader, BatchOrder, FolderImages, FolderLoader, MemoryLoader
from reslab.data.transforms import Augmentation
from reslab.errors import UserError

log = logging.getLogger(__name__)

SplitName = Literal["train", "val", "test"]


@dataclass
class ImageSpec:
    """What a network must know of its images, and predict and evaluate later read from the checkpoint."""

    classes: list[str]
    channels: int
    image_size: int  # pixels, height = width
    mean: list[float]  # per channel of the stored images, of values in [0, 1]
    std: list[float]


@dataclass
class Split:
    """Labelled images in memory (uint8, (N, C, H, W)) or on disk; `indices` are the ones that belong to the split."""

    images: Tensor | FolderImages
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64

    @classmethod
    def whole(cls, images: Tensor | FolderImages, labels: Tensor) -> "Split":
        return cls(images, labels, torch.arange(len(labels)))

    def take(self, chosen: Tensor) -> "Split":
        return Split(self.images, self.labels, self.indices[chosen])

    def __len__(self) -> int:
        return len(self.indices)


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions of the rest and of a `fraction` of every class, each ascending; a pure function of its arguments."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        count = round(fraction * len(places))
        chosen[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return (~chosen).nonzero().flatten(), chosen.nonzero().flatten()


class ImageDataModule(L.LightningDataModule):
    """A data set is a subclass that sets `classes` and reads its splits.

    batch_size: the global one, divided over the devices.
    image_size, channels: null for the data set's own; otherwise images are resized, grey repeated or RGB reduced.
    val_fraction: of every class of the training images, where the data set brings no validation images.
    validate_on_test: watch the test set during training instead; it is then no longer an unseen one.
    balance: draw the training images so that every class is equally likely.
    mean, std: null to compute them, per channel, from the training images.
    """

    classes: list[str]

    def __init__(
        self,
        *,
        name: str,
        root: str | None,
        batch_size: int,
        image_size: int | None,
        channels: int | None,
        val_fraction: float,
        validate_on_test: bool,
        augment: dict[str, Any] | None,
        balance: bool,
        mean: list[float] | None,
        std: list[float] | None,
        num_workers: int,
        seed: int,
    ) -> None:
        super().__init__()
        if root is None:
            raise UserError(f"data={name} needs data.root, the folder of its images")
        self.name, self.root, self.batch_size, self.seed = name, Path(root), batch_size, seed
        self.image_size, self.channels, self.mean, self.std = image_size, channels, mean, std
        self.val_fraction, self.validate_on_test = val_fraction, validate_on_test
        self.augment, self.balance = augment, balance
        self.num_workers = num_workers
        self.splits: dict[SplitName, Split | None] = {}
        self.folder_loaders = weakref.WeakSet[FolderLoader]()

    def read(self, split: SplitName) -> Split | None:
        """The split's images, or None where the data set does not have it. Raises FileNotFoundError if files lack."""
        raise NotImplementedError

    def download(self) -> None:
        """Fetch what `read` did not find, or raise FileNotFoundError with what lacks and where it was looked for."""
        raise NotImplementedError

    # Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Read what the stage needs, once."""
        if stage == "test":
            self._require("test")
        elif "train" not in self.splits:
            self._require("train")
            if self.validate_on_test:
                if self._require("test") is None:
                    raise UserError(f"data.validate_on_test=true, but data={self.name} has no test images")
                self.splits["val"] = self.splits["test"]
            elif self._require("val") is None and self.val_fraction > 0:
                self.split_validation()

    def train_dataloader(self) -> BatchLoader:
        overfitting = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        return self._loader("train", shuffle=not overfitting)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        return self._loader("val", shuffle=False) if self.splits["val"] else []

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test", shuffle=False)

    def teardown(self, stage: str) -> None:
        for loader in self.folder_loaders:
            loader.close()

    # what the network must know

    @property
    def spec(self) -> ImageSpec:
        images = self.splits["train"].images  # type: ignore[union-attr]
        if self.mean is None or self.std is None:
            if isinstance(images, FolderImages):
                raise UserError("data.mean and data.std must be given for images that stay on disk")
            mean, std = pixel_statistics(images)
            self.mean, self.std = self.mean or mean, self.std or std
        stored = 3 if isinstance(images, FolderImages) else images.shape[1]
        if len(self.mean) != stored or len(self.std) != stored:
            raise UserError(f"data.mean and data.std need {stored} values: one per channel of the stored images")
        size = self.image_size or images.shape[-1]  # type: ignore[union-attr]
        return ImageSpec(self.classes, self.channels or stored, size, list(self.mean), list(self.std))

    @property
    def batches_per_epoch(self) -> int:
        """Whole batches, which is what training takes. Raises UserError where there is none."""
        images = len(self.splits["train"] or ())
        if images < self.batch_size:
            raise UserError(f"data.batch_size={self.batch_size} is more than the {images} training images")
        return images // self.batch_size

    def checksum(self) -> str:
        """SHA-256 of the training and validation images and labels; of images that stay on disk only their names."""
        digest = hashlib.sha256()
        seen: Tensor | FolderImages | None = None
        for split in (self.splits["train"], self.splits["val"]):
            if split is None:
                continue
            digest.update(split.indices.numpy().data)
            digest.update(split.labels.numpy().data)
            if split.images is not seen:  # both may be parts of one
                digest.update(contents(split.images))
            seen = split.images
        return digest.hexdigest()

    def augmentation(self) -> torch.nn.Module:
        return Augmentation(**self.augment) if self.augment else torch.nn.Identity()

    # parts

    def _require(self, name: SplitName) -> Split | None:
        if name not in self.splits:
            self.splits[name] = self._read_or_download(name)
        return self.splits[name]

    def _read_or_download(self, name: SplitName) -> Split | None:
        try:
            try:
                return self.read(name)
            except FileNotFoundError:
                if self.root.is_file():
                    raise NotADirectoryError(f"data.root={self.root} is a file, not a folder") from None
                self.root.mkdir(parents=True, exist_ok=True)
                with FileLock(self.root / f".{self.name}.lock"):  # one downloads, the others wait and find the files
                    self.download()
                return self.read(name)
        except OSError as error:
            raise UserError(f"data={self.name}: {error}") from error

    def split_validation(self) -> None:
        train = self.splits["train"]
        assert train is not None
        rest, chosen = stratified_split(train.labels[train.indices], self.val_fraction, self.seed)
        if len(chosen) == 0:
            raise UserError(f"data.val_fraction={self.val_fraction} takes no image: raise it, or 0 for no validation")
        self.splits |= {"train": train.take(rest), "val": train.take(chosen)}

    def _loader(self, name: SplitName, shuffle: bool) -> BatchLoader:
        split = self.splits[name]
        assert split is not None
        world_size = self.trainer.world_size if self.trainer else 1
        if shuffle and self.batch_size % world_size:  # the mean of unequal shares' gradients is not the batch's
            raise UserError(f"data.batch_size={self.batch_size} cannot be shared equally by {world_size} devices")
        labels = split.labels[split.indices]
        order = BatchOrder(
            split.indices,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=world_size,
            sample_weights=(1 / labels.bincount().double())[labels] if shuffle and self.balance else None,
        )
        if isinstance(split.images, FolderImages):
            loader = FolderLoader(split.images, order, self.num_workers)
            self.folder_loaders.add(loader)
            return loader
        device = self._resident_device(split.images)
        return MemoryLoader(split.images.to(device), split.labels.to(device), order, device)

    def _resident_device(self, images: Tensor) -> torch.device:
        """Where a split lives during training: on the GPU if it takes at most half of the free memory."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if device.type == "cuda" and images.nbytes > torch.cuda.mem_get_info(device)[0] / 2:
            log.info("the images stay in main memory: %d MB are too many for the GPU", images.nbytes // 2**20)
            return torch.device("cpu")
        return device


def contents(images: Tensor | FolderImages) -> Any:
    if isinstance(images, FolderImages):
        return "\n".join(f"{path.parent.name}/{path.name}" for path in images.paths).encode(errors="surrogateescape")
    return images.contiguous().numpy().data


def pixel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Exact per-channel mean and standard deviation of uint8 images (N, C, H, W), scaled to [0, 1]."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([channel.flatten().bincount(minlength=256) for channel in images.transpose(0, 1)]).double()
    frequency = counts / counts.sum(1, keepdim=True)  # (C, 256)
    mean = frequency @ levels
    std = (frequency @ levels.square() - mean.square()).sqrt()
    return mean.tolist(), std.tolist()
