"""MixUp and CutMix of a batch: what is drawn on the CPU, and what is computed from it on the device.

MixUp: Zhang et al. 2017, arXiv:1710.09412. CutMix: Yun et al. 2019, arXiv:1905.04899. Each image is mixed with the one
before it. The numbers are those of torchvision's MixUp, CutMix and RandomChoice, bit for bit; torchvision (0.28) slices
with integers that it has drawn, which a CUDA graph cannot do.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta

from reslab.options import check_option
from reslab.training.options import RUN

Method = Literal["mixup", "cutmix"]
# Apple's GPUs compute in float32 alone.
DTYPE = torch.float32 if torch.mps.is_available() else torch.float64


class Mix(NamedTuple):
    """How one batch is mixed.

    Attributes:
        method: "mixup" or "cutmix".
        numbers: of `DTYPE` (6,): the share of each image, the share of the one before it, and for CutMix the rows and
            the columns of the rectangle: from, to, from, to.
    """

    method: Method
    numbers: Tensor


class Mixing:
    """Mix float batches (N, C, S, S) and their labels.

    Args:
        alphas: of the Beta distribution of each method; with both, each batch uses one of them at random.
        num_classes: the number of classes.
        image_size: S in pixels.
    """

    def __init__(self, alphas: dict[Method, float], num_classes: int, image_size: int) -> None:
        self.methods = [*alphas]
        self.shares = {  # torch's Beta refuses integers
            method: Beta(torch.tensor([float(alpha)]), torch.tensor([float(alpha)])) for method, alpha in alphas.items()
        }
        self.num_classes, self.image_size = num_classes, image_size

    def draw(self, device: torch.device) -> Mix:
        """Draw how the next batch on a device is mixed, from the generator of the CPU. Nothing waits for the device."""
        method = self.methods[int(torch.multinomial(torch.full((len(self.methods),), 1 / len(self.methods)), 1))]
        share, box = float(self.shares[method].sample(())), (0, 0, 0, 0)
        if method == "cutmix":
            box = self.draw_box(share)
            share = 1.0 - (box[1] - box[0]) * (box[3] - box[2]) / self.image_size**2
        numbers = torch.tensor([share, 1.0 - share, *box], dtype=DTYPE, pin_memory=device.type == "cuda")
        return Mix(method, numbers.to(device, non_blocking=True))

    def draw_box(self, share: float) -> tuple[int, int, int, int]:
        """Draw a rectangle of `1 - share` of the area, which the borders may cut: rows from, to, columns from, to."""
        size = self.image_size
        column, row = int(torch.randint(size, (1,))), int(torch.randint(size, (1,)))
        half = int(0.5 * math.sqrt(1.0 - share) * size)
        return max(row - half, 0), min(row + half, size), max(column - half, 0), min(column + half, size)

    def apply(self, mix: Mix, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mixed batch and its targets (N, num_classes). Nothing here depends on a value on the device."""
        own, other, *box = mix.numbers
        neighbours = x.roll(1, 0)
        if mix.method == "mixup":
            mixed = blend(x, neighbours, own, other)
        else:
            mixed = torch.where(rectangle(box, self.image_size), neighbours, x)
        targets = (labels[:, None] == torch.arange(self.num_classes, device=labels.device)).float()
        return mixed, blend(targets, targets.roll(1, 0), own, other)


def batch_mixing(mixup: float, cutmix: float, num_classes: int, image_size: int) -> Mixing | None:
    """Return what mixes batches; None if both methods are turned off. Raise UserError for a wrong alpha."""
    alphas: dict[Method, float] = {"mixup": mixup, "cutmix": cutmix}
    for name, alpha in alphas.items():
        check_option(name, alpha, RUN[name])
    alphas = {name: alpha for name, alpha in alphas.items() if alpha}
    return Mixing(alphas, num_classes, image_size) if alphas else None


def blend(these: Tensor, those: Tensor, share: Tensor, other_share: Tensor) -> Tensor:
    """Return the weighted sum. A product with 16-bit values is computed in 32 bits, as with a number in Python."""
    wide = torch.promote_types(these.dtype, torch.float32)
    products = (
        (values.to(wide) * by.to(wide)).to(these.dtype) for values, by in ((those, other_share), (these, share))
    )
    return torch.add(*products)


def rectangle(box: list[Tensor], size: int) -> Tensor:
    """Return bool (size, size): true inside of rows from, to, columns from, to."""
    top, bottom, left, right = box
    place = torch.arange(size, device=top.device)
    rows, columns = (place >= top) & (place < bottom), (place >= left) & (place < right)
    return rows[:, None] & columns
