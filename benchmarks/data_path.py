"""Augmented batches from memory: ours against torchvision's data set, transforms and DataLoader, in one run.

    python benchmarks/data_path.py [--images 50000] [--batch 128] [--rounds 5]

Both give CIFAR-sized uint8 images with a random crop (4 pixels of padding), a flip and random erasing (p = 0.5), ready
for normalisation. Rounds alternate; the first of each is not counted. Writes benchmarks/results/data_path.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import torchvision
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from reslab.data.batches import BatchOrder, MemoryLoader
from reslab.data.transforms import Augmentation

RESULT = Path(__file__).parent / "results" / "data_path.json"


class PilImages(Dataset):
    """What torchvision's CIFAR10 does for an item: a PIL image from the array, then its transform."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.data, self.targets = images.permute(0, 2, 3, 1).numpy(), labels.tolist()
        self.transform = v2.Compose(
            [
                v2.RandomCrop(32, padding=4),
                v2.RandomHorizontalFlip(),
                v2.PILToTensor(),
                v2.RandomErasing(p=0.5, scale=(0.02, 0.4), value=0),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(v2.functional.to_pil_image(self.data[index])), self.targets[index]


def ours(images: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    augment = Augmentation(crop=4, flip=True, erasing=0.5)
    order = BatchOrder(torch.arange(len(labels)), batch, shuffle=True)
    for uint8, _ in MemoryLoader(images, labels, order, torch.device("cpu")):
        yield augment(uint8)


def torchvisions(images: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    loader = DataLoader(PilImages(images, labels), batch, shuffle=True, num_workers=2, drop_last=True)
    for uint8, _ in loader:
        yield uint8


def images_per_second(make_batches: Callable[[], Iterable[torch.Tensor]]) -> float:
    """From the first batch to the last, so that starting worker processes does not count."""
    batches = iter(make_batches())
    next(batches)
    start, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    images = torch.randint(0, 256, (options.images, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (options.images,))
    rates: dict[str, list[float]] = {"ours": [], "torchvision": []}
    for round_number in range(options.rounds + 1):
        for name, batches in (("ours", ours), ("torchvision", torchvisions)):
            rate = images_per_second(lambda batches=batches: batches(images, labels, options.batch))
            if round_number:
                rates[name].append(rate)
    ratios = [a / b for a, b in zip(rates["ours"], rates["torchvision"], strict=True)]
    result = {
        "images_per_second": {name: [round(rate) for rate in values] for name, values in rates.items()},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        **vars(options),
        "cpu": f"{os.cpu_count()} x {platform.machine()}",
        "versions": {"torch": torch.__version__, "torchvision": torchvision.__version__},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for name, values in rates.items():
        print(f"{name:12}{statistics.median(values):12,.0f} images/s ({min(values):,.0f} to {max(values):,.0f})")
    print(f"ratio       {result['ratio']['median']:12.1f} ({min(ratios):.1f} to {max(ratios):.1f}), n={len(ratios)}")


if __name__ == "__main__":
    main()
