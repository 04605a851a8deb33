"""The work on a batch on the training device: augmentation of uint8 images, then normalisation to float."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reslab.data.options import check_data


class Augmentation(nn.Module):
    """Random crop, flip and erasing of a uint8 batch (N, C, H, W), drawn for each sample.

    It draws from the global generator of the images' device.

    Args:
        crop: pixels of zero padding on each side, from which a window of the image's size is cut (He et al. 2015,
            section 4.2); 0 is off.
        flip: mirror half of the images, left to right.
        erasing: probability that a rectangle is filled with random values (arXiv:1708.04896, algorithm 1).

    Raises:
        UserError: an argument has a value that its option, `data.augment.<argument>`, may not take.
    """

    def __init__(self, *, crop: int, flip: bool, erasing: float) -> None:
        check_data({"augment.crop": crop, "augment.flip": flip, "augment.erasing": erasing})
        super().__init__()
        self.crop, self.flip, self.erasing = crop, flip, erasing

    def forward(self, images: Tensor) -> Tensor:
        n, device = len(images), images.device
        if self.crop:
            offsets = torch.randint(0, 2 * self.crop + 1, (2, n), device=device)
            images = crop_windows(images, self.crop, offsets[0], offsets[1])
        if self.flip:
            images = flip_chosen(images, torch.rand(n, device=device) < 0.5)
        if self.erasing:
            images = erase_rectangles(images, *draw_rectangles(images, self.erasing))
        return images


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


def flip_chosen(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the samples for which `chosen` (N,) is true, left to right."""
    return select(byte_mask(chosen)[:, None, None, None], images.flip(3), images)


def byte_mask(chosen: Tensor) -> Tensor:
    """Return 255 where true, else 0."""
    return chosen.to(torch.uint8).neg()


def select(mask: Tensor, this: Tensor, other: Tensor) -> Tensor:
    """Return `this` where the byte mask is 255 and `other` where it is 0.

    On a CPU it takes a third of the time of torch.where, because bit operations are vectorized while broadcasting.
    """
    return other ^ ((this ^ other) & mask)


ERASED_AREA = (0.02, 0.4)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width, drawn log-uniformly


def draw_rectangles(images: Tensor, probability: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a rectangle for each sample (arXiv:1708.04896, algorithm 1).

    A rectangle that does not fit is clamped to the image, where the paper draws again.

    Returns:
        top, left, height and width (N,) in pixels; the height is 0 for samples that are not erased.
    """
    n, _, rows, columns = images.shape
    chance, area, aspect, y, x = torch.rand(5, n, device=images.device)
    area = (ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])) * rows * columns
    low, high = math.log(ERASED_ASPECT[0]), math.log(ERASED_ASPECT[1])
    aspect = torch.exp(low + aspect * (high - low))
    height = torch.sqrt(area * aspect).round().clamp(max=rows)
    width = torch.sqrt(area / aspect).round().clamp(max=columns)
    top = (y * (rows - height + 1)).floor()
    left = (x * (columns - width + 1)).floor()
    return top, left, torch.where(chance < probability, height, 0), width


def erase_rectangles(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Fill each sample's rectangle, given in pixels (N,), with random values."""
    rows = torch.arange(images.shape[2], device=images.device)  # (H,)
    columns = torch.arange(images.shape[3], device=images.device)  # (W,)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (N, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (N, W)
    inside = byte_mask(inside_rows)[:, None, :, None] & byte_mask(inside_columns)[:, None, None, :]  # (N, 1, H, W)
    return select(inside, random_bytes(images), images)


def random_bytes(like: Tensor) -> Tensor:
    """Return uniform uint8 values of this shape, drawn eight at a time."""
    words = torch.randint(-(2**63), 2**63 - 1, (-(-like.numel() // 8),), device=like.device)
    return words.view(torch.uint8)[: like.numel()].view(like.shape)


GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL converts RGB to grey


class Preprocessing(nn.Module):
    """Normalise uint8 images (N, C, H, W) of any size to the float batch (N, channels, S, S) that the network takes.

    The result is channels_last. Grey images are normalised and then repeated to three channels, RGB images normalised
    and then reduced to grey.

    Args:
        mean: mean of each of the C channels, for pixel values from 0 to 1.
        std: standard deviation of each of the C channels, for pixel values from 0 to 1.
        channels: channels of the result, 1 or 3.
        image_size: S in pixels; images of another size are resized.
    """

    mean: Tensor
    std: Tensor
    memory_format = torch.channels_last  # as the network's

    def __init__(self, *, mean: list[float], std: list[float], channels: int, image_size: int) -> None:
        super().__init__()
        self.channels, self.image_size = channels, image_size
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        if x.shape[2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        if x.shape[1] == 1 and self.channels == 3:
            x = x.expand(-1, 3, -1, -1)
        elif x.shape[1] == 3 and self.channels == 1:
            x = (x * x.new_tensor(GREY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True)
        # `mean` has half precision if trainer.precision is bf16-true or 16-true.
        return x.contiguous(memory_format=self.memory_format).to(self.mean.dtype)
