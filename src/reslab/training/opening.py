"""The lines with which a run says what it trains, each as soon as it is known."""

import logging
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from reslab.configuration import task_overrides
from reslab.data.base import ImageDataModule
from reslab.data.duplicates import shared_images
from reslab.data.spec import ImageSpec
from reslab.data.splits import SPLIT_WORDS
from reslab.machine import command

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
        f"{least}{shared.copies:,} of the {shared.tests:,} test images are also training or validation images: "
        f"{command('check_data', *split_options(data))} lists them"
    )


def split_options(data: ImageDataModule) -> list[str]:
    """Return the options of the command line that choose the data set and its splits."""
    if not HydraConfig.initialized():
        return [f"data={data.name}", f"data.root={data.root}"]
    choice = HydraConfig.get().runtime.choices.get("data", data.name)
    return [f"data={choice}", *(each for each in task_overrides() if each.startswith(("data.", "seed=")))]


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
