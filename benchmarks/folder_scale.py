"""Measure a folder of very many images: seconds to the first step, memory, and images per second.

    python benchmarks/folder_scale.py [--kind png|jpeg] [--rounds 5]

"png" is 145,600 PNG files of 8x8 pixels, so that the cost of a file counts and not that of its pixels, and "jpeg" is
50,000 JPEG files of 320x320 pixels, of which windows of 224x224 are taken. "First step" is that of `src/train.py` in a
process of its own, with the files on disk, with all of them in memory (a JPEG of 64x64 pixels then), and, most of which
is imports, with the 1,797 digits. "First batch" is that of the data alone, with the headers of up to 20,000 files of
each split read. Memory is what the process holds for the files, by tracemalloc. ResLab and torchvision's ImageFolder
with torch's DataLoader, which reads no headers, are measured in turn, and the first round is not counted. The script
writes benchmarks/results/folder_scale_<kind>.json.
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
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from recording import images_per_second, median_and_range, ratios, write_results
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2
from torchvision.transforms.v2.functional import to_pil_image

import reslab.commands.entry  # noqa: F401  # registers the resolvers that conf/config.yaml uses
from reslab.configuration import CONF
from reslab.training.build import build_data

WORKERS = 2
BATCHES = 100  # of an epoch, for the speed


class Kind(NamedTuple):
    """How many files there are, and the pixels per side that they have and that a network takes of them."""

    classes: int
    images: int  # of each class
    side: int
    size: int
    size_in_memory: int
    batch: int


KINDS = {"png": Kind(182, 800, 8, 8, 8, 256), "jpeg": Kind(100, 500, 320, 224, 64, 64)}


def write_files(folder: Path, name: str) -> None:
    """Write the images of each class as copies of one: noise, smooth enough that a JPEG is as large as a photograph."""
    kind = KINDS[name]
    for label in range(kind.classes):
        (folder / f"class{label:03}").mkdir()
        coarse, fine = torch.rand(1, 3, kind.side // 8, kind.side // 8), torch.rand(1, 3, kind.side, kind.side)
        pixels = 0.8 * F.interpolate(coarse, size=(kind.side, kind.side), mode="bicubic") + 0.2 * fine
        content = BytesIO()
        to_pil_image((255 * pixels[0].clamp(0, 1)).byte()).save(content, name, quality=85)
        for number in range(kind.images):
            (folder / f"class{label:03}" / f"{number:05}.{name}").write_bytes(content.getvalue())


def options(folder: Path, kind: Kind, size: int) -> list[str]:
    return [
        "data=imagefolder", f"data.root={folder}", f"data.image_size={size}", f"data.batch_size={kind.batch}",
        f"data.num_workers={WORKERS}",
    ]  # fmt: skip


def reslab_data(folder: Path, kind: Kind) -> Any:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return build_data(
            compose("config", [f"folder={folder}", *options(folder, kind, kind.size)]), stages=("fit", "test")
        )


def reslab_batches(folder: Path, kind: Kind) -> Iterator[torch.Tensor]:
    return (images for images, _ in reslab_data(folder, kind).train_dataloader())


def torchvision_data(folder: Path, kind: Kind) -> ImageFolder:
    window = v2.RandomResizedCrop(kind.size, scale=(0.08, 1.0), antialias=True)
    return ImageFolder(folder, v2.Compose([v2.PILToTensor(), window]))


def torchvision_batches(folder: Path, kind: Kind) -> Iterator[torch.Tensor]:
    loader = DataLoader(torchvision_data(folder, kind), kind.batch, shuffle=True, num_workers=WORKERS, drop_last=True)
    return (images for images, _ in loader)


PROGRAMS = {"ours": reslab_batches, "torchvision": torchvision_batches}


def seconds_to_first_batch(program: str, folder: Path, kind: Kind) -> float:
    start = time.perf_counter()
    next(iter(PROGRAMS[program](folder, kind)))
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
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return seconds[0]


def bytes_per_image(program: str, folder: Path, kind: Kind) -> float:
    """Return how much memory holds the paths and labels of all files, per file."""
    tracemalloc.start()
    data = reslab_data(folder, kind) if program == "ours" else torchvision_data(folder, kind)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    if program == "torchvision":
        return held / len(data)
    splits = [split for split in data.splits.values() if split]  # torch allocates outside of what tracemalloc sees
    tensors = {id(each): each.nbytes for split in splits for each in (split.labels, split.indices)}
    return (held + sum(tensors.values())) / sum(map(len, splits))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=KINDS, default="png")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    kind = KINDS[given.kind]
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    rates: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    first_steps: dict[str, list[float]] = {"disk": [], "memory": [], "digits": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder, outputs = Path(temporary) / "images", Path(temporary) / "outputs"
        folder.mkdir()
        write_files(folder, given.kind)
        memory = {name: bytes_per_image(name, folder, kind) for name in PROGRAMS}
        data = {
            "disk": options(folder, kind, kind.size),
            "memory": [*options(folder, kind, kind.size_in_memory), "data.in_memory=true"],
            "digits": ["data=digits"],
        }
        for number in range(given.rounds + 1):
            measured = {
                name: (
                    seconds_to_first_batch(name, folder, kind),
                    images_per_second(islice(batches(folder, kind), BATCHES), WORKERS),
                )
                for name, batches in PROGRAMS.items()
            }
            steps = {name: seconds_to_first_step(arguments, outputs) for name, arguments in data.items()}
            if number:
                for name, step in steps.items():
                    first_steps[name].append(step)
                for name, (second, rate) in measured.items():
                    seconds[name].append(second)
                    rates[name].append(rate)
    results = {
        "files": kind.classes * kind.images,
        "seconds_to_first_step": {name: [round(value, 2) for value in values] for name, values in first_steps.items()},
        "seconds_to_first_batch": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "images_per_second": {name: [round(value) for value in values] for name, values in rates.items()},
        "bytes_per_image": {name: round(value, 1) for name, value in memory.items()},
        "load_average": round(os.getloadavg()[2], 1),
        **kind._asdict(),
        **vars(given),
    }
    write_results(f"{Path(__file__).stem}_{given.kind}.py", results, ("torch", "torchvision", "pillow"))
    medians = {name: median_and_range(values)["median"] for name, values in first_steps.items()}
    print(
        f"{results['files']:,} files: seconds to the first step",
        {name: round(each, 1) for name, each in medians.items()},
    )
    print("first batch: ours / torchvision {median:.2f} ({min:.2f} to {max:.2f})".format(**ratios(*seconds.values())))
    print("images/s: ours / torchvision {median:.2f} ({min:.2f} to {max:.2f})".format(**ratios(*rates.values())))
    print("bytes per image:", results["bytes_per_image"])


if __name__ == "__main__":
    main()
