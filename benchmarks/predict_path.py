"""Measure predict beside a plain torch loop: images per second, and how its memory grows with the number of images.

    python benchmarks/predict_path.py [--rounds 5] [--workers 2] [--side 64]

The images are 1,000 JPEG files of noise, which are named again and again. Both programs decode them with the same
function in the same number of worker processes and put batches of 64 through the same network. ResLab also writes all
probabilities to a CSV file. They are measured in turn in one process, and the first round is not counted. Memory is the
peak of a process of its own for 20,000 and for 100,000 images, and that of its largest worker. The script also writes
the answers to 50,000 images of 1,000 classes as a table. The results go to benchmarks/results/predict_path.json.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from recording import images_per_second, median_and_range, ratios, write_results
from torch.utils.data import DataLoader, Dataset

import reslab
from reslab.benchmarking.memory import peak_memory
from reslab.data.readers import ReadSquare
from reslab.inference.loading import load_classifier
from reslab.inference.prediction import Predictions
from reslab.inference.prediction_file import prediction_file, write_answers_table
from reslab.training.answers import Answers

FILES = 1000
BATCH = 64
COUNTS = (20_000, 100_000)  # of images, for the memory
TABLE = (50_000, 1000)  # images and classes of the table


def write_files(folder: Path, side: int) -> list[str]:
    generator = torch.Generator().manual_seed(0)
    for number in range(FILES):
        pixels = torch.randint(0, 256, (side, side, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{number:03}.jpg")
    return sorted(map(str, folder.iterdir()))


def reslab_batches(checkpoint: Path, files: list[str], workers: int, output: Path) -> Iterator[torch.Tensor]:
    predictions = Predictions(
        checkpoint, files, batch_size=BATCH, num_workers=workers, on_error="stop", device="cpu"
    )  # fmt: skip
    with prediction_file(output, predictions.classes, "all") as write:
        for batch in predictions:
            write(batch)
            yield batch.probabilities


class PlainImages(Dataset[torch.Tensor]):
    """The images, each decoded as ResLab decodes it."""

    def __init__(self, files: list[str], read: ReadSquare) -> None:
        self.files, self.read = files, read

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.read(self.files[number], 0)


@torch.inference_mode()
def plain_batches(checkpoint: Path, files: list[str], workers: int, output: Path) -> Iterator[torch.Tensor]:
    network, _, spec = trained = load_classifier(checkpoint)
    read = ReadSquare(spec.fitting(training=False), len(spec.mean), trained.background)
    for images in DataLoader(PlainImages(files, read), BATCH, num_workers=workers):
        yield network(images).softmax(1)


PROGRAMS = {"ours": reslab_batches, "plain": plain_batches}


def peaks_in_mb(checkpoint: Path, folder: Path, count: int, workers: int) -> list[float]:
    """Return the peak memory of a process that classifies images, and that of its largest worker."""
    command = [sys.executable, __file__, "--peak", str(count), "--workers", str(workers), str(checkpoint), str(folder)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peaks(checkpoint: Path, folder: Path, count: int, workers: int) -> None:
    files = sorted(map(str, folder.glob("*.jpg"))) * (count // FILES)
    for _ in reslab_batches(checkpoint, files, workers, folder / "predictions.csv"):
        pass
    own, of_worker = peak_memory(torch.device("cpu")), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps([round(peak / 2**20, 1) for peak in (own, of_worker)]))


def table_seconds(folder: Path) -> dict[str, float]:
    images, classes = TABLE
    names, files = [f"class {number}" for number in range(classes)], [f"{number}.jpg" for number in range(images)]
    answers = Answers(torch.randn(TABLE), torch.randint(classes, (images,)), torch.arange(images), names, files)
    seconds = {}
    for suffix in ("parquet", "csv"):
        start = time.perf_counter()
        write_answers_table(folder / f"answers.{suffix}", answers, "loss")
        seconds[suffix] = round(time.perf_counter() - start, 1)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--images", type=int, default=10_000, help="in each round")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("places", nargs="*", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        checkpoint, folder = given.places
        print_peaks(checkpoint, folder, given.peak, given.workers)
        return
    rates: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        folder.mkdir()
        files = write_files(folder, given.side) * (given.images // FILES)
        checkpoint = reslab.train(
            "model=resnet8", "data=synthetic", "trainer=cpu", "trainer.max_steps=1", "logger=none", "test=false",
            f"outputs={temporary}",
        ).checkpoint()  # fmt: skip
        for number in range(given.rounds + 1):
            for name, batches in PROGRAMS.items():
                made = batches(checkpoint, files, given.workers, Path(temporary) / "a.csv")
                rate = images_per_second(made, given.workers)
                if number:
                    rates[name].append(rate)
        peaks = {count: peaks_in_mb(checkpoint, folder, count, given.workers) for count in COUNTS}
        table = table_seconds(Path(temporary))
    results = {
        "images_per_second": {name: [round(value) for value in values] for name, values in rates.items()},
        "peak_mb": peaks,
        "table_seconds": table,
        "load_average": round(os.getloadavg()[2], 1),
        **{name: value for name, value in vars(given).items() if name not in ("peak", "places")},
    }
    write_results(__file__, results, ("torch", "torchvision", "pillow", "pyarrow"))
    medians = {name: round(median_and_range(values)["median"]) for name, values in rates.items()}
    print("images/s:", medians, "ours / plain {median:.2f} ({min:.2f} to {max:.2f})".format(**ratios(*rates.values())))
    print("peak MB, of the process and of its largest worker:", peaks)
    print(f"seconds for a table of {TABLE[0]:,} images and {TABLE[1]:,} classes:", table)


if __name__ == "__main__":
    main()
