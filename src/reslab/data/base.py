"""The LightningDataModule that every data set extends."""

import logging
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor

from reslab.data.augmentation import Augmentation
from reslab.data.batches import BatchLoader, BatchOrder, FolderImages, FolderLoader, MemoryLoader
from reslab.data.downloads import download_folder
from reslab.data.groups import Units, names_of_groups, report_division, report_shared_groups, units_of
from reslab.data.options import Fit, Interpolation, check_data, check_folds, check_sizes
from reslab.data.spec import ImageSpec
from reslab.data.splits import (
    SPLIT_WORDS,
    Split,
    SplitName,
    balanced_weights,
    checksum,
    file_keys,
    fold_numbers,
    others,
    pixel_statistics,
    report_missing_classes,
    spread_over_classes,
    stratified_split,
)
from reslab.data.training_files import RECORD, files_checksum, without_training_images
from reslab.errors import UserError

log = logging.getLogger(__name__)


class ImageDataModule(L.LightningDataModule):
    """The base class of every data set.

    A subclass sets `classes` and writes `read`, and `download` if its files can be fetched. It may take options of its
    own: keyword arguments of its constructor, which passes the others on, with their values in its file in conf/data.
    Splits, batches, augmentation and statistics come from this class.

    Args:
        seed: chooses the validation images and the order of the training images.

    Every other argument is the option `data.<argument>`, which conf/data/_data.yaml explains.

    Attributes:
        classes: the names of the classes, in the order of the labels. A subclass sets it in its body, in its
            constructor, or at the latest when it reads the training images.
        stored: number of classes, channels and pixels per side of the images, if these are known without the files.
        splits: "train", "val" and "test" once they have been read; None for one that the data set does not have.

    Raises:
        UserError: an option has a value that it may not take, or `root` is null.

    Example:
        >>> class Stripes(ImageDataModule):
        ...     classes = ["horizontal", "vertical"]
        ...
        ...     def __init__(self, *, num_images: int, **options: Any) -> None:
        ...         super().__init__(**options)
        ...         self.num_images = num_images
        ...
        ...     def read(self, split: SplitName) -> Split | None:
        ...         if split == "val":
        ...             return None  # val_fraction of the training images
        ...         vertical = torch.arange(8) % 2 * torch.full((8, 1), 255)
        ...         labels = torch.arange(self.num_images) % 2
        ...         images = torch.stack([vertical.T, vertical])[labels]
        ...         return Split(images[:, None].byte(), labels)  # (N, 1, 8, 8)
        >>> data = Stripes(
        ...     name="stripes", root=".", batch_size=10, image_size=None, channels=None, val_fraction=0.1,
        ...     validate_on_test=False, augment=None, balance=False, mean=None, std=None, num_workers=0, seed=1,
        ...     num_images=100,
        ... )
        >>> data.setup("fit")
        >>> len(data.splits["train"]), len(data.splits["val"]), data.spec.mean
        (90, 10, [0.5])
    """

    classes: list[str]
    background: Sequence[int] | None = None  # of transparent images; a subclass that reads image files may set it
    stored: tuple[int, int, int] | None = None

    def __init__(
        self,
        *,
        name: str,
        root: str | Path | None,
        batch_size: int,
        image_size: int | None,
        channels: int | None,
        val_fraction: float,
        validate_on_test: bool,
        augment: dict[str, Any] | None,
        balance: bool,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        num_workers: int,
        seed: int,
        # The defaults are also for runs that are older than these options.
        repeats: int = 1,
        allow_changes: bool = False,
        eval_size: int | None = None,
        resize: int | None = None,
        interpolation: Interpolation = "bilinear",
        fit: Fit | None = None,
        class_weights: Literal["balanced"] | Sequence[float] | None = None,
        folds: int | None = None,
        fold: int | None = None,
    ) -> None:
        check_data(locals())  # at this point they are the arguments
        check_sizes(locals())
        check_folds(folds, fold)
        super().__init__()
        if root is None:
            raise UserError(f"data={name} needs data.root, the folder of its images")
        self.name, self.root, self.batch_size, self.seed = name, Path(root), batch_size, seed
        self.image_size, self.channels, self.mean, self.std = image_size, channels, mean, std
        self.eval_size, self.resize, self.interpolation, self.fit = eval_size, resize, interpolation, fit
        self.val_fraction, self.validate_on_test = val_fraction, validate_on_test
        self.augment, self.balance, self.class_weights = augment, balance, class_weights
        self.repeats = repeats
        if repeats > batch_size:
            raise UserError(
                f"data.repeats={repeats} is more than data.batch_size={batch_size}: a batch would hold one image"
            )
        self.num_workers, self.allow_changes = num_workers, allow_changes
        self.folds, self.fold = folds, fold
        self.splits: dict[SplitName, Split | None] = {}
        self.file_splits: list[Split] = []
        self.test_files: Split | None = None  # the test images, if they are files, with those of `seen_files`
        self.seen_files: Tensor | None = None
        self.group_names: dict[SplitName, set[str]] = {}
        self.folder_loaders = weakref.WeakSet[FolderLoader]()
        # Files that cannot be read, as far as this process has met them.
        self.left_out: dict[SplitName, set[str]] = {name: set() for name in SPLIT_WORDS}
        self.sizes: dict[SplitName, int] = {}  # the images of each split, with those that cannot be read
        self.copies = weakref.WeakValueDictionary[int, Tensor]()  # on the GPU, by the id of a tensor of `splits`

    # what a subclass writes

    def read(self, split: SplitName) -> Split | None:
        """Return a split, or None if the data set does not have it.

        It is called once for each split that a command needs. If there is no "val", `val_fraction` of every class of
        "train" becomes one. All images of an in-memory split have one size. It may differ from `self.image_size`:
        batches are resized on the device.

        Raises:
            FileNotFoundError: files are missing in `self.root`; then `download` is called, and `read` once more.
            UserError: the files are there and are wrong.
        """
        raise NotImplementedError

    def download(self) -> None:
        """Fetch the files that `read` did not find. Only one process at a time runs this.

        Without it, the error of `read` is what the user sees.

        Raises:
            FileNotFoundError: the download failed. The message says which files are missing and where.
        """

    def augmentation(self) -> torch.nn.Module:
        """Return the module that augments a batch of training images, uint8 (N, C, H, W), on the training device."""
        return Augmentation(**self.augment) if self.augment else torch.nn.Identity()

    def to_memory(self, split: Split) -> Split:
        """Return a split as it is loaded from: files that are to be held in memory are decoded here, once."""
        return split

    @property
    def has_test_images(self) -> bool:
        """Whether there are test images of its own. If not, `read` takes them from all images by `part_of`."""
        return True

    @property
    def fold_split(self) -> Literal["val", "test"] | None:
        """The split that is the fold of a cross-validation; None without one."""
        if self.folds is None:
            return None
        return "val" if self.has_test_images else "test"

    def part_of(self, images: Split, split: SplitName, test_fraction: float) -> Tensor:
        """Return the positions of the "train" or the "test" images in a data set that has no test images of its own.

        The test images are those of `fold` if it is given, or else `test_fraction` of every class. They are the same
        for every seed of a run.
        """
        if self.folds is not None:
            units, chosen = self._fold_of(images)
        else:
            units = units_of(images, self.root, "test")
            chosen = units.images(stratified_split(units.labels, test_fraction, seed=0, keys=units.keys)[1])
        if images.groups and test_fraction and not len(chosen):
            raise UserError(
                f"data.test_fraction={test_fraction}: no class has images in two groups, so none can be kept for the "
                "test: set data.test_fraction=0"
            )
        if split == "train":
            return others(chosen, len(images))
        report_division("test", 1 / self.folds if self.folds else test_fraction, images, units, chosen)
        return chosen

    # Lightning's hooks

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs, unless they have been read: "fit" and "validate", or "test"."""
        if stage == "test":
            self._read_test()
        elif "train" not in self.splits:
            self.splits["train"] = self._read_or_download("train")
            self._check_augmentation()
            fold_validates = self.fold_split == "val"
            if self.validate_on_test:
                if fold_validates:
                    raise UserError(
                        "data.validate_on_test=true leaves nothing to do for data.fold: leave one of them out"
                    )
                if self._read_test() is None:
                    raise UserError(f"data.validate_on_test=true, but data={self.name} has no test images")
            else:
                self.splits["val"] = self._read_or_download("val")
                if self.folds is not None and self.splits["val"] is not None:
                    raise UserError(
                        f"data.folds={self.folds} divides the training images, and there are validation images too: "
                        "put them into the training images, or leave data.folds out"
                    )
                if self.splits["val"] is None and (self.val_fraction > 0 or fold_validates):
                    self.split_validation()
            seen = [self.splits["train"], self.splits.get("val")]
            self.file_splits = [split for split in seen if split and isinstance(split.images, FolderImages)]
            self._complete("train")
            if self.validate_on_test:
                self.splits["val"], self.sizes["val"] = self.splits["test"], self.sizes["test"]
            else:
                self._complete("val")

    def train_dataloader(self) -> BatchLoader:
        """Return the training batches, shuffled unless trainer.overfit_batches is set."""
        overfit = self.trainer.overfit_batches if self.trainer else 0  # type: ignore[attr-defined]
        return self._loader("train", shuffle=not overfit, limit=overfit)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Return the validation batches, or an empty list if there are no validation images."""
        limit = self.trainer.limit_val_batches if self.trainer else 1.0
        return self._loader("val", shuffle=False, limit=limit) if self.splits["val"] else []

    def test_dataloader(self) -> BatchLoader:
        """Return the test batches, each with the numbers of its images in the list of the split."""
        limit = self.trainer.limit_test_batches if self.trainer else 1.0
        return self._loader("test", shuffle=False, limit=limit, numbered=True)

    def teardown(self, stage: str) -> None:
        """End the worker processes, which the next job of a sweep would otherwise wait for."""
        for loader in self.folder_loaders:
            loader.close()

    # what the network and the training must know

    @property
    def spec(self) -> ImageSpec:
        """What a network must know of the images.

        The statistics are those of the training images, without the images for validation, unless they are given.

        Raises:
            UserError: the statistics cannot be computed, are not one number per stored channel, or a standard deviation
                is 0.
        """
        train = self.splits["train"]
        assert train is not None
        images = train.images
        if self.mean is None or self.std is None:
            if isinstance(images, FolderImages):
                raise UserError("data.mean and data.std must be given for images that stay on disk")
            mean, std = pixel_statistics(images, train.indices)
            if self.std is None and 0.0 in std:
                raise UserError(
                    f"channel {std.index(0.0)} has the same value in all pixels of all training images, so that its "
                    "standard deviation is 0: remove the channel, or set data.std"
                )
            self.mean, self.std = self.mean or mean, self.std or std
        stored, side = (3, 0) if isinstance(images, FolderImages) else (images.shape[1], images.shape[-1])
        if len(self.mean) != stored or len(self.std) != stored:
            raise UserError(f"data.mean and data.std need {stored} values: one per channel of the stored images")
        spec = self.spec_of(self.classes, self.channels or stored, self.image_size or side)
        if not isinstance(images, FolderImages):
            if self.fit is None and images.shape[2] != images.shape[3]:
                spec = replace(spec, fit="squash")
            if not self.file_splits:  # which are resized as they are read
                self._refuse_wrong_resize(spec, images.shape[2:])
        return spec

    def spec_of(self, classes: list[str], channels: int, image_size: int) -> ImageSpec:
        """Return the spec of images of a size, with the options of this data set."""
        background = None if self.background is None else list(self.background)
        mean, std = list(self.mean or ()), list(self.std or ())
        sizes = self.eval_size, self.resize, self.interpolation, self.fit or "crop"
        return ImageSpec(classes, channels, image_size, mean, std, background, *sizes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The number of classes, and the channels and pixels per side that the network takes.

        Files are read only where `stored` does not say it.
        """
        if self.stored is None:
            self.setup("fit")
            spec = self.spec
            return len(spec.classes), spec.channels, spec.image_size
        classes, channels, size = self.stored
        return classes, self.channels or channels, self.image_size or size

    def weights_of_classes(self) -> list[float] | None:
        """Return by how much the training images of each class count in the loss; None: all alike.

        Raises:
            UserError: there is not one weight per class, or a class has no training image to balance it by.
        """
        train, weights, classes = self.splits["train"], self.class_weights, len(self.classes)
        assert train is not None
        if weights is None:
            return None
        if weights == "balanced":
            return balanced_weights(train.labels[train.indices], self.classes)
        if len(weights) != classes:
            raise UserError(f"data.class_weights has {len(weights)} values, and data={self.name} {classes} classes")
        return [float(weight) for weight in weights]

    @property
    def batches_per_epoch(self) -> int:
        """The number of complete batches of training images. Raise UserError if there is none."""
        images = len(self.splits["train"] or ())
        if images < self.batch_size:
            batch = f"data.batch_size={self.batch_size}"
            raise UserError(f"{batch} is more than the {images} training images: set data.batch_size={images} or less")
        return images // self.batch_size

    def checksum(self) -> str:
        """Return the SHA-256 of the training and validation images and labels.

        Of images that stay on disk, it covers only the paths of the files within the root: see `files_checksum`.
        """
        return checksum([split for split in (self.splits["train"], self.splits["val"]) if split], self.root)

    def files_checksum(self) -> str | None:
        """Return the SHA-256 of the training and validation files, the same for every division into the two.

        It covers paths, labels and what the files hold: see `training_files.files_checksum`. None stands for data sets
        that do not have a file for each image.
        """
        return files_checksum(self.file_splits, self.root, self.classes)

    def training_files(self) -> Tensor | None:
        """Return a record of the files that the run trains or validates on, int64 (N,), sorted.

        Each number is a hash of a file's path within the root. Where the test images are a part of the same files, a
        later command finds with it which of them the run has seen: see `without_training_images`. None stands for data
        sets that are not read from a file per image, whose test images are a fixed set of their own.
        """
        hashes = [file_keys(split, self.root, RECORD) for split in self.file_splits]
        known = [each for each in hashes if each is not None]
        return torch.cat(known).sort().values if known else None

    def validation_files(self) -> Tensor | None:
        """Return those of `training_files` that the run validates on; None if these are no files of their own."""
        known = file_keys(self.file_splits[1], self.root, RECORD) if len(self.file_splits) > 1 else None
        return None if known is None else known.sort().values

    # parts

    def _read_test(self) -> Split | None:
        if "test" not in self.splits:
            self.splits["test"] = self._read_or_download("test")
            self._complete("test")
        return self.splits["test"]

    def _complete(self, name: SplitName) -> None:
        """Decode a split that has been read and divided, and report the classes of which it has no image."""
        split = self.splits[name]
        if name == "test" and split is not None and isinstance(split.images, FolderImages):
            self.test_files = split
            if self.seen_files is not None:
                split, _ = without_training_images(split, self.root, self.root, self.classes, self.seen_files)
        if split is not None:
            self.group_names[name] = names_of_groups(split)
            for other in self.group_names.keys() - {name}:
                report_shared_groups(other, name, self.group_names[other] & self.group_names[name])
            self.sizes[name] = len(split)
            self.splits[name] = split = self.to_memory(split)
            if isinstance(split.images, Tensor) and split.images.dtype != torch.uint8:
                kind = str(split.images.dtype).removeprefix("torch.")
                raise UserError(f"data={self.name}: read must return uint8 images, from 0 to 255, not {kind}")
            highest = int(split.labels.max()) if len(split.labels) else 0
            if highest >= len(self.classes):
                raise UserError(
                    f"data={self.name} has an image with the label {highest} and {len(self.classes)} classes"
                )
            report_missing_classes(name, split, self.classes)

    def _read_or_download(self, name: SplitName) -> Split | None:
        try:
            try:
                return self.read(name)
            except FileNotFoundError:
                if self.root.is_file():
                    raise NotADirectoryError(f"data.root={self.root} is a file, not a folder") from None
                with download_folder(self.root, f".{self.name}.lock"):
                    self.download()
                return self.read(name)
        except OSError as error:
            raise UserError(f"data={self.name}: {error}") from error

    def split_validation(self) -> None:
        """Move `val_fraction` of every class from the training images to the validation images.

        Which ones is a function of the seed, and of each image's path within the root or, in memory, of its position.
        If the data set has test images of its own, the validation images are those of `fold`, if it is given.
        """
        train = self.splits["train"]
        assert train is not None
        if self.folds is not None and self.fold_split == "val":
            fraction = 1 / self.folds
            units, chosen = self._fold_of(train)
        else:
            fraction = self.val_fraction
            units = units_of(train, self.root, "validation", self.seed)
            chosen = units.images(stratified_split(units.labels, fraction, self.seed, units.keys)[1])
        if len(chosen) == 0:
            several = "two training images" if train.groups is None else "training images in two groups"
            raise UserError(
                f"data.val_fraction={self.val_fraction}: no class has {several}, so none can be kept for validation: "
                "set data.val_fraction=0"
            )
        report_division("validation", fraction, train, units, chosen)
        self.splits |= {"train": train.subset(others(chosen, len(train))), "val": train.subset(chosen)}

    def _refuse_wrong_resize(self, spec: ImageSpec, sides: Sequence[int]) -> None:
        """Raise UserError if `resize` is too small for images of these sides, or would have no effect on them."""
        check_sizes(vars(spec))
        size = spec.size_in_evaluation
        if self.resize not in (None, size) and [*sides] == [size, size]:
            raise UserError(
                f"data.resize={self.resize} has no effect: the images of data={self.name} have {size} pixels, and are "
                "evaluated as they are: leave it out, or set another data.eval_size"
            )

    def _fold_of(self, images: Split) -> tuple[Units, Tensor]:
        """Return what is divided into folds, and the positions of the images of `fold`."""
        assert self.folds is not None
        assert self.fold is not None
        units = units_of(images, self.root, "fold")
        numbers = fold_numbers(units.labels, self.folds, units.keys)
        if empty := self.folds - len(numbers.unique()):  # the run of any fold says so
            kind = "images" if units.of_images is None else "groups"
            have = "1 fold has" if empty == 1 else f"{empty} folds have"
            raise UserError(f"data.folds={self.folds}: {have} no {kind}: lower data.folds")
        return units, units.images(torch.eq(numbers, self.fold).nonzero().flatten())

    def _check_augmentation(self) -> None:
        """Raise UserError if a random crop could miss the image, or a rotation would change its shape."""
        augment, images = self.augment or {}, self.splits["train"].images  # type: ignore[union-attr]
        sides = [self.image_size] if isinstance(images, FolderImages) else images.shape[2:]
        crop, size = augment.get("crop", 0), min(each for each in sides if each is not None)
        if crop >= size:
            raise UserError(f"data.augment.crop={crop} must be less than the {size} pixels of an image's side")
        if augment.get("right_angles") and sides[0] != sides[-1]:
            raise UserError(
                f"data.augment.right_angles=true needs square images; these have {sides[0]}x{sides[1]} pixels"
            )

    def _loader(self, name: SplitName, shuffle: bool, limit: float = 1.0, numbered: bool = False) -> BatchLoader:
        """Return the batches of a split, of which Lightning takes `limit`: a number, or a fraction if it is a float."""
        split = self.splits[name]
        assert split is not None
        order = self._order(split, shuffle, in_training=name == "train")
        if not shuffle and (name == "train" or is_limited(limit, len(order))):
            # The images come sorted by class, so that the first batches would hold the first classes alone.
            order.indices = split.indices[spread_over_classes(split.labels[split.indices], self.seed)]
        if not shuffle and name == "train":  # every step of a run has a complete batch
            order.indices = order.indices[: self.batches_per_epoch * self.batch_size]
        if isinstance(split.images, FolderImages):
            loader = FolderLoader(split.images, order, self.num_workers, numbered=numbered, in_training=name == "train")
            loader.left_out = self.left_out[name]
            self.folder_loaders.add(loader)
            return loader
        device = self._resident_device(split.images)
        images, labels = self._held_on(device, split.images), self._held_on(device, split.labels)
        return MemoryLoader(images, labels, order, device, numbered=numbered)

    def _held_on(self, device: torch.device, tensor: Tensor) -> Tensor:
        """Return a tensor on a device. Splits of one array share its copy, which exists as long as a loader has it."""
        held = self.copies.get(id(tensor))
        if held is None or held.device != device:
            held = tensor.to(device)
            if held is not tensor:
                self.copies[id(tensor)] = held
        return held

    def _order(self, split: Split, shuffle: bool, in_training: bool) -> BatchOrder:
        world_size = self.trainer.world_size if self.trainer else 1
        if in_training and self.batch_size % world_size:
            # DDP weighs ranks equally, so unequal shares would give a wrong gradient.
            raise UserError(f"data.batch_size={self.batch_size} cannot be shared equally by {world_size} devices")
        labels = split.labels[split.indices]
        return BatchOrder(
            split.indices,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=world_size,
            sample_weights=(1 / labels.bincount().double())[labels] if shuffle and self.balance else None,
            repeats=self.repeats,
        )

    def _resident_device(self, images: Tensor) -> torch.device:
        """Return where a split is held during training: on the GPU if it takes at most half of the free memory."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if (copy := self.copies.get(id(images))) is not None:
            return copy.device
        if device.type == "cuda" and images.nbytes > free_gpu_memory(device) / 2:
            log.info("the images stay in main memory: %d MB are too many for the GPU", images.nbytes // 2**20)
            return torch.device("cpu")
        return device


def free_gpu_memory(device: torch.device) -> int:
    """Return how many bytes can be allocated, with those that torch keeps of what it has freed."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


def is_limited(limit: float, batches: int) -> bool:
    """Return whether Lightning takes fewer than all batches: `limit` is a number, or a fraction if it is a float."""
    return limit < batches if isinstance(limit, int) else limit < 1.0
