"""Compare augmented batches from memory: ResLab's, and those of torchvision's transforms with torch's DataLoader.

    python benchmarks/data_path.py [--images 50000] [--batch 128] [--rounds 5]

Both produce uint8 images of CIFAR's size with a random crop (4 pixels of padding), a flip and random erasing (p = 0.5),
ready for normalisation. The rounds of both alternate, and the first round is not counted. The script writes
benchmarks/results/data_path.json.
"""

import argparse
from collections.abc import Iterable

import torch
from baselines import PilImages
from recording import images_per_second, median_and_range, ratios, write_results
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from reslab.data.augmentation import Augmentation
from reslab.data.batches import BatchOrder, MemoryLoader

WORKERS = 2  # of torch's DataLoader
TRANSFORM = v2.Compose(
    [
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
        v2.RandomErasing(p=0.5, scale=(0.02, 0.4), value=0),
    ]
)


def reslab_batches(images: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    augment = Augmentation(crop=4, flip=True, erasing=0.5)
    order = BatchOrder(torch.arange(len(labels)), batch, shuffle=True)
    for uint8, _ in MemoryLoader(images, labels, order, torch.device("cpu")):
        yield augment(uint8)


def torchvision_batches(images: torch.Tensor, labels: torch.Tensor, batch: int) -> Iterable[torch.Tensor]:
    loader = DataLoader(PilImages(images, labels, TRANSFORM), batch, shuffle=True, num_workers=WORKERS, drop_last=True)
    for uint8, _ in loader:
        yield uint8


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
        for name, batches in (("ours", reslab_batches), ("torchvision", torchvision_batches)):
            rate = images_per_second(batches(images, labels, options.batch), WORKERS)
            if round_number:
                rates[name].append(rate)
    ratio = ratios(rates["ours"], rates["torchvision"])
    rounded = {name: [round(rate) for rate in values] for name, values in rates.items()}
    results = {"images_per_second": rounded, "ratio": ratio, **vars(options)}
    write_results(__file__, results, ("torch", "torchvision", "pillow"))
    for name, values in rates.items():
        print("{:12}{median:12,.0f} images/s ({min:,.0f} to {max:,.0f})".format(name, **median_and_range(values)))
    print("ratio       {median:12.1f} ({min:.1f} to {max:.1f}), n={}".format(options.rounds, **ratio))


if __name__ == "__main__":
    main()
