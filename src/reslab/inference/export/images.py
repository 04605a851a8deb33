"""The images with which an exported file is compared: pixels as `predict` reads them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchvision.transforms.v2 import functional

from reslab.data.base import ImageDataModule
from reslab.data.batches import FolderImages
from reslab.data.fitting import Fitting
from reslab.data.readers import ReadSquare
from reslab.data.splits import Split
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.inference.test_data import (
    TestData,
    advice_for_own_data,
    build_test_data,
    data_options,
    folder_of_own_data,
)

NOISE_IMAGES = 64


def own_test_data(trained: Trained, root: str | None, limit: int | None, checkpoint: Path) -> TestData:
    """Read the test images of a run's own data set.

    Args:
        trained: the network and the configuration of its run.
        root: the folder of the data set, if it has moved.
        limit: how many images, spread evenly over all of them; None for all.
        checkpoint: the file of the network, for messages.

    Raises:
        UserError: there are none; the message says how to do without.
    """
    try:
        tested = build_test_data(trained, own_data_options(root), checkpoint)
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


def calibration_batches(trained: Trained, root: str | None, count: int) -> list[Tensor]:
    """Read training images of a run's own data set, as they would be read for a prediction.

    Args:
        trained: the network and the configuration of its run.
        root: the folder of the data set, if it has moved.
        count: how many images, spread evenly over all of them.

    Returns:
        Batches of uint8 images (N, H, W, C).
    """
    config, fitting = own_data_options(root), trained.spec.fitting(training=False)
    options = data_options(trained, config, folder_of_own_data(trained, config))
    with advice_for_own_data(True):
        data: ImageDataModule = instantiate(options, seed=trained.config.seed, _convert_="all")
        data.setup("fit")
    split = data.splits["train"]
    assert split is not None
    count = min(count, len(split))
    split = split.subset(torch.arange(count) * len(split) // count)
    if isinstance(split.images, FolderImages):
        read = ReadSquare(fitting, len(trained.spec.mean), trained.background)
        split = Split(FolderImages(split.images.paths, split.labels, read, "skip"), split.labels, split.indices)
    data.splits["test"] = split
    return [images for images, _ in pixel_batches(TestData(data, len(split), {}), fitting)]


def own_data_options(root: str | None) -> DictConfig:
    """Return the options of evaluate for a run's own data set, as far as its images depend on them."""
    config = OmegaConf.create(
        {"data": {"root": None, "test_fraction": None}, "root": root, "unknown_classes": "refuse"}
    )
    assert isinstance(config, DictConfig)
    return config


def noise(shape: tuple[int, int, int]) -> Iterator[tuple[Tensor, None]]:
    """Yield a batch of random pixels, uint8 (N, *shape), the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    yield torch.randint(0, 256, (NOISE_IMAGES, *shape), dtype=torch.uint8, generator=generator), None
