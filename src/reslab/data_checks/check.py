"""One look at a data set: read its splits, decode every image, find the copies, and say what is wrong."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from hydra.utils import get_class, instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from reslab.configuration import to_dict
from reslab.data.base import ImageDataModule
from reslab.data.image_folder import ClassFolders
from reslab.data_checks.copies import Copies, find_copies
from reslab.data_checks.images import Images, look_at_all
from reslab.data_checks.result import Result, result_of
from reslab.errors import UserError
from reslab.options import check_made

MIN_SIDE = 32  # pixels: below, different images have the same few strokes (docs/data.md)


class Check(NamedTuple):
    """What was found.

    Attributes:
        images: the images.
        facts: FACTS (N,), of each image.
        copies: which of them are copies.
        result: all numbers, as check.json has them.
    """

    images: Images
    facts: NDArray[Any]
    copies: Copies
    result: Result


def check_data(config: DictConfig) -> Check:
    """Look at every image of a data set.

    Args:
        config: a composed conf/check_data.yaml.

    Raises:
        UserError: the data set cannot be read, or none of its images.
    """
    with collected_warnings() as warnings:
        data = build_data(config)
        for stage in ("fit", "test"):
            data.setup(stage)
    images = Images(data)
    seen = look_at_all(images)
    if not seen.facts["is_readable"].any():
        raise UserError(f"none of the {len(images):,} images of data={data.name} can be read: {seen.unreadable[0]}")
    with_near = looks_for_near(seen.facts) if config.near == "auto" else config.near
    copies = find_copies(seen.facts, images.splits, images.labels, with_near)
    return Check(images, seen.facts, copies, result_of(images, seen, copies, with_near, warnings))


def build_data(config: DictConfig) -> ImageDataModule:
    """Build the data set as train.py does, except that no image is decoded yet and none ends the look."""
    options = to_dict(config.data, resolve=True)
    if issubclass(get_class(options["_target_"]), ClassFolders):
        options |= {"in_memory": False, "on_error": "skip"}
    data: ImageDataModule = instantiate(options, seed=config.seed, _convert_="all")
    check_made("data", data, ImageDataModule)
    return data


def looks_for_near(facts: NDArray[Any]) -> bool:
    """Return whether the images are large enough for near duplicates to mean something."""
    known = facts[facts["is_readable"]]
    return bool(np.median(np.minimum(known["width"], known["height"])) >= MIN_SIDE)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Yield a list that receives the warnings about the files of the data set in the block, in place of the log."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno < logging.WARNING:
                logging.getLogger().handle(record)
            else:
                lines.append(record.getMessage())

    logger, collector = logging.getLogger("reslab.data"), Collector()
    logger.addHandler(collector)
    logger.propagate, before = False, logger.propagate
    try:
        yield lines
    finally:
        logger.removeHandler(collector)
        logger.propagate = before
