"""Normalisation of batches of uint8 images on the training device."""

from typing import Any

import torch
from torch import Tensor, nn

from reslab.data.fitting import Fitting
from reslab.errors import UserError

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as PIL converts RGB to grey


class Preprocessing(nn.Module):
    """Normalise uint8 images (N, C, H, W) of any size to the float batch (N, channels, S, S) that the network takes.

    S is that of training while the module is in training mode, and otherwise that of evaluation. Images of S x S pixels
    are taken as they are. The result is channels_last. Grey images are normalised and then repeated to three channels,
    RGB images normalised and then reduced to grey. A network that was trained on grey images takes RGB images as the
    grey ones that Pillow makes of them, and one that was trained on RGB images takes grey ones as grey RGB.

    Args:
        mean: mean of each of the C channels, for pixel values from 0 to 1.
        std: standard deviation of each of the C channels, for pixel values from 0 to 1.
        channels: channels of the result, 1 or 3.
        fitting: how images of another size become squares in training.
        in_evaluation: likewise in evaluation, with the same interpolation and borders; None: as in training.
    """

    mean: Tensor
    std: Tensor
    fill: Tensor
    darkest: Tensor
    brightest: Tensor
    grey_weights: Tensor
    memory_format = torch.channels_last  # as the network's

    def __init__(
        self,
        *,
        mean: list[float],
        std: list[float],
        channels: int,
        fitting: Fitting,
        in_evaluation: Fitting | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.in_training, self.in_evaluation = channels, fitting, in_evaluation or fitting
        # In a buffer, so that no step waits for a copy to the GPU.
        self.register_buffer("grey_weights", torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1) * 255, persistent=False)
        levels = {"fill": fitting.fill or (0,), "darkest": (0,), "brightest": (255,)}
        for name, level in levels.items():  # as they are once normalised
            value = torch.tensor(level, dtype=torch.float32).view(1, -1, 1, 1)
            self.register_buffer(name, (value - self.mean) / self.std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        given, stored = images.shape[1], self.mean.shape[1]
        if given != stored and {given, stored} != {1, 3}:
            raise UserError(f"the network takes images of {stored} channels, and these have {given}")
        if given > stored:
            images = grey_levels(images)
        x = (images.float() - self.mean) / self.std
        fitting = self.in_training if self.training else self.in_evaluation
        x = fitting.of_batch(x, self.fill)
        if fitting.interpolation == "bicubic":  # it overshoots beside edges, which levels cannot
            x = x.clamp(self.darkest, self.brightest)
        if x.shape[1] == 1 and self.channels == 3:
            x = x.expand(-1, 3, -1, -1)
        elif x.shape[1] == 3 and self.channels == 1:
            x = (x * self.grey_weights).sum(1, keepdim=True)
        # `mean` has half precision if trainer.precision is bf16-true or 16-true.
        return x.contiguous(memory_format=self.memory_format).to(self.mean.dtype)


def grey_levels(images: Tensor) -> Tensor:
    """Return the levels that Pillow gives RGB images, uint8 (N, 3, H, W), as grey ones, int32 (N, 1, H, W)."""
    red, green, blue = (round(2**16 * weight) for weight in GREY_WEIGHTS)  # Pillow's integers
    x = images.int()
    return (x[:, :1] * red + x[:, 1:2] * green + x[:, 2:] * blue + 2**15) >> 16


def require_pixels(images: Any) -> None:
    """Raise UserError for what is no batch of stored pixels: levels from 0 to 1 would all be taken for black."""
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.ndim != 4:
        given = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UserError(
            "the classifier takes a uint8 tensor (N, C, H, W) of values from 0 to 255, as torchvision's pil_to_tensor "
            f"and v2.PILToTensor give them, and not ToTensor; this is {given.removeprefix('torch.')}"
        )
