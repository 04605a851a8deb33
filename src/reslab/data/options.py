"""The values that each option of a data set may take. Nothing here imports torch."""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from reslab.errors import UserError
from reslab.options import (
    FRACTION,
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    GROUP,
    MAX_PROCESSORS,
    NAME,
    NULL,
    PATH,
    TRUE_OR_FALSE,
    Kind,
    between,
    check_option,
    integer,
    list_of,
    one_of,
    one_or_list,
    plain_value,
)

OnError = Literal["stop", "skip"]
Interpolation = Literal["bilinear", "bicubic"]
Fit = Literal["crop", "pad", "squash"]
ErasingAspect = Literal["log_uniform", "uniform"]
EmnistSplit = Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"]
ImagenetteSize = Literal["160px", "320px", "full"]

MAX_BATCH = 1_000_000  # images; the largest published batches have 131,072
MAX_SIDE = 8192  # pixels; the first layer of a network on one such image takes 4 GB
MAX_REPEATS = 100  # Hoffer et al. 2020 have at most 40
MAX_CLASSES = 1_000_000  # as many as the largest data sets of faces have people
MAX_FOLDS = 1000  # a training run each
MAX_IMAGES = 100_000_000  # 300 GB in memory at 32 pixels

STRENGTH = between(0, 10)  # of color jitter; 1 goes from black to twice as bright
STRENGTHS = Kind(
    "a list of brightness, contrast, saturation, each from 0 to 10, and hue from 0 to 0.5",
    lambda value: list_of(STRENGTH, 4).allows(value) and value[3] <= 0.5,  # of the circle, in both directions
)
ASPECTS = Kind(
    "a list of the least and the largest width / height, from 0.01 to 100",
    lambda value: list_of(between(0.01, 100), 2).allows(value) and value[0] <= value[1],
)


def problem_of_expression(text: Any) -> str | None:
    """Return why a text is no regular expression; None if it is one, and for what is no text."""
    try:
        re.compile(text) if NAME.allows(text) else None
    except re.error as error:
        return str(error)
    return None


REGULAR_EXPRESSION = Kind(
    "a column of data.labels or a regular expression",
    lambda value: NAME.allows(value) and problem_of_expression(value) is None,
    is_path=True,
    problem=problem_of_expression,
)

DATA = {
    "data.name": NAME,
    "data.root": PATH | NULL,
    "data.batch_size": integer(1, MAX_BATCH),
    "data.image_size": integer(1, MAX_SIDE) | NULL,
    "data.eval_size": integer(1, MAX_SIDE) | NULL,
    "data.resize": integer(1, MAX_SIDE) | NULL,
    "data.interpolation": one_of(*get_args(Interpolation)),
    "data.fit": one_of(*get_args(Fit), None),
    "data.channels": one_of(1, 3, None),
    "data.val_fraction": FRACTION_BELOW_1,
    "data.validate_on_test": TRUE_OR_FALSE,
    "data.augment": GROUP | NULL,
    "data.augment.crop": integer(0, MAX_SIDE),
    "data.augment.flip": TRUE_OR_FALSE,
    "data.augment.erasing": FRACTION,
    "data.augment.erasing_aspect": one_of(*get_args(ErasingAspect)),
    "data.augment.erasing_fill": one_of("random") | integer(0, 255),
    "data.augment.vertical_flip": TRUE_OR_FALSE,
    "data.augment.right_angles": TRUE_OR_FALSE,
    "data.augment.scale": FRACTION_ABOVE_0 | NULL,
    "data.augment.scale_aspect": ASPECTS,
    "data.augment.randaugment": integer(0, 30),
    "data.augment.trivial_augment": TRUE_OR_FALSE,
    "data.augment.color_jitter": STRENGTH | STRENGTHS,
    "data.repeats": integer(1, MAX_REPEATS),
    "data.balance": TRUE_OR_FALSE,
    "data.class_weights": one_of(None, "balanced") | list_of(between(1e-6, 1e6)),  # less is lost beside 1 in float32
    "data.allow_changes": TRUE_OR_FALSE,
    "data.mean": list_of(FRACTION, 1, 3) | NULL,
    "data.std": list_of(between(1e-6, 1000), 1, 3) | NULL,  # of values from 0 to 1; images would be noise or all alike
    "data.num_workers": integer(0, MAX_PROCESSORS),
    "data.in_memory": TRUE_OR_FALSE,
    "data.on_error": one_of(*get_args(OnError)),
    "data.background": list_of(integer(0, 255), 3) | NULL,
    "data.test_fraction": FRACTION_BELOW_1,
    "data.group": REGULAR_EXPRESSION | NULL,
    "data.folds": integer(2, MAX_FOLDS) | NULL,
    "data.fold": integer(0, MAX_FOLDS - 1) | NULL,
    "data.labels": one_or_list(PATH) | NULL,
    "data.num_classes": integer(2, MAX_CLASSES),
    "data.num_images": integer(1, MAX_IMAGES),
    "data.emnist_split": one_of(*get_args(EmnistSplit)),
    "data.imagenette_size": one_of(*get_args(ImagenetteSize)),
}


def check_folds(folds: int | None, fold: int | None) -> None:
    """Raise UserError unless both are given or none, and the fold is one of the folds."""
    if folds is not None and fold is None:
        raise UserError(f"data.folds={folds} needs data.fold: -m 'data.fold=range({folds})' trains on each of them")
    if fold is not None and folds is None:
        raise UserError(f"data.fold={fold} needs data.folds, the number of folds")
    if folds is not None and fold is not None and fold >= folds:
        raise UserError(f"data.fold={fold}: the folds of data.folds={folds} have the numbers 0 to {folds - 1}")


def check_data(arguments: Mapping[str, Any]) -> None:
    """Raise UserError for the first argument with a value that its option may not take.

    Args:
        arguments: values by the names of their options without `data.`; names that `DATA` does not list are ignored.
    """
    for name, value in arguments.items():
        if kind := DATA.get(f"data.{name}"):
            check_option(f"data.{name}", plain_value(value), kind)


def check_sizes(values: Mapping[str, Any]) -> None:
    """Raise UserError for sizes of images that contradict one another.

    Args:
        values: values by the names of their options without `data.`; those of `image_size`, `eval_size`, `resize` and
            `fit` are looked at, and may be missing.
    """
    resize, eval_size = values.get("resize"), values.get("eval_size") or values.get("image_size")
    if resize is None:
        return
    if values.get("fit") == "pad":
        raise UserError("data.resize cuts off the border of an image, which data.fit=pad keeps: leave one of them out")
    if eval_size is not None and resize < eval_size:
        name = "eval_size" if values.get("eval_size") else "image_size"
        raise UserError(
            f"data.resize={resize} is less than data.{name}={eval_size}, the square that is cut out of the resized "
            f"image: set data.resize={eval_size} or more"
        )
