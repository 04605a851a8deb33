"""RandAugment (arXiv:1909.13719) and TrivialAugment (arXiv:2103.10158) of uint8 batches, drawn for each sample.

Operations, magnitudes and their probabilities are those of torchvision's RandAugment and TrivialAugmentWide, with
bilinear interpolation and black outside of the image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from reslab.data.colors import (
    LEVELS,
    all_levels,
    apply_tables,
    autocontrast_table,
    blend,
    equalize_table,
    gray_levels,
    posterize_table,
    smoothed,
    solarize_table,
    to_levels,
)
from reslab.data.warps import warp

BINS = 31  # magnitudes of an operation
RANDAUGMENT_OPERATIONS = 2  # of each image, as for most results of the paper


class Operation(IntEnum):
    """The operations, each drawn with the same probability. Those before POSTERIZE have a random sign."""

    IDENTITY = 0
    SHEAR_X = 1
    SHEAR_Y = 2
    TRANSLATE_X = 3
    TRANSLATE_Y = 4
    ROTATE = 5
    BRIGHTNESS = 6
    COLOR = 7
    CONTRAST = 8
    SHARPNESS = 9
    POSTERIZE = 10
    SOLARIZE = 11
    AUTO_CONTRAST = 12
    EQUALIZE = 13


@dataclass(frozen=True)
class Space:
    """The largest magnitudes of the operations.

    Args:
        shear: pixels per pixel.
        translate: maps the pixels of a side to pixels.
        rotate: degrees.
        blend: how far the ratio of brightness, colour, contrast and sharpness is from 1.
        bits: that posterizing removes.
    """

    shear: float
    translate: Callable[[int], float]
    rotate: float
    blend: float
    bits: int

    def magnitudes(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return the magnitudes of each operation, float32 (operations, BINS)."""

        def linear(first: float, last: float) -> Tensor:
            return torch.linspace(first, last, BINS, dtype=torch.float32, device=device)

        def up_to(limit: float) -> Tensor:
            return linear(0.0, limit)

        without = torch.zeros(BINS, dtype=torch.float32, device=device)
        blends, shears = up_to(self.blend), up_to(self.shear)
        bits = (8 - torch.arange(BINS, dtype=torch.float32, device=device) / ((BINS - 1) / self.bits)).round()
        threshold = linear(1.0, 0.0) * (LEVELS - 1)
        across, down = up_to(self.translate(width)), up_to(self.translate(height))
        return torch.stack(
            [without, shears, shears, across, down, up_to(self.rotate), *[blends] * 4, bits, threshold, *[without] * 2]
        )


RANDAUGMENT = Space(shear=0.3, translate=lambda side: 150.0 / 331.0 * side, rotate=30.0, blend=0.9, bits=4)
TRIVIAL_AUGMENT = Space(shear=0.99, translate=lambda side: 32.0, rotate=135.0, blend=0.99, bits=6)


def draw_operations(images: Tensor, space: Space, magnitude: int | None) -> tuple[Tensor, Tensor]:
    """Draw an operation for each sample, int64 (N,), and its signed magnitude, float32 (N,).

    Args:
        images: (N, C, H, W).
        space: the magnitudes.
        magnitude: which of the 31 magnitudes, from 0; None draws it.
    """
    n, device = len(images), images.device
    operation = torch.randint(len(Operation), (n,), device=device)
    place = torch.randint(BINS, (n,), device=device) if magnitude is None else torch.full_like(operation, magnitude)
    table = space.magnitudes(images.shape[2], images.shape[3], device).flatten()
    size = table.index_select(0, operation * BINS + place)
    is_negative = (torch.rand(n, dtype=torch.float32, device=device) <= 0.5) & (operation < Operation.POSTERIZE)
    return operation, torch.where(is_negative, -size, size)


def apply_operations(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Apply to each sample its operation.

    Shapes must not depend on what was drawn. So every sample is warped, then its levels are replaced by those of a
    table, and then it is blended with another image; two of the three change nothing.
    """
    images = move(images, operation, magnitude)
    if images.shape[1] != 3:  # of grey images, colour is not changed
        operation = torch.where(operation == Operation.COLOR, Operation.IDENTITY, operation)
    gray = gray_levels(images)
    images = apply_tables(images, level_tables(images, gray, operation, magnitude))
    is_color, is_sharpness = operation == Operation.COLOR, operation == Operation.SHARPNESS
    other = torch.where(is_color[:, None, None, None], gray, smoothed(images))
    return blend(images, other, torch.where(is_color | is_sharpness, 1 + magnitude, 1.0))


def move(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Shear, translate or rotate the samples that drew it."""
    height, width = images.shape[2:]

    def drawn(which: Operation) -> Tensor:
        return torch.where(operation == which, magnitude, 0.0)

    angle = drawn(Operation.ROTATE).deg2rad()
    cos, sin = angle.cos(), angle.sin()
    shear_x, shear_y = drawn(Operation.SHEAR_X), drawn(Operation.SHEAR_Y)  # about the upper left corner
    right, down = drawn(Operation.TRANSLATE_X).trunc(), drawn(Operation.TRANSLATE_Y).trunc()
    rows = (sin + shear_y, cos, shear_y * (width / 2) - down)
    columns = (cos, shear_x - sin, shear_x * (height / 2) - right)
    return warp(images, rows, columns)


def level_tables(images: Tensor, gray: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Return what each level becomes by the operations that look at nothing else, uint8 (N, C, 256)."""
    levels = chosen = all_levels(images.device)
    ratio, rest = (1 + magnitude)[:, None, None], -magnitude[:, None, None]
    tables = {
        Operation.BRIGHTNESS: levels * ratio,
        Operation.CONTRAST: levels * ratio + gray.mean((1, 2, 3))[:, None, None] * rest,
        Operation.POSTERIZE: posterize_table(magnitude),
        Operation.SOLARIZE: solarize_table(magnitude),
        Operation.AUTO_CONTRAST: autocontrast_table(images),
        Operation.EQUALIZE: equalize_table(images),
    }
    for which, table in tables.items():  # the last two have tables for each channel
        chosen = torch.where((operation == which)[:, None, None], table, chosen)
    return to_levels(chosen)
