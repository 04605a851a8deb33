"""Test-time augmentation: the copies of an image whose logits an evaluation averages."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional

from reslab.training.options import View

SHIFT = 1  # pixels, as in the test-time augmentation of Jordan 2024 (arXiv:2404.00498)


@dataclass(frozen=True)
class Views:
    """The copies of an image that a network looks at in evaluation.

    Of several kinds, each copy of one is taken of each copy of the others: `flip` with `crop` gives the ten crops of
    Krizhevsky et al. 2012, section 4.1.

    Args:
        flip: the image and its mirror image.
        shifts: the image, and the image moved by a pixel in each of the eight directions. Zeros move in at the border,
            as in the random crop of training.
        crop: the side of five squares, in pixels, which are cut out of the corners and the middle of the preprocessed
            image; None: the preprocessed image itself.
    """

    flip: bool = False
    shifts: bool = False
    crop: int | None = None

    @property
    def names(self) -> list[View]:
        """The kinds of copies, as the option `views` calls them."""
        chosen: dict[View, bool] = {"flip": self.flip, "shifts": self.shifts, "crops": self.crop is not None}
        return [name for name, is_chosen in chosen.items() if is_chosen]

    def mean_logits(
        self, images: Tensor, preprocess: Callable[[Tensor], Tensor], network: Callable[[Tensor], Tensor]
    ) -> Tensor:  # uint8 (N, C, H, W) -> float32 (N, num_classes)
        """Return the mean of the logits of all copies of each image."""
        total, *others = (network(x).float() for x in self.copies(images, preprocess))
        for logits in others:
            total = total + logits
        return total / (1 + len(others)) if others else total

    def copies(self, images: Tensor, preprocess: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        """Yield the copies of a batch as the network takes them, float (N, channels, S, S)."""
        for mirrored in (images, images.flip(3)) if self.flip else (images,):
            for moved in shifted(mirrored) if self.shifts else (mirrored,):
                x = preprocess(moved)
                yield from five_crops(x, self.crop) if self.crop else (x,)


def shifted(images: Tensor) -> Iterator[Tensor]:
    """Yield images, uint8 (N, C, H, W), as they are and moved by `SHIFT` pixels in each of the eight directions."""
    height, width = images.shape[2:]
    padded = F.pad(images, (SHIFT,) * 4)
    yield images
    for top in (0, SHIFT, 2 * SHIFT):
        for left in (0, SHIFT, 2 * SHIFT):
            if (top, left) != (SHIFT, SHIFT):
                yield padded[:, :, top : top + height, left : left + width]


def five_crops(x: Tensor, side: int) -> Iterator[Tensor]:
    """Yield the squares in the corners and in the middle of images, float (N, C, S, S), as channels_last."""
    for crop in functional.five_crop(x, [side, side]):
        yield crop.contiguous(memory_format=torch.channels_last)
