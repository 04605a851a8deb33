"""What happens to a batch on the training device: augmentation of uint8 images, then normalisation to float."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Augmentation(nn.Module):
    """Random crop, flip and erasing, drawn for each sample, on a whole uint8 batch (N, C, H, W)."""

    def __init__(self, *, crop: int, flip: bool, erasing: float) -> None:
        """crop: pixels of zero padding around the image before an image-sized window is cut (He et al. 2015, 4.2).
        erasing: probability that a rectangle is filled with random values (arXiv:1708.04896, algorithm 1)."""
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
    """Pad with zeros, then cut sample i's window at (top[i], left[i]); offsets in [0, 2 * padding]."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows, columns = padded.shape[2:]
    runs = padded.flatten().unfold(0, width, 1)  # every `width` bytes in a row, a view
    device = images.device
    corners = torch.arange(n * channels, device=device).view(n, channels, 1) * (rows * columns)
    corners = corners + (top * columns + left)[:, None, None]
    first = corners + torch.arange(height, device=device) * columns  # (N, C, H): where each row of a window begins
    return runs.index_select(0, first.flatten()).view(images.shape)


def flip_chosen(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the samples where chosen (N,) is true."""
    return choose(byte_mask(chosen)[:, None, None, None], images.flip(3), images)


def byte_mask(chosen: Tensor) -> Tensor:
    """255 where true, else 0."""
    return chosen.to(torch.uint8).neg()


def choose(mask: Tensor, this: Tensor, other: Tensor) -> Tensor:
    """torch.where for bytes, by their bits: a third of its time on a CPU, as it broadcasts vectorized."""
    return other ^ ((this ^ other) & mask)


ERASED_AREA = (0.02, 0.4)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height / width, drawn log-uniformly


def draw_rectangles(images: Tensor, probability: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """top, left, height, width (N,) in pixels; height 0 where a sample is left alone.

    A rectangle that would not fit is clamped to the image, where the paper draws again.
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
    """Fill each sample's rectangle with random values."""
    rows = torch.arange(images.shape[2], device=images.device)  # (H,)
    columns = torch.arange(images.shape[3], device=images.device)  # (W,)
    inside_rows = (rows >= top[:, None]) & (rows < (top + height)[:, None])  # (N, H)
    inside_columns = (columns >= left[:, None]) & (columns < (left + width)[:, None])  # (N, W)
    inside = byte_mask(inside_rows)[:, None, :, None] & byte_mask(inside_columns)[:, None, None, :]  # (N, 1, H, W)
    return choose(inside, random_bytes(images), images)


def random_bytes(like: Tensor) -> Tensor:
    """Uniform uint8 values, drawn eight at a time."""
    words = torch.randint(-(2**63), 2**63 - 1, (-(-like.numel() // 8),), device=like.device)
    return words.view(torch.uint8)[: like.numel()].view(like.shape)


GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL converts RGB to grey


class Preprocessing(nn.Module):
    """uint8 images (N, C, H, W) of any size to the normalised float batch (N, channels, S, S) that the network takes.

    The statistics belong to the images' own channels; grey is then repeated to three channels, RGB reduced to grey.
    """

    mean: Tensor
    std: Tensor
    memory_format = torch.channels_last  # the network's too

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
        return x.contiguous(memory_format=self.memory_format).to(self.mean.dtype)  # half under precision=bf16-true
