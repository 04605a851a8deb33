"""The values that each option of evaluate, calibrate, predict and explain may take. Nothing here imports torch."""

from typing import Any, Literal, get_args

from omegaconf import DictConfig

from reslab.data.options import DATA, OnError
from reslab.errors import UserError
from reslab.options import NAME, NULL, PATH, TRUE_OR_FALSE, Kind, Schema, integer, number, one_of, one_or_list
from reslab.training.options import PRECISIONS, TRAINER, VIEWS

Top = int | Literal["all"]
Sort = Literal["none", "loss"]
UnknownClasses = Literal["refuse", "skip", "by_position"]

DEVICE = one_of("auto", "cpu", "gpu", "cuda", "mps")


def file_of(*endings: str) -> Kind:
    """Paths with one of these endings, and null for no file."""
    listed = " or ".join(filter(None, [", ".join(endings[:-1]), endings[-1]]))
    words = f"a file whose name ends in {listed}, or be left out"
    return Kind(words, lambda value: value is None or (PATH.allows(value) and value.endswith(endings)), is_path=True)


COVERAGE = number("above 0 and below 1", lambda value: 0 < value < 1)

EVALUATE = {
    **{
        f"data.{name}": DATA[f"data.{name}"] | NULL
        for name in ("batch_size", "num_workers", "on_error", "test_fraction", "interpolation")
    },
    "split": one_of("test", "val"),
    "views": VIEWS | NULL,
    "calibrated": TRUE_OR_FALSE,
    "coverage": COVERAGE | NULL,
    "unknown_classes": one_of(*get_args(UnknownClasses)),
    "trainer.precision": one_of("auto", *PRECISIONS, None),
    "checkpoint": one_or_list(PATH),
    "root": PATH | NULL,
    "device": DEVICE | NULL,
    "output": file_of(".json"),
    "predictions": file_of(".csv", ".parquet"),
    "sort": one_of(*get_args(Sort)),
}
PREDICT = {
    "checkpoint": one_or_list(PATH),
    "views": VIEWS | NULL,
    "calibrated": TRUE_OR_FALSE,
    "coverage": COVERAGE | NULL,
    "images": one_or_list(Kind("a path", lambda value: PATH.allows(value) or type(value) is int, is_path=True)),  # 2024
    "top": integer(1) | one_of("all"),
    "batch_size": DATA["data.batch_size"],
    "num_workers": DATA["data.num_workers"],
    "on_error": one_of(*get_args(OnError)),
    "device": DEVICE,
    "output": file_of(".csv", ".parquet", ".json"),
}

CALIBRATE = {
    "checkpoint": PATH,
    "split": one_of("val"),
    "calibrated": one_of(False),
    "coverage": NULL,
    "unknown_classes": one_of("refuse"),
    "trainer.limit_test_batches": one_of(None, 1.0),
    "output": NULL,
    "predictions": NULL,
    "sort": one_of("none"),
}
EXPLAIN = {
    **{name: PREDICT[name] for name in ("checkpoint", "images", "on_error", "device")},
    # A name is taken as it stands on the command line, as a path is: 007 is no number.
    "class": Kind("the name of a class", NAME.allows, is_path=True) | NULL,
    "layer": NAME | NULL,
    "output": PATH | NULL,
}


def check_evaluation(values: dict[str, Any]) -> None:
    """Raise UserError for values that are wrong only in combination."""
    if values["split"] == "val" and (values["calibrated"] or values["coverage"] is not None):
        raise UserError(
            "split=val: the calibration was fitted on these images, so that they cannot test it: leave split out"
        )
    if values["split"] == "val" and values["unknown_classes"] != "refuse":
        raise UserError(
            f"unknown_classes={values['unknown_classes']} is for another data set: with split=val, the classes are "
            "those of the run"
        )
    if values["sort"] != "none" and values["predictions"] is None:
        raise UserError(
            f"sort={values['sort']} is the order of a table: predictions=<a .csv or .parquet file> names it"
        )


def accelerator_of(config: DictConfig) -> tuple[str, str]:
    """Return the accelerator that a composed conf/evaluate.yaml asks for, and the name of the option that does."""
    if config.device is not None:
        return config.device, "device"
    return config.trainer.accelerator, "trainer.accelerator"


EVALUATE_SCHEMA = Schema("evaluate", DATA | TRAINER | EVALUATE, check_evaluation, unnamed=("checkpoint",))
CALIBRATE_SCHEMA = Schema("calibrate", DATA | TRAINER | EVALUATE | CALIBRATE, unnamed=("checkpoint",))
PREDICT_SCHEMA = Schema("predict", PREDICT, unnamed=("checkpoint", "images"))
EXPLAIN_SCHEMA = Schema("explain", EXPLAIN, unnamed=("checkpoint", "images"))
