"""Three baselines: other programs that train the same network on the same images, reduced to what decides their speed.

    python benchmarks/baselines.py <plain|template|pytorch_cifar> <resnet18|resnet20> <steps> <epochs> <result.json>

plain: a loop over tensors in memory, with ResLab's memory format, optimizer and normalisation, and nothing else.
template: ashleve/lightning-hydra-template. It has a data set with transforms and a DataLoader in the main process,
updates torchmetrics and logs them with `self.log` in every step, shows Rich's progress bar, and writes checkpoints
and TensorBoard's files.
pytorch_cifar: kuangliu/pytorch-cifar. It has a DataLoader with two workers, and in every step it reads the loss back
and draws a progress bar.

All train with SGD and momentum on uint8 images (3, 32, 32) in batches of 128. All but `plain` crop and flip at
random. The result has the images/s of the last epoch and the seconds from the start of the process to the end of its
first step.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
from reslab.models.resnet import ResNet

BATCH = 128
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
TRANSFORM = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(MEAN, STD),
    ]
)
SHAPES: dict[str, Any] = {
    "resnet18": {"layers": (2, 2, 2, 2), "widths": (64, 128, 256, 512), "shortcut": "B"},
    "resnet20": {"layers": (3, 3, 3), "widths": (16, 32, 64), "shortcut": "A"},
}


def network(name: str, in_channels: int = 3) -> ResNet:
    return ResNet(
        in_channels=in_channels, num_classes=10, block="basic", stem="cifar", stem_width=None, preactivation=False,
        downsampling="stride", groups=1, width_per_group=64, squeeze_excitation=False, dropout=0.0,
        stochastic_depth=0.0, zero_init_residual=False, **SHAPES[name],
    )  # fmt: skip


class Clock:
    """Measure the images per second of the last epoch, and the time until the end of the first step."""

    def __init__(self) -> None:
        self.first_step: float | None = None

    def start_epoch(self) -> None:
        self.start, self.images = time.perf_counter(), 0

    def end_step(self, images: int) -> None:
        self.images += images
        self.end = time.perf_counter()
        if self.first_step is None:
            self.first_step = time.clock_gettime(time.CLOCK_BOOTTIME) - process_start()

    def result(self) -> dict[str, float | None]:
        return {"images_per_second": self.images / (self.end - self.start), "first_step_seconds": self.first_step}


def process_start() -> float:
    """Return when this process was started, in seconds since the boot of Linux."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    return int(ticks) / 100  # Linux reports hundredths of a second.


def plain(net: ResNet, images: Tensor, labels: Tensor, epochs: int, clock: Clock) -> None:
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True)
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    for _ in range(epochs):
        clock.start_epoch()
        for indices in torch.randperm(len(labels)).split(BATCH):
            x = ((images[indices].float() - mean) / std).contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            F.cross_entropy(net(x), labels[indices]).backward()
            optimizer.step()
            clock.end_step(len(indices))


class PilImages(torch.utils.data.Dataset):
    """A data set that makes its items as torchvision's CIFAR10 does: a PIL image from an array, then the transform."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Image.Image], Tensor]) -> None:
        self.data, self.targets, self.transform = images.permute(0, 2, 3, 1).numpy(), labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def template(net: ResNet, images: Tensor, labels: Tensor, epochs: int, clock: Clock) -> None:
    from lightning_template import fit  # Only this baseline waits for the import of Lightning.

    loader = torch.utils.data.DataLoader(PilImages(images, labels, TRANSFORM), BATCH, shuffle=True, num_workers=0)
    fit(net, loader, epochs, clock, Path(sys.argv[-1]).with_suffix(""))


def pytorch_cifar(net: ResNet, images: Tensor, labels: Tensor, epochs: int, clock: Clock) -> None:
    loader = torch.utils.data.DataLoader(PilImages(images, labels, TRANSFORM), BATCH, shuffle=True, num_workers=2)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for _ in range(epochs):
        clock.start_epoch()
        train_loss, correct, total = 0.0, 0, 0
        for batch_idx, (inputs, targets) in enumerate(loader):
            optimizer.zero_grad()
            outputs = net(inputs)
            loss = criterion(outputs, targets)
            loss.backward()
            optimizer.step()
            train_loss += loss.item()
            total += targets.size(0)
            correct += outputs.max(1)[1].eq(targets).sum().item()
            bar = "=" * (60 * (batch_idx + 1) // len(loader))
            sys.stdout.write(
                f"\r[{bar:60}] Loss: {train_loss / (batch_idx + 1):.3f} | Acc: {100 * correct / total:.3f}%"
            )
            sys.stdout.flush()
            clock.end_step(len(targets))


def main() -> None:
    baseline, name, steps, epochs, result = sys.argv[1:]
    torch.manual_seed(0)
    images = torch.randint(0, 256, (int(steps) * BATCH, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, 10, (len(images),))
    clock = Clock()
    train = {"plain": plain, "template": template, "pytorch_cifar": pytorch_cifar}[baseline]
    train(network(name), images, labels, int(epochs), clock)
    Path(result).write_text(json.dumps(clock.result()))


if __name__ == "__main__":
    main()
