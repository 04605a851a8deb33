"""Augmentation of batches of uint8 images on the training device."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reslab.data import colors
from reslab.data.auto_augment import (
    RANDAUGMENT,
    RANDAUGMENT_OPERATIONS,
    TRIVIAL_AUGMENT,
    apply_operations,
    draw_operations,
)
from reslab.data.options import ErasingAspect, check_data
from reslab.data.warps import SCALE_ASPECT, Rectangles, draw_windows, resize_windows


class Augmentation(nn.Module):
    """Random changes of a uint8 batch (N, C, H, W), drawn for each sample, in the order of the arguments.

    It draws from the global generator of the images' device. Shapes do not depend on what is drawn, and nothing looks
    at a value, so that a CUDA graph can record it.

    Args:
        scale: the least area of a rectangle that is cut out and enlarged to the image's size, as a fraction of the
            image's (Szegedy et al. 2014, arXiv:1409.4842); None is off.
        scale_aspect: the range of its width / height.
        crop: pixels of zero padding on each side, from which a window of the image's size is cut (He et al. 2015,
            section 4.2); 0 is off.
        flip: mirror half of the images, left to right.
        vertical_flip: mirror half of the images, top to bottom.
        right_angles: rotate by 0, 90, 180 or 270 degrees; the images must be square.
        randaugment: magnitude from 0 to 30 of two operations of RandAugment (arXiv:1909.13719); 0 is off.
        trivial_augment: apply one operation of TrivialAugment (arXiv:2103.10158).
        color_jitter: how far brightness, contrast and saturation may be from 1, or a list of these three and how far
            the hue may be turned as a part of the circle; 0 is off.
        erasing: probability that a rectangle is filled (Zhong et al. 2017, arXiv:1708.04896).
        erasing_aspect: how a rectangle is drawn: "log_uniform", see `draw_symmetric_rectangles`, or "uniform", see
            `draw_published_rectangles`.
        erasing_fill: the level of every pixel of a rectangle, 0 to 255; "random" draws each of them.

    The defaults are what runs did that are older than these options.

    Raises:
        UserError: an argument has a value that its option, `data.augment.<argument>`, may not take.
    """

    def __init__(
        self,
        *,
        scale: float | None = None,
        scale_aspect: Sequence[float] = SCALE_ASPECT,
        crop: int,
        flip: bool,
        vertical_flip: bool = False,
        right_angles: bool = False,
        randaugment: int = 0,
        trivial_augment: bool = False,
        color_jitter: float | Sequence[float] = 0,
        erasing: float,
        erasing_aspect: ErasingAspect = "log_uniform",
        erasing_fill: int | Literal["random"] = "random",
    ) -> None:
        check_data({f"augment.{name}": value for name, value in locals().items()})  # they are the arguments
        super().__init__()
        self.scale, self.scale_aspect = scale, (scale_aspect[0], scale_aspect[1])
        self.crop, self.flip, self.vertical_flip, self.right_angles = crop, flip, vertical_flip, right_angles
        self.randaugment, self.trivial_augment = randaugment, trivial_augment
        self.strengths = jitter_strengths(color_jitter)
        self.erasing, self.erasing_fill = erasing, erasing_fill
        self.draw_rectangles = DRAW_RECTANGLES[erasing_aspect]

    def forward(self, images: Tensor) -> Tensor:
        n, device = len(images), images.device
        if self.scale is not None:
            images = resize_windows(images, *draw_windows(images, self.scale, self.scale_aspect))
        if self.crop:
            offsets = torch.randint(0, 2 * self.crop + 1, (2, n), device=device)
            images = crop_windows(images, self.crop, offsets[0], offsets[1])
        if self.flip:
            images = flip_chosen(images, torch.rand(n, device=device, dtype=torch.float32) < 0.5)
        if self.vertical_flip:
            images = flip_chosen(images, torch.rand(n, device=device, dtype=torch.float32) < 0.5, dim=2)
        if self.right_angles:
            images = rotate_right_angles(images, torch.randint(4, (n,), device=device))
        for _ in range(RANDAUGMENT_OPERATIONS if self.randaugment else 0):
            images = apply_operations(images, *draw_operations(images, RANDAUGMENT, self.randaugment))
        if self.trivial_augment:
            images = apply_operations(images, *draw_operations(images, TRIVIAL_AUGMENT, None))
        if any(self.strengths):
            images = colors.jitter(images, self.strengths)
        if self.erasing:
            rectangles = self.draw_rectangles(images, self.erasing)
            fill = random_bytes(images) if self.erasing_fill == "random" else self.erasing_fill
            images = fill_rectangles(images, *rectangles, fill)
        return images


def jitter_strengths(color_jitter: float | Sequence[float]) -> colors.Strengths:
    """Return the strengths for brightness, contrast, saturation and hue that `data.augment.color_jitter` means."""
    if isinstance(color_jitter, int | float):
        return (color_jitter, color_jitter, color_jitter, 0.0)
    brightness, contrast, saturation, hue = color_jitter
    return (brightness, contrast, saturation, hue)


def crop_windows(images: Tensor, padding: int, top: Tensor, left: Tensor) -> Tensor:
    """Pad with zeros, then cut the window of sample i at (top[i], left[i]).

    Args:
        images: uint8 (N, C, H, W).
        padding: pixels on each side.
        top: int64 (N,), from 0 to 2 * padding.
        left: int64 (N,), from 0 to 2 * padding.

    Returns:
        uint8 (N, C, H, W).
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows, columns = padded.shape[2:]
    slices = padded.flatten().unfold(0, width, 1)  # a view of every run of `width` consecutive bytes
    device = images.device
    corners = torch.arange(n * channels, device=device).view(n, channels, 1) * (rows * columns)
    corners = corners + (top * columns + left)[:, None, None]
    first = corners + torch.arange(height, device=device) * columns  # (N, C, H): where each row of a window begins
    return slices.index_select(0, first.flatten()).view(images.shape)


def flip_chosen(images: Tensor, chosen: Tensor, dim: int = 3) -> Tensor:
    """Mirror the samples for which `chosen` (N,) is true, left to right, or top to bottom with `dim` 2."""
    return select(byte_mask(chosen)[:, None, None, None], images.flip(dim), images)


def rotate_right_angles(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate square images counterclockwise by as many right angles as `turns` (N,) says, from 0 to 3."""
    odd = byte_mask(turns % 2 == 1)[:, None, None, None]
    images = select(odd, images.transpose(2, 3), images)
    images = flip_chosen(images, (turns == 1) | (turns == 2), dim=2)
    return flip_chosen(images, turns >= 2)


def byte_mask(chosen: Tensor) -> Tensor:
    """Return 255 where true, else 0."""
    return chosen.to(torch.uint8).neg()


def select(mask: Tensor, this: Tensor | int, other: Tensor) -> Tensor:
    """Return `this` where the byte mask is 255 and `other` where it is 0.

    On a CPU it takes a third of the time of torch.where, because bit operations are vectorized while broadcasting.
    """
    return other ^ ((this ^ other) & mask)


ERASED_AREA = (0.02, 0.4)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width
ATTEMPTS = 100  # of the authors' program for one rectangle


def draw_symmetric_rectangles(images: Tensor, probability: float) -> Rectangles:
    """Draw a rectangle for each sample, tall as often as wide.

    The logarithm of the aspect is uniform, and a side that is longer than the image's is cut to it.

    Returns:
        Rectangles; the height is 0 for samples that are not erased.
    """
    n, _, rows, columns = images.shape
    chance, area, aspect, y, x = torch.rand(5, n, device=images.device, dtype=torch.float32)
    area = within(area, *ERASED_AREA) * rows * columns
    aspect = torch.exp(within(aspect, *map(math.log, ERASED_ASPECT)))
    height = torch.sqrt(area * aspect).round().clamp(max=rows)
    width = torch.sqrt(area / aspect).round().clamp(max=columns)
    return place_rectangles(images, torch.where(chance < probability, height, 0), width, y, x)


def draw_published_rectangles(images: Tensor, probability: float) -> Rectangles:
    """Draw a rectangle for each sample as the authors' program does (github.com/zhunzhong07/Random-Erasing).

    The aspect is uniform, so that about three in four rectangles are taller than wide. Area and aspect are drawn again
    until both sides are shorter than the image's. Here all attempts are drawn at once, and the first that fits counts,
    which needs no synchronisation with a GPU. If none does, the sample is not erased: of square images of at least 4
    pixels, 14% of the attempts do not fit, so that this never happens.

    Returns:
        Rectangles; the height is 0 for samples that are not erased.
    """
    n, _, rows, columns = images.shape
    chance, y, x = torch.rand(3, n, device=images.device, dtype=torch.float32)
    area, aspect = torch.rand(2, ATTEMPTS, n, device=images.device, dtype=torch.float32)
    area = within(area, *ERASED_AREA) * rows * columns
    aspect = within(aspect, *ERASED_ASPECT)
    heights, widths = torch.sqrt(area * aspect).round(), torch.sqrt(area / aspect).round()  # (ATTEMPTS, N)
    fits = (heights < rows) & (widths < columns)
    first = fits.byte().argmax(0, keepdim=True)  # the first of equal ones
    height, width, fits = (values.gather(0, first).squeeze(0) for values in (heights, widths, fits))
    return place_rectangles(images, torch.where((chance < probability) & fits, height, 0), width, y, x)


DRAW_RECTANGLES: dict[ErasingAspect, Callable[[Tensor, float], Rectangles]] = {
    "log_uniform": draw_symmetric_rectangles,
    "uniform": draw_published_rectangles,
}


def within(draws: Tensor, low: float, high: float) -> Tensor:
    """Scale draws from 0 to 1 to a range."""
    return low + draws * (high - low)


def place_rectangles(images: Tensor, height: Tensor, width: Tensor, y: Tensor, x: Tensor) -> Rectangles:
    """Place rectangles inside the images, at any pixel with the same probability; y and x are draws from 0 to 1."""
    rows, columns = images.shape[2:]
    top = (y * (rows - height + 1)).floor()
    left = (x * (columns - width + 1)).floor()
    return top, left, height, width


def fill_rectangles(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, fill: Tensor | int
) -> Tensor:
    """Fill each sample's rectangle with one level, or with the pixels of `fill`, uint8 (N, C, H, W), at its place."""
    rows = torch.arange(images.shape[2], device=images.device)  # (H,)
    columns = torch.arange(images.shape[3], device=images.device)  # (W,)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (N, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (N, W)
    inside = byte_mask(inside_rows)[:, None, :, None] & byte_mask(inside_columns)[:, None, None, :]  # (N, 1, H, W)
    return select(inside, fill, images)


def random_bytes(like: Tensor) -> Tensor:
    """Return uniform uint8 values of this shape, drawn eight at a time."""
    words = torch.randint(-(2**63), 2**63 - 1, (-(-like.numel() // 8),), device=like.device)
    return words.view(torch.uint8)[: like.numel()].view(like.shape)
