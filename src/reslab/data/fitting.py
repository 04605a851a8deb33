"""How an image of any size becomes the square that a network takes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional

from reslab.data.images import MAX_PIXELS
from reslab.data.options import Fit, Interpolation

# Without Pillow's arithmetic, an image is cut to 3:1 before it is resized: a 1 x 1,000,000 image would grow a
# thousandfold.
MAX_ASPECT = 3


@dataclass(frozen=True)
class Fitting:
    """How an image becomes a square.

    Args:
        size: height and width of the square, in pixels.
        resize: pixels of the image's shorter side before the square is cut out of its middle; None: `size`.
        interpolation: "bilinear" or "bicubic", both antialiased.
        fit: "crop" cuts the square out of the middle, "pad" adds borders to the shorter side, "squash" changes the
            proportions. None is what versions did that had no choice: a file is cropped, a batch is squashed.
        fill: the levels of borders, 0 to 255, one per channel.
        by_pillow: image files are resized by Pillow, as for the accuracies that torchvision publishes; otherwise by
            torch, which rounds differently, depending on the processor.
    """

    size: int
    resize: int | None = None
    interpolation: Interpolation = "bilinear"
    fit: Fit | None = None
    fill: tuple[int, ...] = ()
    by_pillow: bool = False

    def of_file(self, image: Image.Image) -> Tensor:
        """Return the square of an image, uint8 (C, size, size)."""
        if not self.by_pillow:
            return center_square(functional.pil_to_tensor(image), self.size)
        if self.fit not in ("pad", "squash"):
            image = without_far_ends(image, self.resize or self.size)
        image = self.resized(image, self.fit or "crop")
        if self.fit == "pad":
            image = functional.pad(image, borders(image, self.size), fill=[*self.fill])
        return functional.pil_to_tensor(functional.center_crop(image, [self.size, self.size]))

    def of_batch(self, x: Tensor, fill: Tensor) -> Tensor:
        """Return the squares of images, float (N, C, size, size).

        Args:
            x: float (N, C, H, W); images of the size are taken as they are, whatever `resize` is.
            fill: the values of borders, (1, C, 1, 1).
        """
        if x.shape[2:] == (self.size, self.size):
            return x
        x = self.resized(x, self.fit or "squash")
        if self.fit == "pad":
            left, top, right, bottom = borders(x, self.size)
            return F.pad(x - fill, (left, right, top, bottom)) + fill  # fill may be on a GPU, so F.pad cannot take it
        return functional.center_crop(x, [self.size, self.size])

    def part_of(self, width: int, height: int, fit: Fit) -> tuple[float, float]:
        """Return the width and height of the part in the middle of an image that becomes the square, in its pixels.

        With "pad", the part includes the borders and is larger than the image.
        """
        if fit == "pad":
            return max(width, height), max(width, height)
        share = self.size / (self.resize or self.size)
        if fit == "squash":
            return width * share, height * share
        return min(width, height) * share, min(width, height) * share

    def square_of_longer_side(self, image: Image.Image) -> Image.Image:
        """Return an image with borders or squashed, as a square of its longer side; as it is if it will be cropped."""
        if self.fit not in ("pad", "squash"):
            return image
        side = min(max(image.size), math.isqrt(MAX_PIXELS))
        whole = Fitting(side, interpolation=self.interpolation, fit=self.fit)
        image = whole.resized(image, self.fit)
        return image if self.fit == "squash" else functional.pad(image, borders(image, side), fill=[*self.fill])

    def resized(self, image, fit: Fit):  # type: ignore[no-untyped-def]  # an image of Pillow or a tensor (…, H, W)
        """Resize an image before the square is cut out of it or borders are added, and return it as what it was."""
        side = self.resize or self.size
        sides = {"crop": [side], "squash": [side, side], "pad": pad_sides(functional.get_size(image), self.size)}[fit]
        return functional.resize(image, sides, functional.InterpolationMode(self.interpolation), antialias=True)


def border_levels(background: Sequence[int] | None, mean: Sequence[float]) -> tuple[int, ...]:
    """Return the level of borders for each stored channel: the background, or else the mean of the images.

    Args:
        background: RGB values from 0 to 255.
        mean: of each channel, for pixel values from 0 to 1.
    """
    if background is None:
        return tuple(round(255 * value) for value in mean)
    if len(mean) == 1:
        grey: Any = Image.new("RGB", (1, 1), tuple(background)).convert("L").getpixel((0, 0))
        return (grey,)
    return tuple(background)


def pad_sides(sides: list[int], size: int) -> list[int]:
    """Return the sides of an image whose longer side becomes `size`."""
    return [max(1, round(side * size / max(sides))) for side in sides]


def borders(image: Image.Image | Tensor, size: int) -> list[int]:
    """Return the pixels to add at the left, top, right and bottom, so that an image is in the middle of a square."""
    height, width = functional.get_size(image)
    left, top = (size - width) // 2, (size - height) // 2
    return [left, top, size - width - left, size - height - top]


def center_square(image: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and cut out the middle: uint8 (C, H, W) to (C, size, size)."""
    height, width = image.shape[1:]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        image = functional.center_crop(image, [min(height, longest), min(width, longest)])
    return functional.center_crop(functional.resize(image, [size], antialias=True), [size, size])


def without_far_ends(image: Image.Image, resize: int) -> Image.Image:
    """Cut an image in the middle if it would have more than MAX_PIXELS once its shorter side is resized."""
    longest = MAX_PIXELS * min(image.size) // resize**2
    if max(image.size) <= longest:
        return image
    cut: Image.Image = functional.center_crop(image, [min(image.height, longest), min(image.width, longest)])
    return cut
