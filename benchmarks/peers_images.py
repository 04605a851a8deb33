"""The images of peers.py: random, in the layout of CIFAR-10's files and in that of an image folder."""

import pickle
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = 10
SIDE = 256  # pixels of an image of the folder, which programs cut to 224


@dataclass(frozen=True)
class Job:
    """What all programs of a part train, on the same files."""

    part: str  # cifar or folder
    images: Path
    training: int  # number of images
    test: int
    batch: int
    size: int  # height and width of the network's input in pixels
    epochs: int = 1

    @property
    def environment(self) -> dict[str, str]:
        """The variables that peers_clock reads."""
        return {"PEERS_CIFAR": str(self.images)} if self.part == "cifar" else {}

    @property
    def steps(self) -> int:
        """The steps of an epoch."""
        return self.training // self.batch


JOBS = {
    "cifar": partial(Job, "cifar", training=12 * 128, test=200, batch=128, size=32),
    "folder": partial(Job, "folder", training=12 * 32, test=50, batch=32, size=224),
}  # both have 12 steps; the folder of the images is left open


def write_images(job: Job) -> None:
    """Write the images of a job unless its folder exists. The mean brightness depends on the class."""
    if job.images.exists():
        return
    generator = np.random.default_rng(0)
    (write_cifar if job.part == "cifar" else write_folder)(job, generator)


def write_cifar(job: Job, generator: np.random.Generator) -> None:
    folder = job.images / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pieces = np.array_split(np.arange(job.training), 5)
    batches = {f"data_batch_{number}": len(piece) for number, piece in enumerate(pieces, 1)}
    for name, count in (batches | {"test_batch": job.test}).items():
        labels = generator.integers(0, CLASSES, count)
        pixels = generator.integers(0, 156, (count, 3072)) + 11 * labels[:, None]
        (folder / name).write_bytes(pickle.dumps({"data": pixels.astype(np.uint8), "labels": labels.tolist()}))
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))


def write_folder(job: Job, generator: np.random.Generator) -> None:
    """Write JPEG files that are smooth like photographs: 16x16 random pixels, enlarged."""
    for split, count in (("train", job.training), ("val", job.test)):
        for number in range(count):
            label = number % CLASSES
            path = job.images / split / f"class{label}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = generator.integers(0, 156, (16, 16, 3)) + 11 * label
            Image.fromarray(pixels.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)
