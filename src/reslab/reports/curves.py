"""The learning curves of runs, from their metrics.csv."""

import math
from collections.abc import Sequence

from reslab.reports.axes import is_drawable
from reslab.reports.configurations import Configuration

SPLITS = {"train": "training", "val": "validation"}

Curve = dict[float, float]  # the error in %, or a metric, by the number of epochs that have passed


def error_curves(configuration: Configuration, split: str) -> list[Curve]:
    """Return one curve per run: see `metric_curve`. It is empty if the run has no accuracy on the split."""
    curves = (metric_curve(entry.metrics, f"{split}/accuracy") for entry in configuration.entries)
    return [{moment: 100 * (1 - accuracy) for moment, accuracy in curve.items()} for curve in curves]


def metric_curve(rows: Sequence[dict[str, float]], metric: str) -> Curve:
    """Return a metric by the number of epochs that have passed, NaN where its value cannot be drawn.

    A validation within an epoch is a point at its own moment. A metric of the training is a mean over an epoch, so only
    the last row of each epoch has it complete.
    """
    last = {row["epoch"]: number for number, row in enumerate(rows)}
    return {
        moment: row[metric] if is_drawable(row[metric]) else math.nan
        for number, (moment, row) in enumerate(zip(moments(rows), rows, strict=True))
        if metric in row and (not metric.startswith("train/") or number == last[row["epoch"]])
    }


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
