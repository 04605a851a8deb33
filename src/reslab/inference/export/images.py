"""The images with which an exported file is compared: pixels as `predict` reads them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms.v2 import functional

from reslab.data.batches import FolderImages
from reslab.data.fitting import Fitting
from reslab.data.image_folder import ClassFolders
from reslab.data.splits import Split
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.inference.options import EVALUATE_SCHEMA
from reslab.inference.test_data import TestData, build_test_data, read_own_data

NOISE_IMAGES = 64


def own_data(checkpoint: Path, root: str | None) -> DictConfig:
    """Return the options of evaluate for a run's own data set, in the folder `root` if it has moved."""
    return EVALUATE_SCHEMA.compose({"checkpoint": checkpoint, "root": root})


def own_test_data(trained: Trained, config: DictConfig, limit: int | None, checkpoint: Path) -> TestData:
    """Read the test images of a run's own data set.

    Args:
        trained: the network and the configuration of its run.
        config: what `own_data` returns.
        limit: how many images, spread evenly over all of them; None for all.
        checkpoint: the file of the network, for messages.

    Raises:
        UserError: there are none; the message says how to do without.
    """
    try:
        tested = build_test_data(trained, config, checkpoint)
    except UserError as error:
        raise UserError(f"{error}; without the test images, verify=false compares the file on random pixels") from error
    split = tested.data.splits["test"]
    assert split is not None
    if limit is not None and limit < len(split):
        tested.data.splits["test"] = split.subset(torch.arange(limit) * len(split) // limit)
    return tested


def pixel_batches(tested: TestData, fitting: Fitting) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the squares of images, uint8 (N, H, W, C), and their labels, int64 (N,).

    Images that a data set has in memory in another size are resized as if they were files.
    """
    for batch in tested.data.test_dataloader():
        images, labels = batch[:2]
        if images.shape[2:] != (fitting.size, fitting.size):
            images = torch.stack([fitting.of_file(functional.to_pil_image(image)) for image in images])
        yield images.permute(0, 2, 3, 1).contiguous(), labels


def calibration_batches(trained: Trained, config: DictConfig, count: int) -> list[Tensor]:
    """Read training images of a run's own data set, as they would be read for a prediction.

    Args:
        trained: the network and the configuration of its run.
        config: what `own_data` returns.
        count: how many images, spread evenly over all of them.

    Returns:
        Batches of uint8 images (N, H, W, C).
    """
    data = read_own_data(trained, config)
    split = data.splits["train"]
    assert split is not None
    count = min(count, len(split))
    split = split.subset(torch.arange(count) * len(split) // count)
    if isinstance(split.images, FolderImages):
        assert isinstance(data, ClassFolders)
        images = FolderImages(split.images.paths, split.labels, data.reader("test"), "skip")
        split = Split(images, split.labels, split.indices)
    data.splits["test"] = split
    return [images for images, _ in pixel_batches(TestData(data, len(split), {}), trained.spec.fitting(training=False))]


def noise(shape: tuple[int, int, int]) -> Iterator[tuple[Tensor, None]]:
    """Yield a batch of random pixels, uint8 (N, *shape), the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    yield torch.randint(0, 256, (NOISE_IMAGES, *shape), dtype=torch.uint8, generator=generator), None
