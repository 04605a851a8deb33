"""The images that benchmarks/gpu.py trains on: where they are, how they are unpacked, and JPEG files that it makes."""

import gzip
import multiprocessing
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


class MissingDataError(Exception):
    """The message names what is missing."""


def shared_folders() -> list[Path]:
    """Return the folders in which data sets may be, those that exist."""
    named = os.environ.get("RESLAB_SHARED_DATA")
    folders = [Path(named)] if named else []
    return [each for each in (*folders, ROOT.parent / "shared" / "data", ROOT / "shared" / "data") if each.is_dir()]


def find(name: str, *others: Path) -> Path:
    """Return a file or folder of this name in one of the shared folders, or one of the others."""
    for path in (*(folder / name for folder in shared_folders()), *others):
        if path.exists():
            return path
    raise MissingDataError(f"{name} (RESLAB_SHARED_DATA, ../shared/data or shared/data)")


def unpack_once(folder: Path, unpack: Callable[[Path], None]) -> Path:
    """Return a folder after a function has filled it, which happens once even if it is interrupted."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        unpack(partial)
        partial.rename(folder)
    return folder


def cifar10(work: Path) -> Path:
    """Return the folder of all CIFAR-10 images as JPEG files, from cifar10-jpeg.tar.xz."""
    archive = find("cifar10-jpeg.tar.xz")

    def unpack(folder: Path) -> None:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    return unpack_once(work / "cifar10-jpeg", unpack)


def mnist(work: Path) -> Path:
    return idx_files(find("mnist"), work / "mnist", "MNIST")


def fashion_mnist(work: Path) -> Path:
    return idx_files(find("fashion-mnist", DEBIAN_FASHION_MNIST), work / "fashion-mnist", "FashionMNIST")


def idx_files(source: Path, target: Path, name: str) -> Path:
    """Return a folder with the files of `source`/*.gz, unpacked to where torchvision looks for this data set."""

    def unpack(folder: Path) -> None:
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for file in source.glob("*.gz"):
            with gzip.open(file) as compressed, (raw / file.stem).open("wb") as out:
                shutil.copyfileobj(compressed, out)

    return unpack_once(target, unpack)


def jpeg_files(work: Path, count: int, width: int, height: int) -> Path:
    """Return a folder of this number of JPEG files in ten classes: soft colours with grain, as large as photographs."""

    def make(folder: Path) -> None:
        for label in range(10):
            (folder / "train" / f"class{label}").mkdir(parents=True)
        with multiprocessing.Pool() as pool:
            pool.starmap(write_jpeg, [(folder, number, width, height) for number in range(count)], chunksize=20)

    return unpack_once(work / f"jpeg-{count}-{width}x{height}", make)


def write_jpeg(folder: Path, number: int, width: int, height: int) -> None:
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
    pixels = soft + random.normal(0, 12, (height, width, 1))  # grain makes a file of 500x375 pixels about 100 kB
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    image.save(folder / "train" / f"class{number % 10}" / f"{number}.jpg", quality=90)
