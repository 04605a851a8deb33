"""The small data sets, each held in memory as one uint8 tensor. conf/data/<name>.yaml has their sizes and sources."""

import gzip
import logging
import math
import struct
import zlib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_md5

from reslab.data.base import ImageDataModule
from reslab.data.downloads import failed_download
from reslab.data.options import EmnistSplit, check_data
from reslab.data.splits import Split, SplitName
from reslab.errors import UserError

log = logging.getLogger(__name__)


class Digits(ImageDataModule):
    """scikit-learn's UCI digits. They have no test set, so a fixed fifth of every class serves as one."""

    classes = [str(digit) for digit in range(10)]
    stored = (10, 1, 8)
    test_fraction = 0.2
    has_test_images = False

    def read(self, split: SplitName) -> Split | None:
        if split == "val":
            return None
        # Importing scikit-learn, to call load_digits, would take as long as an epoch of training.
        file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
        rows = np.loadtxt(str(file), delimiter=",")  # (N, 65): the pixels, with levels from 0 to 16, and the label
        images = torch.from_numpy(rows[:, :-1] * (255 / 16)).round().byte().view(-1, 1, 8, 8)
        labels = torch.from_numpy(rows[:, -1]).long()
        chosen = self.part_of(Split(images, labels), split, self.test_fraction)
        return Split(images[chosen], labels[chosen])


class Synthetic(ImageDataModule):
    """Random pixels and balanced labels, for benchmarks and tests.

    Args:
        num_classes: number of classes.
        num_images: number of training images, and of test images.
        options: those of every data set; `image_size` and `channels` are 32 and 3 where they are null.
    """

    def __init__(self, *, num_classes: int, num_images: int, **options: Any) -> None:
        check_data({"num_classes": num_classes, "num_images": num_images})
        super().__init__(**options)
        self.classes, self.num_images = [str(label) for label in range(num_classes)], num_images
        self.stored = (num_classes, self.channels or 3, self.image_size or 32)

    def read(self, split: SplitName) -> Split | None:
        if split == "val":
            return None
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        _, channels, size = self.input_shape
        shape = (self.num_images, channels, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Split(images, torch.arange(self.num_images) % len(self.classes))


class TorchvisionDataModule(ImageDataModule):
    """A data set that torchvision checks, downloads and unpacks."""

    dataset: Any  # torchvision's class
    files: str  # what torchvision looks for, as a message names it

    def open_dataset(self, train: bool, download: bool) -> Any:
        """Construct torchvision's data set of the training or of the test images."""
        return self.dataset(self.root, train=train, download=download)

    def broken_files(self) -> list[Path]:
        """Return those of the files that exist but do not have the right content."""
        raise NotImplementedError

    def images(self, dataset: Any) -> Tensor:
        """Return uint8 (N, C, H, W)."""
        raise NotImplementedError

    def labels(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.targets)

    def read(self, split: SplitName) -> Split | None:
        if split == "val":
            return None
        try:
            dataset = self.open_dataset(split == "train", download=False)
            images, labels = self.images(dataset), self.labels(dataset).long()
            if len(images) != len(labels) or labels.min() < 0 or labels.max() >= len(self.classes):
                raise ValueError("its labels are not those of its images")
        except OSError:
            raise
        except Exception as error:  # torchvision raises many kinds of errors on incomplete files
            raise FileNotFoundError(f"{self.files} in {self.root.absolute()}: {error}") from error
        return Split(images, labels)

    def download(self) -> None:
        """Rename broken files, so that neither torchvision nor a later run takes them for good ones, and download."""
        broken: list[Path] = []
        try:
            broken += self.broken_files()
            for path in broken:
                path.replace(path.with_name(f"{path.name}.broken"))
                log.warning("%s is broken: renamed to %s.broken", path, path.name)
            for train in (True, False):
                self.open_dataset(train, download=True)
        except Exception as error:  # the network, the disk, the checksum, the archive
            names = ", ".join(str(path.relative_to(self.root)) for path in broken)
            raise FileNotFoundError(
                f"{f'{names} broken' if broken else f'{self.files} not found'} in {self.root.absolute()}, "
                f"and the download failed ({failed_download(error)}): "
                "put them there or set data.root to the folder that holds them"
            ) from error


def files_with_wrong_checksum(checksums: dict[Path, str]) -> list[Path]:
    """Return what exists under these names and is no file with the given MD5 checksum."""
    return [path for path, md5 in checksums.items() if path.exists() and not (path.is_file() and check_md5(path, md5))]


class MNIST(TorchvisionDataModule):
    dataset: type[datasets.MNIST] = datasets.MNIST
    stored = (10, 1, 28)

    @property
    def files(self) -> str:  # type: ignore[override]
        name = self.dataset.__name__
        return f"{name}/raw/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        return self.dataset.classes

    def broken_files(self) -> list[Path]:
        # torchvision checks only that they exist.
        raw = self.root / self.dataset.__name__ / "raw"
        archives = [path for path in raw.glob("*-ubyte.gz") if not path.is_file()]  # a pipe would let it wait for ever
        return sorted([*archives, *(path for path in raw.glob("*-ubyte") if not is_complete_idx(path))])

    def images(self, dataset: Any) -> Tensor:
        return dataset.data[:, None]


class KMNIST(MNIST):
    dataset = datasets.KMNIST


class FashionMNIST(MNIST):
    """Fashion-MNIST from torchvision's files, or from the same four files of Debian's package dataset-fashion-mnist."""

    dataset = datasets.FashionMNIST
    debian_folder = Path("/usr/share/datasets/fashion-mnist")

    def read(self, split: SplitName) -> Split | None:
        try:
            return super().read(split)
        except FileNotFoundError:
            if not self.debian_folder.is_dir():
                raise
        prefix = "train" if split == "train" else "t10k"
        images = read_idx(self.debian_folder / f"{prefix}-images-idx3-ubyte.gz")  # (N, 28, 28)
        return Split(images[:, None], read_idx(self.debian_folder / f"{prefix}-labels-idx1-ubyte.gz").long())


def read_idx(path: Path) -> Tensor:
    """Return the content of a gzipped idx file of bytes. Raise UserError if the file is anything else."""
    try:
        content = bytearray(gzip.decompress(path.read_bytes()))
        shape = idx_shape(content)
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape))
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{path} is broken ({error}): install its package again, or set data.root") from error


def idx_shape(content: bytes | bytearray) -> tuple[int, ...]:
    """Return the shape that the head of an idx file states.

    The head is two zeros, the type (8 for bytes), the number of dimensions, and each dimension as 32 bits, big-endian.
    """
    if content[:3] != b"\0\0\x08" or len(content) == 3:
        raise ValueError("not an idx file of bytes")
    return struct.unpack_from(f">{content[3]}I", content, 4)


def is_complete_idx(path: Path) -> bool:
    """Return whether a path is an idx file with as many bytes as its head states."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4 + 4 * 255)
    try:
        shape = idx_shape(head)
    except (struct.error, ValueError):
        return False
    return path.stat().st_size == 4 + 4 * len(shape) + math.prod(shape)


class EMNIST(MNIST):
    """EMNIST, of which conf/data/emnist.yaml lists the variants.

    Args:
        emnist_split: the variant.
        options: those of every data set.
    """

    dataset = datasets.EMNIST

    def __init__(self, *, emnist_split: EmnistSplit, **options: Any) -> None:
        check_data({"emnist_split": emnist_split})
        super().__init__(**options)
        self.emnist_split = emnist_split
        self.stored = (len(self.classes), 1, 28)

    @property
    def files(self) -> str:  # type: ignore[override]
        return f"EMNIST/raw/emnist-{self.emnist_split}-{{train,test}}-{{images-idx3,labels-idx1}}-ubyte"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        names = datasets.EMNIST.classes_split_dict[self.emnist_split]
        return names[1:] if self.emnist_split == "letters" else names  # its labels start at 1; name 0 is a placeholder

    def open_dataset(self, train: bool, download: bool) -> Any:
        return datasets.EMNIST(self.root, self.emnist_split, train=train, download=download)

    def images(self, dataset: Any) -> Tensor:
        return dataset.data[:, None].transpose(2, 3).contiguous()  # the files hold each image transposed

    def labels(self, dataset: Any) -> Tensor:
        return dataset.targets - 1 if self.emnist_split == "letters" else dataset.targets


class CIFAR10(TorchvisionDataModule):
    dataset: type[datasets.CIFAR10] = datasets.CIFAR10
    stored = (10, 3, 32)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    @property
    def files(self) -> str:  # type: ignore[override]
        return f"{self.dataset.base_folder}/ (or {self.dataset.filename})"

    def broken_files(self) -> list[Path]:
        meta = [self.dataset.meta["filename"], self.dataset.meta["md5"]]
        files = [*self.dataset.train_list, *self.dataset.test_list, meta]
        return files_with_wrong_checksum({self.root / self.dataset.base_folder / name: md5 for name, md5 in files})

    def images(self, dataset: Any) -> Tensor:
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()


class CIFAR100(CIFAR10):
    dataset = datasets.CIFAR100
    stored = (100, 3, 32)

    def images(self, dataset: Any) -> Tensor:
        self.classes = dataset.classes
        return super().images(dataset)


class SVHN(TorchvisionDataModule):
    dataset: type[datasets.SVHN | datasets.STL10] = datasets.SVHN
    stored = (10, 3, 32)
    classes = [str(digit) for digit in range(10)]
    files = "train_32x32.mat, test_32x32.mat"

    def open_dataset(self, train: bool, download: bool) -> Any:
        return self.dataset(self.root, split="train" if train else "test", download=download)

    def broken_files(self) -> list[Path]:
        files = (datasets.SVHN.split_list[split] for split in ("train", "test"))
        return files_with_wrong_checksum({self.root / name: md5 for _, name, md5 in files})

    def images(self, dataset: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(dataset.data))

    def labels(self, dataset: Any) -> Tensor:
        return torch.from_numpy(dataset.labels)


class STL10(SVHN):
    """The labelled images of STL-10."""

    dataset = datasets.STL10
    stored = (10, 3, 96)
    classes = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    files = "stl10_binary/ (or stl10_binary.tar.gz)"

    def broken_files(self) -> list[Path]:
        files = [*datasets.STL10.train_list, *datasets.STL10.test_list]
        return files_with_wrong_checksum({self.root / datasets.STL10.base_folder / name: md5 for name, md5 in files})
