"""Reading one image file as the network takes it: the square of an evaluation, or a random crop for training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from reslab.data.auto_augment import RANDAUGMENT_OPERATIONS
from reslab.data.batches import derive_seed
from reslab.data.fitting import Fitting
from reslab.data.images import load_image
from reslab.data.options import check_data
from reslab.data.warps import SCALE_ASPECT

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

    With `fit` "pad" or "squash", the window is one of the square that the image becomes. `aspect` is the range of the
    window's width / height.
    """

    def __init__(
        self,
        fitting: Fitting,
        scale: float,
        aspect: Sequence[float] = SCALE_ASPECT,
        background: Sequence[int] | None = None,
    ) -> None:
        check_data({"augment.scale": scale, "augment.scale_aspect": aspect})
        self.fitting, self.background = fitting, background
        interpolation = v2.InterpolationMode(fitting.interpolation)
        self.crop = v2.RandomResizedCrop(
            fitting.size, scale=(scale, 1.0), ratio=tuple(aspect), interpolation=interpolation, antialias=True
        )

    def __call__(self, path: str, seed: int) -> Tensor:
        image = self.fitting.square_of_longer_side(load_image(path, 3, self.background))
        with temporary_seed(seed):
            if self.fitting.by_pillow:
                return functional.pil_to_tensor(self.cropped(image))
            return self.cropped(functional.pil_to_tensor(image))

    def cropped(self, image):  # type: ignore[no-untyped-def]  # an image of Pillow or a tensor (C, H, W)
        """Return what `crop(image)` would, which takes half as long again to find the image among its arguments."""
        return self.crop.transform(image, self.crop.make_params([image]))


class ReadChanged:
    """Read with `read`, then apply a random transform of torchvision's.

    Args:
        read: the reader.
        change: the transform.
        number: another one gives the transform another seed; that of `read` is 0.
    """

    def __init__(self, read: Reader, change: v2.Transform, number: int) -> None:
        self.read, self.change, self.number = read, change, number

    def __call__(self, path: str, seed: int) -> Tensor:
        image = self.read(path, seed)
        with temporary_seed(derive_seed(seed, self.number)):
            changed: Tensor = self.change(image)
        return changed


def read_with_randaugment(read: Reader, magnitude: int) -> ReadChanged:
    """Read, then apply two random operations of this magnitude (RandAugment, arXiv:1909.13719)."""
    check_data({"augment.randaugment": magnitude})
    change = v2.RandAugment(RANDAUGMENT_OPERATIONS, magnitude, interpolation=v2.InterpolationMode.BILINEAR)
    return ReadChanged(read, change, 1)


def read_with_trivial_augment(read: Reader) -> ReadChanged:
    """Read, then apply one random operation of random magnitude (TrivialAugment, arXiv:2103.10158)."""
    return ReadChanged(read, v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR), 2)
