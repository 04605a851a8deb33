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
LARGEST = 1e100  # the largest number on an axis: Matplotlib squares numbers and doubles their differences
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
    return {name: fraction(size, sizes[0], sizes[-1]) for name, size in zip(names, sizes, strict=True)}


def is_number(value: Any) -> bool:
    """Return whether a value has a place among numbers: infinity and NaN have the place of a name."""
    return type(value) in (int, float) and math.isfinite(value)


def is_drawable(number: float) -> bool:
    """Return whether an axis can show a number, which NaN, infinity and very large numbers would spoil."""
    return abs(number) <= LARGEST


def fraction(value: float, low: float, high: float) -> float:
    """Return where a value lies between two others, from 0 to 1. Their difference may be too large for a number."""
    return (value / 2 - low / 2) / (high / 2 - low / 2 or 1.0)


def scale_for(numbers: Sequence[float]) -> Callable[[float], float]:
    """Return math.log for a logarithmic axis or float for a linear one: where the median is nearer to the middle."""
    low, high = min(numbers), max(numbers)
    if low <= 0 or high / LOGARITHMIC_RATIO < low:
        return float
    middle = 2 * median(number / 2 for number in numbers)  # the sum of two huge numbers would be infinite
    centre = fraction(middle, low, high)
    centre_by_logarithm = fraction(math.log(middle), math.log(low), math.log(high))
    return math.log if abs(centre_by_logarithm - 0.5) < abs(centre - 0.5) else float


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
    return {fraction(scale(mark), scale(low), scale(high)): f"{mark:.4g}" for mark in marks}
