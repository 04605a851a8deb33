"""Positions and labels of values on an axis of length 1. The values are numbers, names, or both."""

import math
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator

from reslab.configuration import shown
from reslab.drawing import shortened
from reslab.reports.entries import natural_order
from reslab.reports.settings import rounded_text

LOGARITHMIC_RATIO = 10  # the smallest ratio of the largest to the smallest value on a logarithmic axis
MAX_TICKS = 8  # an axis of more numbers has ticks at round numbers
MAX_LABEL_LENGTH = 20  # characters
MIN_GAP = 0.05  # between two labels on an axis of length 1


def positions(values: Sequence[Any]) -> dict[str, float]:
    """Return the position of every value, from 0 to 1, by its text.

    Numbers have positions by size, or by logarithm where that distributes them more evenly. Names have equal distances,
    and so have numbers among names, e.g. where some configurations do not have the setting; the numbers come first.
    """
    distinct = {shown(value): value for value in values}
    if all(is_number(value) for value in distinct.values()):
        names = sorted(distinct, key=lambda name: distinct[name])
        scale = scale_for(list(distinct.values()))
        sizes = [scale(distinct[name]) for name in names]
    else:
        numbers = sorted((name for name in distinct if is_number(distinct[name])), key=lambda name: distinct[name])
        names = [*numbers, *sorted(distinct.keys() - set(numbers), key=natural_order)]
        sizes = [float(number) for number in range(len(names))]
    length = sizes[-1] - sizes[0] or 1.0
    return {name: (size - sizes[0]) / length for name, size in zip(names, sizes, strict=True)}


def is_number(value: object) -> bool:
    return type(value) in (int, float)


def scale_for(numbers: Sequence[float]) -> Callable[[float], float]:
    """Return math.log for a logarithmic axis or float for a linear one: where the median is nearer to the middle."""
    low, middle, high = min(numbers), median(numbers), max(numbers)
    if low <= 0 or high < LOGARITHMIC_RATIO * low:
        return float
    off_centre = (2 * middle - low - high) / (high - low)
    off_centre_by_logarithm = math.log(middle**2 / low / high) / math.log(high / low)
    return math.log if abs(off_centre_by_logarithm) < abs(off_centre) else float


def ticks(values: Sequence[Any]) -> dict[float, str]:
    """Return the labels of an axis by position: the values, or round numbers, without labels that would overlap."""
    distinct = {shown(value): value for value in values}
    numbers = [value for value in distinct.values() if is_number(value)]
    if len(distinct) == len(numbers) > MAX_TICKS:
        labels = round_numbers(numbers)
    else:
        texts = {name: shortened(rounded_text(value), MAX_LABEL_LENGTH) for name, value in distinct.items()}
        labels = {position: texts[name] for name, position in positions(values).items()}
    kept: dict[float, str] = {}
    for position, label in labels.items():
        if not kept or position - max(kept) >= MIN_GAP:
            kept[position] = label
    return kept


def round_numbers(numbers: Sequence[float]) -> dict[float, str]:
    scale, low, high = scale_for(numbers), min(numbers), max(numbers)
    digits = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    locator = LogLocator(subs=digits) if scale is math.log else MaxNLocator(5)
    marks = [float(mark) for mark in locator.tick_values(low, high) if low <= mark <= high]
    return {(scale(mark) - scale(low)) / (scale(high) - scale(low)): f"{mark:.4g}" for mark in marks}
