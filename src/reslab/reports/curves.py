"""The learning curves of runs, from their metrics.csv."""

import math
from collections.abc import Sequence

from reslab.reports.axes import is_drawable
from reslab.reports.configurations import Configuration

SPLITS = {"train": "training", "val": "validation"}

Curve = dict[float, float]  # the error in % by the number of epochs that have passed


def error_curves(configuration: Configuration, split: str) -> list[Curve]:
    """Return one curve per run. It is empty if the run has no accuracy on the split, and NaN where none can be drawn.

    A validation within an epoch is a point at its own moment. The training accuracy is a mean over an epoch, so only
    the last row of each epoch has it complete.
    """
    metric = f"{split}/accuracy"
    curves = []
    for entry in configuration.entries:
        last = {row["epoch"]: number for number, row in enumerate(entry.metrics)}
        curves.append(
            {
                moment: 100 * (1 - row[metric]) if is_drawable(row[metric]) else math.nan
                for number, (moment, row) in enumerate(zip(moments(entry.metrics), entry.metrics, strict=True))
                if metric in row and (split != "train" or number == last[row["epoch"]])
            }
        )
    return curves


def moments(rows: Sequence[dict[str, float]]) -> list[float]:
    """Return for each row of metrics.csv how many epochs had passed, e.g. 1.5 in the middle of the second epoch.

    An epoch is as long as its last row says, in optimizer steps; the last epoch, which a limit may have cut short, at
    least as long as the one before.
    """
    if not all("step" in row for row in rows):  # older runs have only ends of epochs
        return [row["epoch"] for row in rows]
    ends = {row["epoch"]: row["step"] for row in rows}
    starts = dict(zip(ends, [0.0, *ends.values()], strict=False))
    lengths = [ends[epoch] - starts[epoch] for epoch in ends]
    length_of = dict(zip(ends, lengths, strict=True))
    if len(lengths) > 1:
        length_of[rows[-1]["epoch"]] = max(lengths[-2:])
    return [row["epoch"] - 1 + (row["step"] - starts[row["epoch"]]) / (length_of[row["epoch"]] or 1) for row in rows]


def has_uneven_curves(configuration: Configuration) -> bool:
    """Return whether some runs have moments that others do not have."""
    return any(len({frozenset(curve) for curve in error_curves(configuration, split)}) > 1 for split in SPLITS)
