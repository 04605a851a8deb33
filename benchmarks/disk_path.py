"""Compare batches from image files: ResLab's, and those of torchvision's ImageFolder with torch's DataLoader.

    python benchmarks/disk_path.py [--size 320] [--crop 224] [--images 1280] [--batch 64] [--rounds 5]

Both decode the same JPEG files and take random crops. The script makes the files: noise, smoothed until they are as
large as those of photographs. Each round measures both programs with 1 and with 2 workers, and the first round is not
counted. The script writes benchmarks/results/disk_path.json.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from recording import images_per_second, ratios, write_results
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import write_jpeg
from torchvision.transforms import v2

from reslab.data.batches import BatchOrder, FolderImages, FolderLoader
from reslab.data.fitting import Fitting
from reslab.data.images import list_images
from reslab.data.readers import ReadRandomCrop

WORKERS = (1, 2)
SCALE = 0.08  # of the image's area, the smallest random crop


def write_images(folder: Path, count: int, size: int) -> int:
    """Write JPEG files of two classes, and return how many bytes they have together."""
    for label in ("a", "b"):
        (folder / label).mkdir()
    for number in range(count):
        coarse, fine = torch.rand(1, 3, size // 16, size // 16), torch.rand(1, 3, size, size)
        pixels = 0.8 * F.interpolate(coarse, size=(size, size), mode="bicubic") + 0.2 * fine
        write_jpeg((255 * pixels[0].clamp(0, 1)).byte(), str(folder / "ab"[number % 2] / f"{number}.jpg"), quality=85)
    return sum(Path(path).stat().st_size for path in list_images(folder).paths)


def reslab_batches(folder: Path, batch: int, crop: int, workers: int) -> Iterable[torch.Tensor]:
    paths = list_images(folder).paths
    labels = torch.tensor([int(Path(path).parent.name == "b") for path in paths])
    images = FolderImages(paths, labels, ReadRandomCrop(Fitting(crop), SCALE), on_error="stop")
    order = BatchOrder(torch.arange(len(paths)), batch, shuffle=True)
    return (uint8 for uint8, _ in FolderLoader(images, order, workers))


def torchvision_batches(folder: Path, batch: int, crop: int, workers: int) -> Iterable[torch.Tensor]:
    window = v2.RandomResizedCrop(crop, scale=(SCALE, 1.0), antialias=True)
    transform = v2.Compose([v2.PILToTensor(), window])
    loader = DataLoader(ImageFolder(folder, transform), batch, shuffle=True, num_workers=workers, drop_last=True)
    return (uint8 for uint8, _ in loader)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("size", 320), ("crop", 224), ("images", 1280), ("batch", 64), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    programs = {"ours": reslab_batches, "torchvision": torchvision_batches}
    rates: dict[str, dict[str, list[float]]] = {
        f"{workers} workers": {name: [] for name in programs} for workers in WORKERS
    }
    with tempfile.TemporaryDirectory() as folder:
        size_on_disk = write_images(Path(folder), options.images, options.size)
        for number in range(options.rounds + 1):
            for workers in WORKERS:
                for program, batches in programs.items():
                    rate = images_per_second(batches(Path(folder), options.batch, options.crop, workers), workers)
                    if number:
                        rates[f"{workers} workers"][program].append(rate)
    results = {
        "images_per_second": {
            workers: {program: [round(rate, 1) for rate in values] for program, values in both.items()}
            for workers, both in rates.items()
        },
        "kilobytes_per_image": round(size_on_disk / options.images / 1000, 1),
        **vars(options),
    }
    write_results(__file__, results, ("torch", "torchvision", "pillow"))
    for name, both in rates.items():
        medians = [statistics.median(values) for values in both.values()]
        print(
            "{}: ours {:.0f}, torchvision {:.0f} images/s; ratio {median:.2f} ({min:.2f} to {max:.2f}), n={}".format(
                name, *medians, options.rounds, **ratios(both["ours"], both["torchvision"])
            )
        )


if __name__ == "__main__":
    main()
