"""Normalisation of batches of uint8 images on the training device."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    grey_weights: Tensor
    memory_format = torch.channels_last  # as the network's

    def __init__(self, *, mean: list[float], std: list[float], channels: int, image_size: int) -> None:
        super().__init__()
        self.channels, self.image_size = channels, image_size
        # In a buffer, so that no step waits for a copy to the GPU.
        self.register_buffer("grey_weights", torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = (images.float() - self.mean) / self.std
        if x.shape[2:] != (self.image_size, self.image_size):
            x = F.interpolate(x, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        if x.shape[1] == 1 and self.channels == 3:
            x = x.expand(-1, 3, -1, -1)
        elif x.shape[1] == 3 and self.channels == 1:
            x = (x * self.grey_weights).sum(1, keepdim=True)
        # `mean` has half precision if trainer.precision is bf16-true or 16-true.
        return x.contiguous(memory_format=self.memory_format).to(self.mean.dtype)
