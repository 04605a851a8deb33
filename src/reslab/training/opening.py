"""The lines with which a run says what it trains, each as soon as it is known."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from torch import Tensor

from reslab.configuration import task_overrides
from reslab.data.base import ImageDataModule
from reslab.data.duplicates import shared_images
from reslab.data.spec import ImageSpec
from reslab.data.splits import SPLIT_WORDS, file_keys
from reslab.data.training_files import RECORD, trained_files
from reslab.errors import UserError
from reslab.machine import command
from reslab.models.weights import OF_TORCHVISION
from reslab.newest import located
from reslab.run import Run
from reslab.text import for_shell, printable
from reslab.training.checkpoints import read_checkpoint

OTHER_LEVELS = 0.05  # of pixels from 0 to 1: the means of other divisions of one data set differ by less
PRECISIONS = {"32-true": "fp32", "16-true": "fp16", "bf16-true": "bf16", "64-true": "fp64"}


def opening_level() -> int:
    """Return the level of these lines: the jobs of a sweep write them into their log files only."""
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return logging.DEBUG if in_sweep else logging.INFO


def data_line(data: ImageDataModule) -> str:
    """Return how many images and classes a data set has."""
    counts = [f"{len(split):,} {SPLIT_WORDS[name]}" for name, split in data.splits.items() if split is not None]
    return f"{', '.join(counts)} images, {len(data.classes):,} classes"


def shared_line(data: ImageDataModule) -> str | None:
    """Return how many test images the run trains or validates on; None if none was found."""
    shared = shared_images(data.splits)
    if not shared or not shared.copies:
        return None
    least = "at least " * shared.is_sample
    return (
        f"{least}{shared.copies:,} of the {shared.tests:,} test images are also training or validation images; "
        f"this lists them: {command('check_data', *split_options(data))}"
    )


def split_options(data: ImageDataModule) -> list[str]:
    """Return the options of the command line that choose the data set and its splits."""
    if not HydraConfig.initialized():
        return [f"data={data.name}", f"data.root={data.root}"]
    choice = HydraConfig.get().runtime.choices.get("data", data.name)
    return [f"data={choice}", *(each for each in task_overrides() if each.startswith(("data.", "seed=")))]


def freeze_line(model: DictConfig) -> str | None:
    """Return that random weights are frozen; None where they are not, or may have come from the user's own class."""
    has_weights = model.weights is not None or model.get("pretrained") or not model["_target_"].startswith("reslab.")
    if model.freeze is False or has_weights:
        return None
    given, alone = ("true", "alone") if model.freeze is True else (model.freeze, "alone at first")
    return f"model.freeze={given} without model.weights: the last layer trains {alone}, on random features"


def weights_lines(config: DictConfig, data: ImageDataModule, checksum: str) -> Iterator[str]:
    """Yield what the weights that a run begins with do not fit, if they are those of a run of ResLab.

    Args:
        config: the configuration of a new run.
        data: its data.
        checksum: of the data.
    """
    if (record := record_of(config.model.weights)) is None:
        return
    begin = f"model.weights={config.model.weights}"
    if known := images_line(record, config, data, checksum):
        yield f"{begin} was trained on {known}"
    with suppress(KeyError, TypeError, ValueError):  # the record is not one of ResLab
        spec = ImageSpec(**record["spec"])
        classes, own = list(map(str, spec.classes)), list(map(str, data.classes))
        if len(classes) == len(own) and classes != own:
            wrong = next(number for number, (a, b) in enumerate(zip(classes, own, strict=True)) if a != b)
            yield (
                f"{begin} was trained on other classes, or on these in another order: the classifier of "
                f"{printable(own[wrong])} begins with the weights of {printable(classes[wrong])}"
            )
        before, now = [*spec.mean, *spec.std], [*data.spec.mean, *data.spec.std]
        if len(before) == len(now) and max(abs(a - b) for a, b in zip(before, now, strict=True)) > OTHER_LEVELS:
            mean, std = ([round(value, 4) for value in values] for values in (spec.mean, spec.std))
            same = for_shell(f"data.mean={mean}".replace(" ", "")), for_shell(f"data.std={std}".replace(" ", ""))
            yield f"{begin} was trained on images with another normalization: {' '.join(same)} is the same one"


def images_line(record: dict[str, Any], config: DictConfig, data: ImageDataModule, checksum: str) -> str | None:
    """Return which images the run validates or tests on, although the weights that it begins with were trained on them.

    Returns:
        None if there are none, or if the weights are not those of a run on the same data.
    """
    other, files = record["config"]["data"], record.get("training_files")
    root = other.get("root")  # None: a shared network does not say where its data were
    is_same_place = root is not None and Path(root).resolve() == data.root.resolve()
    if other.get("name") != data.name or not (is_same_place or root is None or files is not None):
        return None
    if files is not None:
        if "validation_files" not in record:  # an older version, which does not say what it only validated on
            return None
        known = " and ".join(known_images(data, trained_files(files, record["validation_files"])))
        if known and not is_same_place:
            known += f", if the files of the same names in {data.root} are the same images"
    elif record.get("origin", {}).get("data_checksum") != checksum:
        words = [SPLIT_WORDS["val"]] if data.splits["val"] and not data.validate_on_test else []
        if data.fold_split == "test" and any(other.get(name) != config.data[name] for name in ("folds", "fold")):
            words.append(SPLIT_WORDS["test"])
        some = "images of another division of the data set, so probably on some of the"
        known = f"{some} {' and '.join(words)} images" if words else ""
    else:
        known = ""
    return known or None


def record_of(weights: str | None) -> dict[str, Any] | None:
    """Return the record of the checkpoint that `model.weights` stands for; None if it is not one of ResLab."""
    if weights is None or weights.startswith(OF_TORCHVISION):
        return None
    with suppress(UserError):
        path = located(weights)
        checkpoint = Path(path) if os.path.isfile(path) else Run(path).chosen_checkpoint()[0]
        record: dict[str, Any] = read_checkpoint(checkpoint)["reslab"]
        return record
    return None


def known_images(data: ImageDataModule, trained: Tensor) -> Iterator[str]:
    """Yield how many of the validation and of the test images are among the files that a run was trained on."""
    test = file_keys(data.test_files, data.root, RECORD) if data.test_files else None
    for word, keys in ((SPLIT_WORDS["val"], data.validation_files()), (SPLIT_WORDS["test"], test)):
        if keys is not None and (count := int(torch.isin(keys, trained).sum())):
            yield f"{count:,} of the {len(keys):,} {word} images"


def network_line(origin: dict[str, Any], spec: ImageSpec, processes: int) -> str:
    """Return the network's size, the shape of its images, and what computes it.

    Args:
        origin: what `provenance` returns.
        spec: of the images.
        processes: the number of processes that train together.
    """
    device = f"CPU, {threads_of(origin['threads'])}" if origin["device"] == "cpu" else origin["device"]
    several = f"{processes} x " if processes > 1 else ""
    precision = PRECISIONS.get(origin["precision"], origin["precision"])
    shape = f"{spec.channels}x{spec.image_size}x{spec.image_size}"
    size = spec.size_in_evaluation
    other = "" if size == spec.image_size else f" ({size}x{size} in evaluation)"
    return f"{millions(origin['parameters'])} parameters, {shape} images{other}; {several}{device}, {precision}"


def loss_line(loss: str, class_weights: Sequence[float] | None) -> str | None:
    """Return what the losses of a run are, where training minimizes another one than validation measures."""
    if loss == "cross_entropy" and class_weights is None:
        return None
    span = f" with class weights from {min(class_weights):.3g} to {max(class_weights):.3g}" if class_weights else ""
    return f"train loss: {loss}{span}; val and test loss: cross_entropy without weights"


def threads_of(number: int) -> str:
    return f"{number} thread{'s' * (number != 1)}"


def millions(number: int) -> str:
    """Return a number of parameters as papers write it.

    Example:
        >>> [millions(number) for number in (910, 272_474, 25_557_032)]
        ['910', '0.27 M', '25.6 M']
    """
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e6:.2f} M" if number < 10e6 else f"{number / 1e6:.1f} M"
