"""Measure a folder of very many small images: seconds to the first step, memory, and images per second.

    python benchmarks/folder_scale.py [--classes 182] [--images 800] [--batch 256] [--rounds 5]

The files are PNGs of 8x8 pixels, each a file of its own, so that the cost of a file counts and not that of its pixels.
"First step" is that of `src/train.py` in a process of its own, beside the first step with the 1,797 digits, most of
which is imports. "First batch" is that of the data alone, with the headers of up to 20,000 files of each split read.
Memory is what the process holds for the files, by tracemalloc. ResLab and torchvision's ImageFolder with torch's
DataLoader, which reads no headers, are measured in turn, and the first round is not counted. The script writes
benchmarks/results/folder_scale.json.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from recording import images_per_second, median_and_range, ratios, write_results
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import reslab.commands.entry  # noqa: F401  # registers the resolvers that conf/config.yaml uses
from reslab.configuration import CONF
from reslab.training.build import build_data

SIZE, WORKERS = 8, 2
BATCHES = 100  # of an epoch, for the speed


def write_files(folder: Path, classes: int, images: int) -> None:
    generator = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"class{label:03}").mkdir()
        content = BytesIO()
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(content, "PNG")
        for number in range(images):
            (folder / f"class{label:03}" / f"{number:05}.png").write_bytes(content.getvalue())


def options(folder: Path, batch: int) -> list[str]:
    return [
        "data=imagefolder", f"data.root={folder}", f"data.image_size={SIZE}", f"data.batch_size={batch}",
        f"data.num_workers={WORKERS}",
    ]  # fmt: skip


def reslab_data(folder: Path, batch: int) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_data(compose("config", [f"folder={folder}", *options(folder, batch)]), stages=("fit", "test"))


def reslab_batches(folder: Path, batch: int) -> Iterator[torch.Tensor]:
    return (images for images, _ in reslab_data(folder, batch).train_dataloader())


def torchvision_data(folder: Path) -> ImageFolder:
    window = v2.RandomResizedCrop(SIZE, scale=(0.08, 1.0), antialias=True)
    return ImageFolder(folder, v2.Compose([v2.PILToTensor(), window]))


def torchvision_batches(folder: Path, batch: int) -> Iterator[torch.Tensor]:
    loader = DataLoader(torchvision_data(folder), batch, shuffle=True, num_workers=WORKERS, drop_last=True)
    return (images for images, _ in loader)


PROGRAMS = {"ours": reslab_batches, "torchvision": torchvision_batches}


def seconds_to_first_batch(program: str, folder: Path, batch: int) -> float:
    start = time.perf_counter()
    next(iter(PROGRAMS[program](folder, batch)))
    return time.perf_counter() - start


def seconds_to_first_step(data: list[str], outputs: Path) -> float:
    """Return the seconds until a command has trained one step and said so."""
    command = [
        sys.executable, str(CONF.parent / "src" / "train.py"), *data, "model=resnet8", "trainer=cpu",
        "trainer.max_steps=1", "trainer.limit_val_batches=1", "test=false", "logger=none", f"outputs={outputs}",
    ]  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        seconds = [time.perf_counter() - start for line in process.stdout if line.split()[:1] == ["1"]]  # the epoch
    return seconds[0]


def bytes_per_image(program: str, folder: Path, batch: int) -> float:
    """Return how much memory holds the paths and labels of all files, per file."""
    tracemalloc.start()
    data = reslab_data(folder, batch) if program == "ours" else torchvision_data(folder)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if program == "torchvision":
        return held / len(data)
    splits = [split for split in data.splits.values() if split]  # torch allocates outside of what tracemalloc sees
    tensors = {id(each): each.nbytes for split in splits for each in (split.labels, split.indices)}
    return (held + sum(tensors.values())) / sum(map(len, splits))


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("classes", 182), ("images", 800), ("batch", 256), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    rates: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    first_steps: dict[str, list[float]] = {"folder": [], "digits": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        write_files(folder, given.classes, given.images)
        memory = {name: bytes_per_image(name, folder, given.batch) for name in PROGRAMS}
        for number in range(given.rounds + 1):
            measured = {
                name: (
                    seconds_to_first_batch(name, folder, given.batch),
                    images_per_second(islice(batches(folder, given.batch), BATCHES)),
                )
                for name, batches in PROGRAMS.items()
            }
            outputs = Path(temporary) / "outputs"
            steps = {
                "folder": seconds_to_first_step(options(folder, given.batch), outputs),
                "digits": seconds_to_first_step(["data=digits"], outputs),
            }
            if number:
                for name, step in steps.items():
                    first_steps[name].append(step)
                for name, (second, rate) in measured.items():
                    seconds[name].append(second)
                    rates[name].append(rate)
    results = {
        "files": given.classes * given.images,
        "seconds_to_first_step": {name: [round(value, 2) for value in values] for name, values in first_steps.items()},
        "seconds_to_first_batch": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "images_per_second": {name: [round(value) for value in values] for name, values in rates.items()},
        "bytes_per_image": {name: round(value, 1) for name, value in memory.items()},
        "load_average": round(os.getloadavg()[2], 1),
        **vars(given),
    }
    write_results(__file__, results, ("torch", "torchvision", "pillow"))
    medians = {name: median_and_range(values)["median"] for name, values in first_steps.items()}
    print("{files:,} files: first step after {folder:.1f} s, with digits {digits:.1f} s".format(**results, **medians))
    print("first batch: ours / torchvision {median:.2f} ({min:.2f} to {max:.2f})".format(**ratios(*seconds.values())))
    print("images/s: ours / torchvision {median:.2f} ({min:.2f} to {max:.2f})".format(**ratios(*rates.values())))
    print("bytes per image:", results["bytes_per_image"])


if __name__ == "__main__":
    main()
