"""Affine maps and resized crops of uint8 batches (N, C, H, W), for each sample by parameters of its own.

Each does to every image what torchvision's function (transforms.v2.functional, bilinear) does to one. Where numbers are
rounded to levels, the float32 of a batch may fall on the other side, so that a pixel differs by one level.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Rectangles = tuple[Tensor, Tensor, Tensor, Tensor]  # top, left, height and width of N rectangles, (N,) in pixels
SCALE_ASPECT = (3 / 4, 4 / 3)  # of width to height, torchvision's
CROP_ATTEMPTS = 10  # of torchvision's RandomResizedCrop


def warp(images: Tensor, rows: tuple[Tensor, Tensor, Tensor], columns: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Sample each image at affine functions of the pixels' places; black surrounds it.

    Args:
        images: uint8 (N, C, H, W).
        rows: the coefficients of x and y and the constant, each (N,), that give the row to sample. Places are pixels
            from the centre of the image.
        columns: likewise, of the column to sample.
    """
    height, width = images.shape[2:]
    x = torch.arange(width, dtype=torch.float32, device=images.device) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float32, device=images.device)[:, None] - (height - 1) / 2
    across, down = (
        of_x.view(-1, 1, 1) * x + of_y.view(-1, 1, 1) * y + constant.view(-1, 1, 1)
        for of_x, of_y, constant in (columns, rows)
    )  # (N, H, W)
    grid = torch.stack((across / (0.5 * width), down / (0.5 * height)), dim=3)
    return sample(images, grid, "zeros")


def resize_windows(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Cut a rectangle out of each image and enlarge it to the image's size. Parameters are (N,), in pixels."""
    places = []
    for size, first, length in ((images.shape[3], left, width), (images.shape[2], top, height)):
        first, length = first[:, None], length[:, None]
        within = (torch.arange(size, dtype=torch.float32, device=images.device) + 0.5) * length / size - 0.5
        within = within.minimum(length - 1).clamp_(min=0)  # nothing outside of the rectangle counts
        places.append((2 * (first + within) + 1) / size - 1)  # (N, size), from -1 to 1
    across, down = torch.broadcast_tensors(places[0][:, None, :], places[1][:, :, None])  # (N, H, W)
    return sample(images, torch.stack((across, down), dim=3), "border")


def sample(images: Tensor, grid: Tensor, outside: str) -> Tensor:
    sampled = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode=outside, align_corners=False)
    return sampled.round_().to(torch.uint8)


def draw_windows(images: Tensor, least_area: float, aspect: tuple[float, float]) -> Rectangles:
    """Draw a rectangle inside of each image as torchvision's RandomResizedCrop does.

    Its area is uniform from `least_area` to 1, a fraction of the image's, and the logarithm of its width / height is
    uniform in a range. All attempts are drawn at once, and the first that fits into the image counts.
    """
    n, _, rows, columns = images.shape
    area, ratio = torch.rand(2, CROP_ATTEMPTS, n, dtype=torch.float32, device=images.device)
    area = (least_area + area * (1 - least_area)) * rows * columns
    low, high = map(math.log, aspect)
    ratio = torch.exp(low + ratio * (high - low))
    widths, heights = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()  # (CROP_ATTEMPTS, N)
    fits = (widths > 0) & (widths <= columns) & (heights > 0) & (heights <= rows)
    first = fits.byte().argmax(0, keepdim=True)
    height, width, fits = (values.gather(0, first).squeeze(0) for values in (heights, widths, fits))
    y, x = torch.rand(2, n, dtype=torch.float32, device=images.device)
    top, left = (y * (rows - height + 1)).floor(), (x * (columns - width + 1)).floor()
    drawn = zip((top, left, height, width), central(rows, columns, aspect), strict=True)
    top, left, height, width = (torch.where(fits, value, otherwise) for value, otherwise in drawn)
    return top, left, height, width


def central(rows: int, columns: int, aspect: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return the largest rectangle in the centre whose width / height is in a range: top, left, height, width."""
    height = min(rows, round(columns / min(aspect)))
    width = min(columns, round(rows * max(aspect)))
    return (rows - height) // 2, (columns - width) // 2, height, width
