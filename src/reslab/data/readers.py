"""Reading one image file as the network takes it: the square of an evaluation, or a random crop for training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from reslab.data.batches import derive_seed
from reslab.data.fitting import Fitting
from reslab.data.images import load_image
from reslab.data.options import check_data

Reader = Callable[[str, int], Tensor]  # (file, seed of the random transform) -> uint8 (3, S, S)


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's generator on the CPU inside the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs' generators
        yield


class ReadSquare:
    """Read an image as a square, without anything random: for evaluation, and for images that are held in memory."""

    def __init__(self, fitting: Fitting, channels: int = 3, background: Sequence[int] | None = None) -> None:
        self.fitting, self.channels, self.background = fitting, channels, background

    def __call__(self, path: str, seed: int) -> Tensor:
        return self.fitting.of_file(load_image(path, self.channels, self.background))


class ReadRandomCrop:
    """Read a random window of at least `scale` of the image's area, resized (the crop of Inception): for training.

    With `fit` "pad" or "squash", the window is one of the square that the image becomes.
    """

    def __init__(self, fitting: Fitting, scale: float, background: Sequence[int] | None = None) -> None:
        check_data({"augment.scale": scale})
        self.fitting, self.background = fitting, background
        interpolation = v2.InterpolationMode(fitting.interpolation)
        self.crop = v2.RandomResizedCrop(fitting.size, scale=(scale, 1.0), interpolation=interpolation, antialias=True)

    def __call__(self, path: str, seed: int) -> Tensor:
        image = self.fitting.square_of_longer_side(load_image(path, 3, self.background))
        with temporary_seed(seed):
            if self.fitting.by_pillow:
                return functional.pil_to_tensor(self.crop(image))
            cropped: Tensor = self.crop(functional.pil_to_tensor(image))
        return cropped


class ReadRandAugment:
    """Read with `read`, then apply two random changes of this magnitude (RandAugment, arXiv:1909.13719)."""

    def __init__(self, read: Reader, magnitude: int) -> None:
        check_data({"augment.randaugment": magnitude})
        self.read = read
        self.change = v2.RandAugment(2, magnitude, interpolation=v2.InterpolationMode.BILINEAR)

    def __call__(self, path: str, seed: int) -> Tensor:
        image = self.read(path, seed)
        with temporary_seed(derive_seed(seed, 1)):  # another seed than that of `read`
            changed: Tensor = self.change(image)
        return changed
