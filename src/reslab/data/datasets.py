"""The small data sets, each held in memory as one uint8 tensor. conf/data/<name>.yaml tells their sizes and sources."""

import gzip
import logging
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_md5

from reslab.data.base import ImageDataModule, Split, SplitName, stratified_split
from reslab.errors import UserError

log = logging.getLogger(__name__)


class Digits(ImageDataModule):
    """scikit-learn's UCI digits. It has no test set of its own: a fixed fifth of every class serves as one."""

    classes = [str(digit) for digit in range(10)]
    test_fraction = 0.2

    def read(self, split: SplitName) -> Split | None:
        from sklearn.datasets import load_digits

        if split == "val":
            return None
        digits = load_digits()
        images = torch.from_numpy(digits.images * (255 / 16)).round().byte()[:, None]  # levels 0 to 16; (N, 1, 8, 8)
        labels = torch.from_numpy(digits.target)
        train, test = stratified_split(labels, self.test_fraction, seed=0)
        chosen = train if split == "train" else test
        return Split.whole(images[chosen], labels[chosen])


class Synthetic(ImageDataModule):
    """Random pixels and labels, for benchmarks and tests."""

    def __init__(self, *, num_classes: int, num_images: int, **options: Any) -> None:
        super().__init__(**options)
        self.classes, self.num_images = [str(label) for label in range(num_classes)], num_images

    def read(self, split: SplitName) -> Split | None:
        if split == "val":
            return None
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        shape = (self.num_images, self.channels or 3, self.image_size or 32, self.image_size or 32)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        return Split.whole(images, torch.arange(self.num_images) % len(self.classes))


class TorchvisionDataModule(ImageDataModule):
    """torchvision checks, downloads and unpacks; `open` constructs its data set, `files` names what it looks for."""

    files: str

    def open(self, train: bool, download: bool) -> Any:
        raise NotImplementedError

    def broken(self) -> list[Path]:
        """Of the files that are there, those that are not what they should be."""
        raise NotImplementedError

    def images(self, dataset: Any) -> Tensor:
        """uint8 (N, C, H, W)"""
        raise NotImplementedError

    def labels(self, dataset: Any) -> Tensor:
        return torch.as_tensor(dataset.targets)

    def read(self, split: SplitName) -> Split | None:
        if split == "val":
            return None
        try:
            dataset = self.open(split == "train", download=False)
            images, labels = self.images(dataset), self.labels(dataset).long()
            if len(images) != len(labels) or labels.min() < 0 or labels.max() >= len(self.classes):
                raise ValueError("its labels are not those of its images")
        except OSError:
            raise
        except Exception as error:  # torchvision fails in many ways on what is not whole
            raise FileNotFoundError(f"{self.files} in {self.root.absolute()}: {error}") from error
        return Split.whole(images, labels)

    def download(self) -> None:
        """What is broken is set aside, so that it is not taken for whole, neither by torchvision nor the next time."""
        broken: list[Path] = []
        try:
            broken += self.broken()
            for path in broken:
                path.replace(path.with_name(f"{path.name}.broken"))
                log.warning("%s is broken: set aside as %s.broken", path, path.name)
            for train in (True, False):
                self.open(train, download=True)
        except Exception as error:  # the network, the disk, the checksum, the archive
            names = ", ".join(str(path.relative_to(self.root)) for path in broken)
            raise FileNotFoundError(
                f"{f'{names} broken' if broken else f'{self.files} not found'} in {self.root.absolute()}, "
                f"and the download failed ({error}): "
                "put them there or set data.root to the folder that holds them"
            ) from error


def unlike(checksums: dict[Path, str]) -> list[Path]:
    """The files that are there with another MD5 checksum."""
    return [path for path, md5 in checksums.items() if path.is_file() and not check_md5(path, md5)]


class MNIST(TorchvisionDataModule):
    dataset: type[datasets.MNIST] = datasets.MNIST

    @property
    def files(self) -> str:  # type: ignore[override]
        name = self.dataset.__name__
        return f"{name}/raw/{{train,t10k}}-{{images-idx3,labels-idx1}}-ubyte"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        return self.dataset.classes

    def open(self, train: bool, download: bool) -> Any:
        return self.dataset(self.root, train=train, download=download)

    def broken(self) -> list[Path]:
        """torchvision looks only whether they are there."""
        raw = self.root / self.dataset.__name__ / "raw"
        return [path for path in sorted(raw.glob("*-ubyte")) if not is_whole(path)]

    def images(self, dataset: Any) -> Tensor:
        return dataset.data[:, None]


class KMNIST(MNIST):
    dataset = datasets.KMNIST


class FashionMNIST(MNIST):
    """Reads torchvision's files, or else the same four files of Debian's package dataset-fashion-mnist."""

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
        return Split.whole(images[:, None], read_idx(self.debian_folder / f"{prefix}-labels-idx1-ubyte.gz").long())


def read_idx(path: Path) -> Tensor:
    """A gzipped idx file of bytes. Raises UserError for what is none."""
    try:
        content = bytearray(gzip.decompress(path.read_bytes()))
        shape = idx_shape(content)
        return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape))
    except (gzip.BadGzipFile, EOFError, zlib.error, struct.error, ValueError) as error:
        raise UserError(f"{path} is broken ({error}): install its package again, or set data.root") from error


def idx_shape(content: bytes | bytearray) -> tuple[int, ...]:
    """From the head of an idx file: two zeros, the type (8: bytes), the number of dimensions, each as 32 bits."""
    if content[:3] != b"\0\0\x08" or len(content) == 3:
        raise ValueError("not an idx file of bytes")
    return struct.unpack_from(f">{content[3]}I", content, 4)


def is_whole(path: Path) -> bool:
    """Whether an idx file holds as many bytes as its head says."""
    with path.open("rb") as file:
        head = file.read(4 + 4 * 255)
    try:
        shape = idx_shape(head)
    except (struct.error, ValueError):
        return False
    return path.stat().st_size == 4 + 4 * len(shape) + math.prod(shape)


class EMNIST(MNIST):
    """`emnist_split`: balanced (47 classes), byclass (62), bymerge (47), letters (26), digits or mnist (10)."""

    dataset = datasets.EMNIST

    def __init__(self, *, emnist_split: str, **options: Any) -> None:
        super().__init__(**options)
        self.emnist_split = emnist_split

    @property
    def files(self) -> str:  # type: ignore[override]
        return f"EMNIST/raw/emnist-{self.emnist_split}-{{train,test}}-{{images-idx3,labels-idx1}}-ubyte"

    @property
    def classes(self) -> list[str]:  # type: ignore[override]
        names = datasets.EMNIST.classes_split_dict[self.emnist_split]
        return names[1:] if self.emnist_split == "letters" else names  # its labels start at 1, with a placeholder at 0

    def open(self, train: bool, download: bool) -> Any:
        return datasets.EMNIST(self.root, self.emnist_split, train=train, download=download)

    def images(self, dataset: Any) -> Tensor:
        return dataset.data[:, None].transpose(2, 3).contiguous()  # the files hold every image transposed

    def labels(self, dataset: Any) -> Tensor:
        return dataset.targets - 1 if self.emnist_split == "letters" else dataset.targets


class CIFAR10(TorchvisionDataModule):
    dataset: type[datasets.CIFAR10] = datasets.CIFAR10
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    @property
    def files(self) -> str:  # type: ignore[override]
        return f"{self.dataset.base_folder}/ (or {self.dataset.filename})"

    def open(self, train: bool, download: bool) -> Any:
        return self.dataset(self.root, train=train, download=download)

    def broken(self) -> list[Path]:
        meta = [self.dataset.meta["filename"], self.dataset.meta["md5"]]
        files = [*self.dataset.train_list, *self.dataset.test_list, meta]
        return unlike({self.root / self.dataset.base_folder / name: md5 for name, md5 in files})

    def images(self, dataset: Any) -> Tensor:
        return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()


class CIFAR100(CIFAR10):
    dataset = datasets.CIFAR100

    def images(self, dataset: Any) -> Tensor:
        self.classes = dataset.classes
        return super().images(dataset)


class SVHN(TorchvisionDataModule):
    classes = [str(digit) for digit in range(10)]
    files = "train_32x32.mat, test_32x32.mat"

    def open(self, train: bool, download: bool) -> Any:
        return datasets.SVHN(self.root, split="train" if train else "test", download=download)

    def broken(self) -> list[Path]:
        files = (datasets.SVHN.split_list[split] for split in ("train", "test"))
        return unlike({self.root / name: md5 for _, name, md5 in files})

    def images(self, dataset: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(dataset.data))

    def labels(self, dataset: Any) -> Tensor:
        return torch.from_numpy(dataset.labels)


class STL10(SVHN):
    """The labelled images only."""

    classes = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    files = "stl10_binary/ (or stl10_binary.tar.gz)"

    def open(self, train: bool, download: bool) -> Any:
        return datasets.STL10(self.root, split="train" if train else "test", download=download)

    def broken(self) -> list[Path]:
        files = [*datasets.STL10.train_list, *datasets.STL10.test_list]
        return unlike({self.root / datasets.STL10.base_folder / name: md5 for name, md5 in files})
