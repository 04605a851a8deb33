"""The pixels of the images that the page shows: read again from the run's own data set."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from hydra.utils import get_class, instantiate
from PIL import Image
from torch import Tensor

from reslab.configuration import to_dict
from reslab.data.base import ImageDataModule
from reslab.data.image_folder import ClassFolders
from reslab.data.thumbnails import SIDE, picture_of, thumbnail
from reslab.errors import UserError
from reslab.inference.loading import recorded_options
from reslab.run import Run
from reslab.training.answers import Answers
from reslab.training.checkpoints import read_checkpoint

Source = Tensor | str  # uint8 (C, H, W), or the path of a file


class Sources(NamedTuple):
    """Images of the test.

    Attributes:
        images: by their positions in the answers, without files that are missing.
        background: of their transparent parts.
    """

    images: dict[int, Source]
    background: Sequence[int] | None


def read_sources(run: Run, answers: Answers, positions: Sequence[int], root: str | None = None) -> Sources:
    """Find images of the test in the run's own data set again, in the folder `root` if it has moved.

    Nothing is downloaded. The configuration of the run may come from a stranger: see `recorded_options`.

    Raises:
        UserError: the data set is not there any more, or it has other images.
    """
    checkpoint = read_checkpoint(run.chosen_checkpoint()[0])
    return sources_in(test_data(run, checkpoint, root), answers, positions)


def sources_in(data: ImageDataModule, answers: Answers, positions: Sequence[int]) -> Sources:
    """Find images of a test in a data set whose test split has been read: see `read_sources`."""
    split = data.splits["test"]
    if split is None:
        raise UserError(f"data={data.name} has no test images in {data.root} any more")
    sources: dict[int, Source] = {}
    if answers.files is not None:
        if split.files is None:
            raise UserError(f"data={data.name} does not consist of files any more")
        prefix = f"{data.root}{os.sep}"
        path_of = {path.removeprefix(prefix): path for path in split.paths}
        sources = {each: path_of[answers.files[each]] for each in positions if answers.files[each] in path_of}
        if positions and not sources:
            raise UserError(f"none of the images is in {data.root} any more")
    else:
        indices, labels = answers.indices, answers.labels
        if not isinstance(split.images, Tensor):
            raise UserError(f"data={data.name} consists of files now")
        known = len(split.labels)
        if (len(indices) and int(indices.max()) >= known) or not torch.equal(split.labels[indices], labels):
            raise UserError(f"data={data.name} has other images in {data.root} now")
        sources = {each: split.images[int(indices[each])] for each in positions}
    return Sources(sources, data.background)


def pictures_of(sources: Sources) -> dict[int, Image.Image]:
    """Return small pictures of images by their positions, without files that cannot be read."""
    found = {position: picture_of(source, sources.background) for position, source in sources.images.items()}
    return {
        position: thumbnail(picture) if max(picture.size) > SIDE else picture
        for position, picture in found.items()
        if picture is not None
    }


def test_data(run: Run, checkpoint: Mapping[str, Any], root: str | None) -> ImageDataModule:
    """Read the test images of a run again, without decoding files. Raises UserError where that is not possible.

    Args:
        run: the run.
        checkpoint: the content of the checkpoint that `run.chosen_checkpoint` names.
        root: the folder of its data set, if it has moved.
    """
    config = recorded_options(run.chosen_checkpoint()[0], checkpoint["reslab"]["config"], run.config_dir)
    options = to_dict(config.data, resolve=True) | ({} if root is None else {"root": root})
    if issubclass(get_class(options["_target_"]), ClassFolders):
        options["in_memory"] = False
    with quiet("reslab.data"):
        data: ImageDataModule = instantiate(options, seed=config.seed, _convert_="all")
        data.download = lambda: refuse_download(data)  # type: ignore[method-assign]
        data.setup("test")
    return data


def refuse_download(data: ImageDataModule) -> None:
    raise FileNotFoundError(f"its files are not in {data.root}")


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Log no warnings of these modules: the training has said them."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def reason_of(error: Exception) -> str:
    """Return why something could not be read, as part of a line."""
    reason: Any = error if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(str(reason).split())
