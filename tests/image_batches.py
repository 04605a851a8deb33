"""Batches of uint8 images (N, C, H, W) for comparisons with torchvision, image by image."""

import torch


def random_images(n, channels, rows=24, columns=20):
    """Return images of noise, and among them a plain, a dark, a two-coloured and a smooth one."""
    images = torch.randint(0, 256, (n, channels, rows, columns), generator=torch.Generator().manual_seed(0))
    images[0] = 77
    images[1] //= 4
    images[2] = torch.where(images[2] < 128, 10, 240)
    images[3] = torch.arange(columns) * 9 + torch.arange(rows)[:, None]
    return images.clamp(0, 255).byte()


def greatest_difference(result, expected):
    assert (result.dtype, result.shape) == (torch.uint8, expected.shape)
    return int((result.int() - expected.int()).abs().max())
