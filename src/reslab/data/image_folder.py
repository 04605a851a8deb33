"""Images in class folders: any user's own, Imagenette, ImageNet."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import download_url, extract_archive
from torchvision.transforms import v2

from reslab.data.base import ImageDataModule, Split, SplitName, stratified_split
from reslab.data.batches import FolderImages, folder_batches, mix
from reslab.data.images import SUFFIXES, center_square, image_paths, read_image, settle
from reslab.data.transforms import Augmentation
from reslab.errors import UserError

log = logging.getLogger(__name__)

Reader = Callable[[Path, int], Tensor]  # (file, seed) -> uint8 (3, S, S)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """What is drawn within is a function of the seed, and nothing without notices."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # unlike torch.manual_seed it leaves the GPUs' generators alone
        yield


class ReadCenter:
    """Decode for evaluation, or once for memory."""

    def __init__(self, size: int, channels: int = 3) -> None:
        self.size, self.channels = size, channels

    def __call__(self, path: Path, seed: int) -> Tensor:
        return center_square(read_image(path, self.channels), self.size)


class ReadRandomCrop:
    """Decode for training: a window of a random area, at least `scale` of the image, resized (Inception's crop)."""

    def __init__(self, size: int, scale: float) -> None:
        self.crop = v2.RandomResizedCrop(size, scale=(scale, 1.0), antialias=True)

    def __call__(self, path: Path, seed: int) -> Tensor:
        with seeded(seed):
            image: Tensor = self.crop(read_image(path, channels=3))
        return image


class ReadRandAugment:
    """What `read` gives, changed twice, each time in a random way of this magnitude (RandAugment, arXiv:1909.13719)."""

    def __init__(self, read: Reader, magnitude: int) -> None:
        if type(magnitude) is not int or not 0 <= magnitude <= 30:
            raise UserError(f"data.augment.randaugment={magnitude} must be a whole number from 0, off, to 30")
        self.read = read
        self.change = v2.RandAugment(2, magnitude, interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, path: Path, seed: int) -> Tensor:
        image = self.read(path, seed)
        with seeded(mix(seed, 1)):  # not what `read` drew
            changed: Tensor = self.change(image)
        return changed


READING = {"scale": "null", "randaugment": "0"}  # augmentations of single images, and how each is turned off


class ClassFolders(ImageDataModule):
    """train/ and, where they exist, val/ and test/, each with a folder per class; without val/ it is split from train/.

    in_memory: decode every image once, at image_size, instead of in every epoch.
    on_error: "stop" at images that cannot be read, or "skip" them.
    """

    folders: dict[SplitName, str] = {"train": "train", "val": "val", "test": "test"}

    def __init__(self, *, in_memory: bool, on_error: str, **options: Any) -> None:
        super().__init__(**options)
        self.in_memory, self.on_error = in_memory, on_error
        options = self.augment or {}
        self.reading = {name: options[name] for name in READING if options.get(name)}
        if in_memory and self.reading:
            off = " ".join(f"data.augment.{name}={READING[name]}" for name in self.reading)
            raise UserError(
                f"data.in_memory=true decodes each image once: set {off}; data.augment.crop is the usual choice then"
            )

    @property
    def folder(self) -> Path:
        return self.root

    def class_names(self, folders: list[str]) -> list[str]:
        return folders

    def read(self, split: SplitName) -> Split | None:
        if not (self.folder / self.folders["train"]).is_dir():
            raise FileNotFoundError(self.folder)
        folder = self.folder / self.folders.get(split, "")
        if split not in self.folders or not folder.is_dir():
            return None
        return self.load(self.read_classes(folder, split, classes_from=self.folder / self.folders["train"]))

    def read_classes(self, folder: Path, split: SplitName, classes_from: Path) -> Split:
        """The images of every class folder; the classes, and so the labels, are those of the training images."""
        folders = subfolders(classes_from)
        if len(folders) < 2:
            raise UserError(f"{classes_from} has {len(folders)} class folders: at least two are needed")
        if strange := set(subfolders(folder)) - set(folders):
            raise UserError(f"{folder} has classes that {classes_from} has not: {', '.join(sorted(strange))}")
        self.classes = self.class_names(folders)
        found = [image_paths(folder / name) if (folder / name).is_dir() else [] for name in folders]
        if split == "train" and [] in found:
            raise UserError(f"{folder / folders[found.index([])]} holds no images ({', '.join(sorted(SUFFIXES))})")
        if not any(found):
            raise UserError(f"{folder} holds no images in class folders: fill it or remove it")
        labels = torch.tensor([label for label, paths in enumerate(found) for _ in paths])
        paths = [path for paths in found for path in paths]
        return Split.whole(FolderImages(paths, labels, self.reader(split), self.on_error), labels)

    def load(self, split: Split) -> Split:
        """The split with its own images decoded into memory, where `in_memory` asks for it."""
        if not self.in_memory or not isinstance(split.images, FolderImages):
            return split
        return Split.whole(*decode_all(split.images, split.indices, self.num_workers))

    def reader(self, split: SplitName) -> Reader:
        if self.image_size is None:
            raise UserError("data.image_size must be given: the images may come in any size")
        read: Reader = ReadCenter(self.image_size)
        if split != "train":
            return read
        if "scale" in self.reading:
            read = ReadRandomCrop(self.image_size, self.reading["scale"])
        if "randaugment" in self.reading:
            read = ReadRandAugment(read, self.reading["randaugment"])
        return read

    def split_validation(self) -> None:
        """A validation image is read as a test image is, whatever the training does to its own."""
        super().split_validation()
        val = self.splits["val"]
        if val and isinstance(val.images, FolderImages):
            val.images = FolderImages(val.images.paths, val.images.labels, self.reader("val"), self.on_error)

    def augmentation(self) -> torch.nn.Module:
        if not self.augment:
            return torch.nn.Identity()
        return Augmentation(**{name: value for name, value in self.augment.items() if name not in READING})


def subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


class ImageFolder(ClassFolders):
    """A user's own images; class folders alone are split into train and test (`test_fraction` of every class)."""

    def __init__(self, *, test_fraction: float, **options: Any) -> None:
        super().__init__(**options)
        self.test_fraction = test_fraction

    def read(self, split: SplitName) -> Split | None:
        if not self.root.is_dir():
            raise UserError(f"data={self.name}: there is no folder {self.root.absolute()}: set data.root")
        if (self.root / "train").is_dir():
            return super().read(split)
        if split == "val":
            return None
        whole = self.read_classes(self.root, split, classes_from=self.root)
        train, test = stratified_split(whole.labels, self.test_fraction, seed=0)
        chosen = train if split == "train" else test
        return self.load(whole.take(chosen)) if len(chosen) else None


def decode_all(images: FolderImages, indices: Tensor, num_workers: int) -> tuple[Tensor, Tensor]:
    """The images of these indices, decoded once, (N, C, S, S), and their labels; without those left out."""
    log.info("decoding %d images into memory", len(indices))
    keys = [[(index, 0) for index in part.tolist()] for part in indices.split(256)]
    pixels, labels, unreadable = torch.empty(0), list[int](), list[str]()
    for batch, batch_labels, batch_unreadable in folder_batches(images, keys, num_workers):
        if not labels and len(batch):
            pixels = torch.empty(len(indices), *batch.shape[1:], dtype=torch.uint8)
        pixels[len(labels) : len(labels) + len(batch)] = batch
        labels += batch_labels.tolist()
        unreadable += batch_unreadable
    settle(unreadable, len(indices), images.on_error)
    return pixels[: len(labels)], torch.tensor(labels)


class Imagenette(ClassFolders):
    """Ten ImageNet classes, downloaded by torchvision; `imagenette_size`, of the shorter side: 160px, 320px or full."""

    folders = {"train": "train", "test": "val"}

    def __init__(self, *, imagenette_size: str, **options: Any) -> None:
        super().__init__(**options)
        self.imagenette_size = imagenette_size

    @property
    def folder(self) -> Path:
        suffix = "" if self.imagenette_size == "full" else f"-{self.imagenette_size.removesuffix('px')}"
        return self.root / f"imagenette2{suffix}"

    def class_names(self, folders: list[str]) -> list[str]:
        return [datasets.Imagenette._WNID_TO_CLASS[folder][0] for folder in folders]

    def download(self) -> None:
        """Unpacked aside, so that whatever carries the folder's name is whole."""
        url, md5 = datasets.Imagenette._ARCHIVES[self.imagenette_size]
        aside = self.root / f".{self.folder.name}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            download_url(url, self.root, md5=md5)
            extract_archive(self.root / Path(url).name, aside)
            (aside / self.folder.name).rename(self.folder)
        except Exception as error:  # the network, the disk, the archive
            raise FileNotFoundError(
                f"{self.folder.absolute()}/ not found, and the download failed ({error}): "
                "put it there or set data.root to the folder that holds it"
            ) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


class ImageNet(ClassFolders):
    """The 1,000 classes of ILSVRC 2012 in the usual train/ and val/ class folders; its val/ serves as the test set."""

    folders = {"train": "train", "test": "val"}

    def read(self, split: SplitName) -> Split | None:
        if not (self.root / "train").is_dir():
            raise UserError(
                f"data={self.name}: there is no {self.root.absolute()}/train: ImageNet needs an account at "
                "image-net.org; unpack it into train/<wnid>/ and val/<wnid>/ and set data.root"
            )
        return super().read(split)
