"""What a checkpoint says of its run. A stranger may have written it, so every value has its type checked."""

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from reslab.configuration import nodes
from reslab.data.options import DATA, MAX_SIDE
from reslab.data.spec import ImageSpec
from reslab.errors import UserError
from reslab.options import FRACTION, GROUP, LIKE_DEFAULT, NULL, POSITIVE, Kind, check_option, integer, list_of, one_of
from reslab.training.options import RUN, TRAINER, View

TEXT = LIKE_DEFAULT[str]
FILES = ("training_files", "validation_files")  # entries that are tensors of hashes
EARLIER_ORIGINS = "earlier_origins"  # an entry, and one of the result: where a run was trained before it was resumed
WHERE = ("device", "processor", "threads", "precision", "versions", "git_commit")  # parts of an origin
CALIBRATION_SCORES = "calibration_scores"  # an entry that is a tensor: see inference/conformal.py
# The options that say how long a run trains, and so how its learning rate changes.
LENGTH = ("trainer.max_epochs", "trainer.max_steps")
MAX_CHANNELS = 1024  # of an image; hyperspectral ones have some hundreds. A file that says more is not of a run
# The parts of a record and of its checkpoint, as far as a later command uses them, by their dotted names.
KINDS = {
    "epoch": integer(0),
    "global_step": integer(0),
    "reslab.config": GROUP,
    "reslab.config.model": GROUP,
    "reslab.config.data": GROUP,
    "reslab.config.data.root": DATA["data.root"],
    "reslab.config.seed": RUN["seed"],
    "reslab.config.flip_averaging": RUN["flip_averaging"],
    "reslab.config.threads": RUN["threads"],
    "reslab.config.trainer": GROUP,
    "reslab.config.trainer.precision": TRAINER["trainer.precision"],
    "reslab.loggers": GROUP,
    "reslab.origin": GROUP,
    f"reslab.{EARLIER_ORIGINS}": list_of(GROUP),
    "reslab.origin.precision": TEXT,
    "reslab.origin.threads": RUN["threads"],
    "reslab.origin.data_checksum": TEXT | NULL,
    "reslab.origin.files_checksum": TEXT | NULL,
}
SPEC = {
    "classes": list_of(TEXT),
    "channels": integer(1, MAX_CHANNELS),
    "image_size": integer(1, MAX_SIDE),
    "mean": list_of(FRACTION),
    "std": list_of(POSITIVE),
    "background": DATA["data.background"],
    "eval_size": DATA["data.eval_size"],
    "resize": DATA["data.resize"],
    "interpolation": DATA["data.interpolation"],
    "fit": DATA["data.fit"],
}
NEWER = {"background", "eval_size", "resize", "interpolation", "fit"}  # parts that runs of older versions lack
# What `calibrate` has found, and what it holds for: see inference/calibration.py.
CALIBRATION = {
    "temperature": POSITIVE,
    "standard_error": POSITIVE,
    "images": integer(1),
    "views": list_of(one_of(*get_args(View))) | one_of([]),
    "size": integer(1, MAX_SIDE),
    "resize": DATA["data.resize"],
    "interpolation": DATA["data.interpolation"],
    "fit": DATA["data.fit"],
    "loss_before": LIKE_DEFAULT[float],
    "loss_after": LIKE_DEFAULT[float],
    "calibration_error_before": FRACTION,
    "calibration_error_after": FRACTION,
    "precision": TEXT,
}
NEWER_CALIBRATION = {"precision"}  # parts that calibrations of older versions lack
# What a logger continues its record by: a number, or an id, which is no path.
LOGGER_ID = integer(0) | Kind(
    "an id", lambda value: isinstance(value, str) and bool(re.fullmatch(r"[\w-]{1,128}", value))
)
REQUESTED = {"step": integer(0)} | {name: TRAINER[name] for name in (*LENGTH, "trainer.max_time")}


def checked_record(path: Path, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a checkpoint, its entry "reslab", as plain values.

    Args:
        path: the file, for messages.
        checkpoint: its content.

    Raises:
        UserError: a value is of another type than ResLab writes.
    """
    try:
        entries = dict(checkpoint["reslab"])
        tensors = {name: check_files(name, entries.pop(name)) for name in FILES if name in entries}
        if CALIBRATION_SCORES in entries:
            tensors[CALIBRATION_SCORES] = check_scores(entries.pop(CALIBRATION_SCORES))
        record: dict[str, Any] = plain(entries, "reslab", set())
        values = {name: checkpoint[name] for name in ("epoch", "global_step") if name in checkpoint}
        values |= dict(nodes(record, "reslab."))
        for name, kind in KINDS.items():
            if name in values:
                check_option(name, values[name], kind)
        for name, value in record.get("loggers", {}).items():
            check_option(f"reslab.loggers.{name}", value, LOGGER_ID)
        check_requested(record.get("requested", []))
        check_calibration(record.get("calibration"), tensors.get(CALIBRATION_SCORES))
    except (UserError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a checkpoint of ResLab: {error}") from error
    if not is_spec(record.get("spec")):
        raise UserError(f"{path} is not a complete checkpoint of ResLab: its image spec is missing or wrong")
    return record | tensors


def recorded_threads(record: Mapping[str, Any]) -> int | None:
    """Return the number of threads with which a run has trained; None for a run of an older version."""
    number: int | None = record.get("origin", {}).get("threads")
    return number


def plain(value: Any, name: str, seen: set[int]) -> Any:
    """Return a value as dictionaries, lists, text, numbers, booleans and None. A tuple becomes a list.

    Args:
        value: the value.
        name: its dotted name, for messages.
        seen: the containers that were read before: one that is in several places could stand for billions of values.

    Raises:
        UserError: there is a value of another type.
    """
    if value is None or type(value) in (str, int, float, bool):
        return value
    if type(value) not in (dict, list, tuple):
        raise UserError(f"{name} is a {type(value).__name__}, and only plain values are read")
    if id(value) in seen and value != ():  # Python has one empty tuple only
        raise UserError(f"{name} is also in another place")
    seen.add(id(value))
    if isinstance(value, list | tuple):
        return [plain(part, name, seen) for part in value]
    if any(type(key) not in (str, int, float, bool) for key in value):
        raise UserError(f"{name} has a key of another type than text and numbers")
    return {key: plain(part, f"{name}.{key}", seen) for key, part in value.items()}


def check_files(name: str, value: Any) -> Any:
    """Return a record of files: see `ImageDataModule.training_files`. Raise UserError for anything else."""
    is_list = isinstance(value, Tensor) and value.dtype == torch.int64 and value.ndim == 1
    if value is not None and not is_list:
        raise UserError(f"reslab.{name} is not a list of hashes")
    return value


def check_scores(value: Any) -> Tensor:
    """Return the scores of a calibration, float64 (N,), ascending. Raise UserError for anything else."""
    is_list = isinstance(value, Tensor) and value.dtype == torch.float64 and value.ndim == 1 and len(value) > 0
    if not is_list or not value.isfinite().all() or value[0] < 0 or not value.equal(value.sort().values):
        raise UserError(f"reslab.{CALIBRATION_SCORES} is not a sorted list of scores")
    assert isinstance(value, Tensor)
    return value


def check_calibration(value: Any, scores: Tensor | None) -> None:
    """Raise UserError unless a value is None, or all that `CALIBRATION` names with a score for each image."""
    if value is None and scores is None:
        return
    if not isinstance(value, dict) or scores is None:
        raise UserError("reslab.calibration is not complete")
    if not CALIBRATION.keys() - NEWER_CALIBRATION <= value.keys() <= CALIBRATION.keys():
        raise UserError("reslab.calibration is not complete")
    for name, each in value.items():
        check_option(f"reslab.calibration.{name}", each, CALIBRATION[name])
    if value["images"] != len(scores):
        raise UserError("reslab.calibration has not as many scores as images")


def check_requested(value: Any) -> None:
    """Raise UserError unless a value is what `provenance.requested_lengths` returns."""
    entries: list[Any] = value if isinstance(value, list) else [None]
    least = {"step", *LENGTH}  # older versions recorded trainer.max_time too
    if not all(isinstance(each, dict) and least <= each.keys() <= REQUESTED.keys() for each in entries):
        raise UserError("reslab.requested is not a list of steps and lengths")
    for each in entries:
        for name, setting in each.items():
            check_option(f"reslab.requested.{name}", setting, REQUESTED[name])


def is_spec(value: Any) -> bool:
    """Return whether a value has the fields of an ImageSpec, each of its kind."""
    known = {field.name for field in fields(ImageSpec)}
    if not isinstance(value, dict) or not known - NEWER <= value.keys() <= known:
        return False
    if not all(SPEC[name].allows(each) for name, each in value.items()):
        return False
    return len(value["mean"]) == len(value["std"]) <= MAX_CHANNELS
