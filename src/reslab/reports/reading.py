"""The files of a run as a report reads them: the type of every value is checked, and every text is printable.

People edit these files, and others send them, so anything can be in them.
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reslab.configuration import as_list
from reslab.files import plain_bytes
from reslab.run import MAX_SETTINGS_SIZE, UNFINISHED, Result, Run, parsed_result, recorded_time
from reslab.text import printable

# The numbers in a result, besides the metrics, whose names have a slash. A metric may be NaN or infinite, these and the
# numbers of images may not.
NUMBERS = ("epochs", "steps", "best_step", "parameters", "threads")
IMAGES = ("/images", "/images_available", "/images_unreadable")
TEXTS = (
    "status", "error", "model", "data", "device", "precision", "git_commit", "data_checksum", "files_checksum",
    "folder", "fold_split",
)  # fmt: skip
MAY_BE_NULL = ("best_step", "git_commit", "data_checksum", "files_checksum")
MAX_REASON = 500  # characters of why a run has no result
MAX_COUNT = 2**53  # of epochs and steps: the integers up to here are exact as float


class UnreadableError(Exception):
    """A file of a run cannot be read or has a value of a wrong type. The message is one printable line."""


@contextmanager
def reasons(path: Path) -> Iterator[None]:
    """Raise UnreadableError with the name of the file for any error."""
    try:
        yield
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        if isinstance(error, UnicodeDecodeError):
            reason = "it is not text"
        raise UnreadableError(brief(f"{path.name}: {' '.join(reason.split())}")) from error


def brief(text: str) -> str:
    """Return the beginning of a text, printable."""
    return printable(text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…")


def checked_config(run: Run) -> dict[str, Any]:
    """Return the configuration of a run. Raises UnreadableError."""
    with reasons(run.config_file):
        config = run.config
        check(isinstance(config, dict), "it is not a configuration")
        config = plain(config, "")
        check("seed" in config, "it has no seed")
        check(is_integer(config["seed"]), f"seed is {json.dumps(config['seed'])}, not an integer")
        fold = fold_of(config)
        check(fold is None or is_integer(fold), f"data.fold is {json.dumps(fold)}, not an integer")
        folds = config["data"].get("folds") if fold is not None else 2
        check(is_integer(folds) and folds > 1, f"data.folds is {json.dumps(folds)}, not an integer of at least 2")
        kept = config["data"].get("val_fraction", 0) if fold is not None else 0
        check(is_number(kept) and 0 <= kept < 1, f"data.val_fraction is {json.dumps(kept)}, not a number below 1")
        objectives = as_list(config.get("objective", []))
        check(
            all(isinstance(name, str) for name in objectives),
            f"objective is {json.dumps(objectives)}, not a list of names",
        )
        return config


def fold_of(config: dict[str, Any]) -> Any:
    """Return the fold of a cross-validation that a run has, or None."""
    data = config.get("data")
    return data.get("fold") if isinstance(data, dict) else None


def checked_result(run: Run, objectives: list[str]) -> Result:
    """Return the result of a run; only a status, "unfinished", without one. Raises UnreadableError.

    Args:
        run: the run.
        objectives: further names of metrics.
    """
    with reasons(run.result_file):
        try:
            content = plain_bytes(run.result_file, MAX_SETTINGS_SIZE)
        except FileNotFoundError:
            return {"status": UNFINISHED}
        result: Result = plain(parsed_result(content), "")
        for name, value in result.items():
            if value is None and name in MAY_BE_NULL:
                continue
            if "/" in name or name in NUMBERS or name in objectives:
                check(is_number(value), f"{name} is {json.dumps(value)}, not a number")
            if name in NUMBERS or name.endswith(IMAGES):
                check(math.isfinite(value), f"{name} is {json.dumps(value)}, not a finite number")
            check(name not in TEXTS or isinstance(value, str), f"{name} is {json.dumps(value)}, not a text")
            check(name != "seed" or is_integer(value), f"{name} is {json.dumps(value)}, not an integer")
        if "ended" in result:
            check(recorded_time(result) is not None, f"ended is {json.dumps(result['ended'])}, not a date and time")
        check_requested(result.get("requested", []))
        earlier = result.get("earlier_origins", [])
        is_list = isinstance(earlier, list) and all(isinstance(each, dict) for each in earlier)
        check(is_list, f"earlier_origins is {json.dumps(earlier)}, not a list of origins")
        unwritten = result.get("unwritten", [])
        is_list = isinstance(unwritten, list) and all(isinstance(name, str) for name in unwritten)
        check(is_list, f"unwritten is {json.dumps(unwritten)}, not a list of names")
        return result


def check_requested(requested: Any) -> None:
    """Raise ValueError unless the value is a list of the lengths that a run was asked for, each from its step on."""
    is_list = isinstance(requested, list)
    check(
        is_list and all(isinstance(each, dict) and is_integer(each.get("step")) for each in requested),
        "requested is not a list of steps and limits",
    )


def checked_metrics(run: Run) -> list[dict[str, float]]:
    """Return the rows of metrics.csv, each with its epoch. Raises UnreadableError."""
    with reasons(run.metrics_file):
        rows = run.metrics
        for name in ("epoch", "step"):
            for number, row in enumerate(rows, 1):
                value = row.get(name, None if name == "epoch" else 0)
                check(value is not None, f"row {number} has no {name}")
                check(0 <= value <= MAX_COUNT and value == int(value), f"row {number}: {name} is {value}")  # type: ignore[operator,arg-type]
        return rows


def check(is_right: bool, message: str) -> None:
    if not is_right:
        raise ValueError(message)


def plain(value: Any, name: str) -> Any:
    """Return a value with printable texts. Raises ValueError for other types than those of JSON."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value if value.isprintable() else printable(value)
    if isinstance(value, int | float):
        # A larger integer is no float, and none of the computations of a report could use it.
        check(isinstance(value, float) or abs(value) <= sys.float_info.max, f"{name} is too large for a number")
        return value
    if isinstance(value, list):
        return [plain(each, name) for each in value]
    check(isinstance(value, dict), f"{name} is a {type(value).__name__}")
    target = value.get("_target_", "")
    check(isinstance(target, str), f"{name}._target_ is {json.dumps(target)}, not the name of a class")
    return {printable(key): plain(each, f"{name}.{key}" if name else str(key)) for key, each in value.items()}


def is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    return isinstance(value, float) or is_integer(value)
