"""Reading one image file as the network takes it: the central square, or a random crop and changes for training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torchvision.transforms import v2

from reslab.data.batches import derive_seed
from reslab.data.images import center_square, read_image
from reslab.data.options import check_data

Reader = Callable[[str, int], Tensor]  # (file, seed of the random transform) -> uint8 (3, S, S)


@contextmanager
def temporary_seed(seed: int) -> Iterator[None]:
    """Seed torch's generator on the CPU inside the block, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs' generators
        yield


class ReadCenter:
    """Read the central square of an image: for evaluation, and for images that are held in memory."""

    def __init__(self, size: int, channels: int = 3, background: Sequence[int] | None = None) -> None:
        self.size, self.channels, self.background = size, channels, background

    def __call__(self, path: str, seed: int) -> Tensor:
        return center_square(read_image(path, self.channels, self.background), self.size)


class ReadRandomCrop:
    """Read a random window of at least `scale` of the image's area, resized (the crop of Inception): for training."""

    def __init__(self, size: int, scale: float, background: Sequence[int] | None = None) -> None:
        check_data({"augment.scale": scale})
        self.background = background
        self.crop = v2.RandomResizedCrop(size, scale=(scale, 1.0), antialias=True)

    def __call__(self, path: str, seed: int) -> Tensor:
        with temporary_seed(seed):
            image: Tensor = self.crop(read_image(path, 3, self.background))
        return image


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
