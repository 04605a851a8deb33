"""Images in class folders: a user's own, Imagenette and ImageNet."""

import logging
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets

from reslab.data.augmentation import Augmentation
from reslab.data.base import ImageDataModule
from reslab.data.batches import FolderImages, make_data_loader
from reslab.data.downloads import failed_download
from reslab.data.fitting import Fitting
from reslab.data.folders import (
    SPLIT_NAMES,
    class_folders,
    class_images,
    dead_links,
    find_splits,
    list_classes,
    refuse_dead_links,
    report_class_names,
    report_splits,
    without_images_of,
)
from reslab.data.groups import groups_by_path, numbered
from reslab.data.headers import check_headers
from reslab.data.images import COMMON_SUFFIXES, ImageFiles, first_few, list_images, report_unreadable
from reslab.data.labels import PLAIN_WORDS, LabelledFiles, find_labels, read_labels
from reslab.data.options import ImagenetteSize, OnError, check_data
from reslab.data.paths import Paths
from reslab.data.readers import Reader, ReadRandomCrop, ReadSquare, read_with_randaugment, read_with_trivial_augment
from reslab.data.splits import Groups, Split, SplitName, folder_prefix, names_within, others
from reslab.data.warps import SCALE_ASPECT
from reslab.errors import UserError
from reslab.internals import shut_down_workers
from reslab.machine import is_first_process

log = logging.getLogger(__name__)

# What happens to single images of training as they are read from disk, and so not again to their batch: a crop of the
# file's own pixels is sharper than one of the resized image, and RandAugment keeps the numbers of older runs. All else
# happens to batches, which is faster on a GPU. With data.in_memory=true everything does, because files are read once.
READ_AUGMENTATIONS = ("scale", "scale_aspect", "randaugment", "trivial_augment")


class ClassFolders(ImageDataModule):
    """Images in train/ and, where they exist, val/ and test/, each with a folder per class.

    Without val/, validation images are split from train/.

    Args:
        in_memory: decode every image once, at the size that it is used in, instead of in every epoch.
        on_error: stop at images that cannot be read, or skip them.
        background: RGB values from 0 to 255 that show through transparent parts; None drops the transparency, as runs
            did that do not have this option.
        group: the images that belong together, by a regular expression on the path within the root; None: each by
            itself.
        options: those of every data set.

    Attributes:
        fitting_in_evaluation: how test and validation images become squares; None: as the options say. A test of a
            trained network sets it, because the borders of `fit: pad` are those of the training, also where transparent
            parts are not.
        stored_channels: 3, or 1 in a test of a network that was trained on grey images.
    """

    folders: dict[SplitName, str] = {"train": "train", "val": "val", "test": "test"}
    fitting_in_evaluation: Fitting | None = None
    stored_channels = 3

    def __init__(
        self,
        *,
        in_memory: bool,
        on_error: OnError,
        background: Sequence[int] | None = None,
        group: str | None = None,
        **options: Any,
    ) -> None:
        check_data({"in_memory": in_memory, "on_error": on_error, "background": background, "group": group})
        super().__init__(**options)
        self.group = group
        self.in_memory, self.on_error, self.background = in_memory, on_error, background
        self.found: dict[Path, list[ImageFiles]] = {}  # what the class folders of a split hold, by its folder
        self.listed: dict[Path, tuple[Paths, Tensor]] = {}  # the images that the split uses, and their labels

    @property
    def folder(self) -> Path:
        """The folder that holds train/."""
        return self.root

    def class_names(self, folders: list[str]) -> list[str]:
        """Return the names of the classes, given those of their folders."""
        return folders

    def split_folders(self) -> dict[SplitName, Path]:
        """Return the folder of each split that is there. Raise UserError for one that is a dead link."""
        if self.folder.is_dir():
            refuse_dead_links(self.folder, [name for name in dead_links(self.folder) if name in self.folders.values()])
        folders = {split: self.folder / name for split, name in self.folders.items()}
        return {split: folder for split, folder in folders.items() if folder.is_dir()}

    def read(self, split: SplitName) -> Split | None:
        folders = self.split_folders()
        if "train" not in folders:
            raise FileNotFoundError(self.folder)
        if split not in folders:
            return None
        return self.read_classes(folders[split], split, folders["train"])

    def read_classes(self, folder: Path, split: SplitName, training_folder: Path) -> Split:
        """Find the images of every class folder. The training images define the classes, and so the labels."""
        folders = class_folders(training_folder)
        if not folders or (len(folders) < 2 and split == "train"):  # a test may be of one class
            raise UserError(too_few_classes(training_folder, folders))
        if unknown := set(class_folders(folder)) - set(folders):
            raise UserError(f"{folder} has classes that {training_folder} has not: {', '.join(sorted(unknown))}")
        self.classes = self.class_names(folders)
        if folder not in self.listed:
            found = self.own_images(folder, split, folders)
            if folder == training_folder:  # the classes of the other splits have the same names
                report_class_names(folder, folders, self.found_in(folder, folders))
            labels = torch.arange(len(found)).repeat_interleave(torch.tensor([len(paths) for paths in found]))
            self.listed[folder] = Paths.joined(found), labels
        paths, labels = self.listed[folder]
        empty = others(labels, len(folders)).tolist()
        if empty and split == "train":
            raise UserError(f"{folder / folders[empty[0]]} holds no images ({', '.join(COMMON_SUFFIXES)}, …)")
        if not len(paths):
            raise UserError(f"{folder} holds no images in class folders: fill it or remove it")
        images = FolderImages(paths, labels, self.reader(split), self.on_error)
        return Split(images, labels, groups=self.groups_of(paths))

    def groups_of(self, paths: Sequence[str]) -> Groups | None:
        """Return the groups of some images by their paths; None without data.group."""
        if self.group is None:
            return None
        if re.fullmatch(PLAIN_WORDS, self.group):
            raise UserError(
                f"data.group={self.group} is no column of data.labels: give one, or a regular expression that matches "
                "the name of the group in a path, e.g. 'patient\\d+'"
            )
        return numbered(groups_by_path([os.fsdecode(name) for name in names_within(paths, self.root)], self.group))

    def own_images(self, folder: Path, split: SplitName, classes: Sequence[str]) -> list[Sequence[str]]:
        """Return the images of each class of a split, without those that links make images of an earlier split too."""
        paths = class_images(folder, classes, self.found_in(folder, classes))
        for other in self.earlier_folders(split):
            if other == folder:  # of which the fold is the test set
                continue
            there, here = self.found_in(other, classes), self.found_in(folder, classes)
            paths = without_images_of(other, there, folder, here, paths)
        return paths

    def earlier_folders(self, split: SplitName) -> list[Path]:
        """Return the folders of the splits whose images a split must not hold."""
        before: dict[SplitName, list[SplitName]] = {"train": [], "val": ["train"], "test": ["train", "val"]}
        there = self.split_folders()
        unused = "val" if self.validate_on_test else None
        return [there[name] for name in before[split] if name in there and name != unused]

    def found_in(self, folder: Path, classes: Sequence[str]) -> list[ImageFiles]:
        if folder not in self.found:
            self.found[folder] = list_classes(folder, classes)
        return self.found[folder]

    def to_memory(self, split: Split) -> Split:
        """Return the split with its images decoded into memory, or as it is if `in_memory` is false.

        Of images that stay on disk, a broken one is found now, not when training or the test comes to it.
        """
        if not isinstance(split.images, FolderImages):
            return split
        if not self.in_memory:
            if self.on_error == "stop" and is_first_process():
                check_headers(split.paths)
            return split
        pixels, decoded = decode_all(split.images, split.indices, self.num_workers)
        files = Paths(split.images.paths[index] for index in decoded)
        return Split(pixels, split.labels[decoded], files=files)

    def reader(self, split: SplitName) -> Reader:
        if self.image_size is None:
            raise UserError("data.image_size must be given: the images may come in any size")
        fitting = self.spec_of([], 3, self.image_size).fitting(training=split == "train")
        if split != "train" and self.fitting_in_evaluation:
            fitting = self.fitting_in_evaluation
        if fitting.fit == "pad" and not fitting.fill:
            raise UserError("data.fit=pad adds borders of data.background or else of data.mean: set one of them")
        read: Reader = ReadSquare(fitting, self.stored_channels, self.background)
        augment = self.augment or {}
        if split != "train" or self.in_memory:
            return read
        if augment.get("scale"):
            aspect = augment.get("scale_aspect", SCALE_ASPECT)  # older runs do not have it
            read = ReadRandomCrop(fitting, augment["scale"], aspect, self.background)
        if augment.get("randaugment"):
            read = read_with_randaugment(read, augment["randaugment"])
        if augment.get("trivial_augment"):
            read = read_with_trivial_augment(read)
        return read

    def split_validation(self) -> None:
        super().split_validation()
        val = self.splits["val"]
        if val and isinstance(val.images, FolderImages):  # not read with the augmentation of the training images
            val.images = FolderImages(val.images.paths, val.images.labels, self.reader("val"), self.on_error)

    def augmentation(self) -> torch.nn.Module:
        if not self.augment or self.in_memory:
            return super().augmentation()
        return Augmentation(**{name: value for name, value in self.augment.items() if name not in READ_AUGMENTATIONS})


def too_few_classes(folder: Path, classes: Sequence[str]) -> str:
    """Say that a folder does not hold two class folders, and which folder may be meant."""
    if not classes and list_images(folder).paths:
        return f"{folder} holds images and no class folders: give the folder that holds a folder for each class"
    found = f"only the class folder {classes[0]}" if classes else "no class folders"
    return f"{folder} holds {found}: at least two are needed, one for each class"


def decode_all(images: FolderImages, indices: Tensor, num_workers: int) -> tuple[Tensor, list[int]]:
    """Return the images at these indices, uint8 (N, C, S, S), and the indices, without those that are left out."""
    log.info("decoding %d images into memory", len(indices))
    batches = [[(index, 0) for index in part.tolist()] for part in indices.split(256)]
    pixels, decoded, unreadable = torch.empty(0), list[int](), list[str]()
    loader = make_data_loader(images, batches, num_workers)
    try:
        for batch, batch_indices, batch_unreadable in loader:
            if not decoded and len(batch):
                pixels = torch.empty(len(indices), *batch.shape[1:], dtype=torch.uint8)
            if len(batch):
                pixels[len(decoded) : len(decoded) + len(batch)] = batch
            decoded += batch_indices.tolist()
            unreadable += batch_unreadable
    finally:
        shut_down_workers(loader)
    report_unreadable(unreadable, len(indices), images.on_error)
    return pixels[: len(decoded)], decoded


class ImageFolder(ClassFolders):
    """Your own images, whose splits and classes are folders, or are in a labels file. What is not divided is split.

    The folders of splits may have the other names of `SPLIT_NAMES` too.

    Args:
        test_fraction: how much of every class is for the test, if nothing divides the images.
        labels: the labels file, or one per split: see `read_labels`; None: the folders are the classes.
        options: those of ClassFolders.

    Attributes:
        tests_all: whether all images are test images, if nothing divides them, and whether test images without training
            images are enough. A test of a trained network on images of other origin sets it.
    """

    tests_all = False

    def __init__(self, *, test_fraction: float, labels: str | Sequence[str] | None = None, **options: Any) -> None:
        check_data({"test_fraction": test_fraction, "labels": labels})
        super().__init__(**options)
        self.test_fraction = test_fraction
        self.labels = [labels] if isinstance(labels, str) else list(labels or ())
        self.found_splits: dict[SplitName, Path] | None = None  # not known yet

    def split_folders(self) -> dict[SplitName, Path]:
        """Return the folder of each split; nothing if `root` holds the class folders themselves, or files with labels.

        The first call says in the log which folder was taken as which split, if it has another name.
        """
        if self.found_splits is None:
            self.found_splits = {} if self.labels else find_splits(self.root)
            folders = self.found_splits
            if any(folder.name != split for split, folder in folders.items()):
                classes = class_folders(next(iter(folders.values())))
                counts = {
                    split: sum(len(files.paths) for files in self.found_in(each, classes))
                    for split, each in folders.items()
                }
                report_splits(self.root, {split: f"{each.name}/" for split, each in folders.items()}, counts)
        return self.found_splits

    @cached_property
    def labelled(self) -> LabelledFiles:
        """The images of the labels file."""
        files = [find_labels(name, self.root) for name in self.labels]
        labelled = read_labels(files, self.root, self.group)
        if labelled.splits:
            report_splits(self.labels_name, labelled.split_words, Counter(labelled.splits))
        return labelled

    @property
    def labels_name(self) -> str:
        return " and ".join(self.labels)

    def parts(self) -> Collection[SplitName]:
        """Return the splits that folders or labels give."""
        return set(self.labelled.splits or ()) if self.labels else self.split_folders().keys()

    @property
    def has_test_images(self) -> bool:
        return "test" in self.parts()

    def earlier_folders(self, split: SplitName) -> list[Path]:
        return [] if self.tests_all else super().earlier_folders(split)  # the network was trained on other images

    def read(self, split: SplitName) -> Split | None:
        if not self.root.is_dir():
            root = self.root.absolute()
            problem = f"{root} is a file, not a folder" if root.is_file() else f"there is no folder {root}"
            raise UserError(f"data={self.name}: {problem}: set data.root")
        parts = self.parts()
        if parts and "train" not in parts and not (split == "test" and self.tests_all and "test" in parts):
            where, put = (self.labels_name, "give some images the split train")
            if not self.labels:
                where, put = str(self.root), "put the class folders into train/"
            raise UserError(
                f"{where} has {', '.join(each for each in SPLIT_NAMES if each in parts)} and no train: {put}"
            )
        is_divided = bool(parts) and (self.folds is None or "test" in parts)
        if split in parts and (split != "train" or is_divided):
            return self.read_part(split, split)
        if split == "val" or is_divided:
            return None
        all_images = self.read_part(split, "train" if parts else None)
        if split == "test" and self.tests_all:
            return all_images
        chosen = self.part_of(all_images, split, self.test_fraction)
        return all_images.subset(chosen) if len(chosen) else None

    def read_part(self, split: SplitName, part: SplitName | None) -> Split:
        """Return the images of a part of the data set for a split; None: all images, of a data set without parts."""
        if self.labels:
            return self.read_rows(split, part)
        folders = self.split_folders()
        folder = folders[part] if part else self.root
        return self.read_classes(folder, split, folders.get("train", folder))

    def read_rows(self, split: SplitName, part: SplitName | None) -> Split:
        """Find the images of the rows of a labels file. The training images define the classes, and so the labels."""
        training = "train" if part and "train" in (self.labelled.splits or ()) else part
        self.classes = self.labelled.classes_of(training)
        if split == "train" and len(self.classes) < 2:
            raise UserError(self.too_few_labels())
        if unknown := set(self.labelled.classes_of(part)) - set(self.classes):
            raise UserError(
                f"{self.labels_name} has {part} images of classes without training images: {first_few(sorted(unknown))}"
            )
        rows, number_of = self.labelled.rows_of(part), {name: number for number, name in enumerate(self.classes)}
        labels = torch.tensor([number_of[self.labelled.labels[row]] for row in rows])
        prefix = folder_prefix(self.root)
        paths = Paths(prefix + self.labelled.names[row] for row in rows)
        keys = self.labelled.groups
        groups = numbered([keys[row] for row in rows]) if keys else self.groups_of(paths)
        return Split(FolderImages(paths, labels, self.reader(split), self.on_error), labels, groups=groups)

    def too_few_labels(self) -> str:
        """Say that the labels file has one class, and why if that is a folder."""
        if self.labelled.without_label:
            return (
                f"{self.labelled.without_label}, and the images are in only one class folder, {self.classes[0]}: add a "
                "column label with the name of the class of each image"
            )
        return f"{self.labels_name} has only the class {self.classes[0]}: at least two are needed"


class Imagenette(ClassFolders):
    """Ten classes of ImageNet, which torchvision downloads. Its val/ serves as the test set.

    Args:
        imagenette_size: the shorter side of the images: 160px, 320px, or full for those of ImageNet.
        options: those of ClassFolders.
    """

    folders = {"train": "train", "test": "val"}
    stored = (10, 3, 160)  # the images have any size: that of conf/data/imagenette.yaml
    wordnet_names = {  # by the WordNet id that is the name of the folder
        "n01440764": "tench",
        "n02102040": "English springer",
        "n02979186": "cassette player",
        "n03000684": "chain saw",
        "n03028079": "church",
        "n03394916": "French horn",
        "n03417042": "garbage truck",
        "n03425413": "gas pump",
        "n03445777": "golf ball",
        "n03888257": "parachute",
    }

    def __init__(self, *, imagenette_size: ImagenetteSize, **options: Any) -> None:
        check_data({"imagenette_size": imagenette_size})
        super().__init__(**options)
        self.imagenette_size = imagenette_size

    @property
    def folder(self) -> Path:
        suffix = "" if self.imagenette_size == "full" else f"-{self.imagenette_size.removesuffix('px')}"
        return self.root / f"imagenette2{suffix}"

    def class_names(self, folders: list[str]) -> list[str]:
        return [self.wordnet_names.get(folder, folder) for folder in folders]

    def download(self) -> None:
        """Download into `root` and unpack elsewhere, so that the data set's folder exists only if it is complete."""
        unpacked = self.root / f".{self.folder.name}.partial"
        archive = f"{self.folder.name}.tgz"
        shutil.rmtree(unpacked, ignore_errors=True)
        try:
            unpacked.mkdir()
            (unpacked / archive).symlink_to(self.root.absolute() / archive)  # which is kept for another attempt
            datasets.Imagenette(unpacked, size=self.imagenette_size, download=True)
            (unpacked / self.folder.name).rename(self.folder)
        except Exception as error:  # the network, the disk, the archive
            raise FileNotFoundError(
                f"{self.folder.absolute()}/ not found, and the download failed ({failed_download(error)}): "
                "put it there or set data.root to the folder that holds it"
            ) from error
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


class ImageNet(ClassFolders):
    """The 1,000 classes of ILSVRC 2012 in the usual train/ and val/ class folders. Its val/ serves as the test set."""

    folders = {"train": "train", "test": "val"}
    stored = (1000, 3, 224)  # the images have any size: that of conf/data/imagenet.yaml

    def read(self, split: SplitName) -> Split | None:
        if not (self.root / "train").is_dir():
            raise UserError(
                f"data={self.name}: there is no {self.root.absolute()}/train: ImageNet needs an account at "
                "image-net.org; unpack it into train/<wnid>/ and val/<wnid>/ and set data.root"
            )
        return super().read(split)
