"""Measure each augmentation of batches in memory beside a training step of ResNet-20, on one thread of the CPU.

    python benchmarks/augmentations.py [--batch 128] [--rounds 10]

Each round augments one batch of random images with each option of data.augment, then image by image with torchvision's
RandAugment and, where kornia is installed, by its RandAugment, which gives all images of a batch the same operation;
then it computes one step of the network: forward, backward and SGD. The first round is not counted. Seconds are those
of the processor, so that other programs disturb less. The script writes benchmarks/results/augmentations.json.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from baselines import network
from recording import median_and_range, write_results
from torch import Tensor, nn
from torchvision.transforms import v2

from reslab.data.augmentation import Augmentation

HAS_KORNIA = find_spec("kornia") is not None
SHAPES = ((1, 28, 28), (3, 32, 32))
OPTIONS: dict[str, dict[str, Any]] = {
    "scale": {"scale": 0.3}, "crop": {"crop": 4}, "flip": {"flip": True}, "vertical_flip": {"vertical_flip": True},
    "right_angles": {"right_angles": True}, "randaugment": {"randaugment": 9},
    "trivial_augment": {"trivial_augment": True}, "color_jitter": {"color_jitter": 0.4},
    "color_jitter with hue": {"color_jitter": [0.4, 0.4, 0.4, 0.1]}, "erasing": {"erasing": 0.5},
}  # fmt: skip


def training_step(channels: int) -> Callable[[Tensor], None]:
    """Return a step of ResNet-20 on uint8 images with random labels."""
    resnet20 = network("resnet20", channels).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(resnet20.parameters(), lr=0.1, momentum=0.9)

    def step(images: Tensor) -> None:
        x = images.float().div(255).contiguous(memory_format=torch.channels_last)
        optimizer.zero_grad()
        nn.functional.cross_entropy(resnet20(x), torch.randint(10, (len(images),))).backward()
        optimizer.step()

    return step


def measure(shape: tuple[int, int, int], batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Return the images per second of each option and of a step, as median and range over the rounds."""
    images = torch.randint(0, 256, (batch, *shape), dtype=torch.uint8)
    off = {"crop": 0, "flip": False, "erasing": 0.0}
    tasks: dict[str, Callable[[Tensor], object]] = {name: Augmentation(**off | each) for name, each in OPTIONS.items()}
    change = v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR)
    tasks["torchvision's RandAugment"] = lambda images: [change(image) for image in images]
    if HAS_KORNIA and shape[0] == 3:  # its saturation refuses grey images
        of_kornia = import_module("kornia.augmentation.auto").RandAugment(2, 9)
        tasks["kornia's RandAugment"] = lambda images: (255 * of_kornia(images.float() / 255)).byte()
    tasks["step of ResNet-20"] = training_step(shape[0])
    rates = defaultdict(list)
    for round_number in range(rounds + 1):
        for name, task in tasks.items():
            start = time.process_time()
            task(images)
            if round_number:
                rates[name].append(round(batch / (time.process_time() - start)))
    return {name: median_and_range(values) for name, values in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)  # which seconds of the processor are of
    results = {"x".join(map(str, shape)): measure(shape, options.batch, options.rounds) for shape in SHAPES}
    packages = ("torch", "torchvision", *["kornia"] * HAS_KORNIA)
    write_results(__file__, {"images_per_second": results, **vars(options)}, packages)
    for shape, rates in results.items():
        for name, rate in rates.items():
            print("{:8} {:26}{median:9,.0f} images/s ({min:,.0f} to {max:,.0f})".format(shape, name, **rate))


if __name__ == "__main__":
    main()
