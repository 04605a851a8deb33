"""What stands where on an axis of length 1, of numbers or of names."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.ticker import LogLocator, MaxNLocator

from reslab.options import shown
from reslab.reports.leaderboard import brief
from reslab.reports.runs import by_number

LOGARITHMIC = 10  # from this ratio of the largest to the smallest value on
MOST_TICKS = 8  # of numbers; beyond that an axis has round ones
LONGEST = 20  # characters of a name on an axis
ROOM = 0.05  # between two names on an axis of length 1


def positions(values: Sequence[Any]) -> dict[str, float]:
    """From 0 to 1: numbers by size, or by logarithm where that spreads them better; names at equal distances.

    So are numbers among names, e.g. where some configurations lack the parameter; they come first.
    """
    distinct = {shown(value): value for value in values}
    if all(is_number(value) for value in distinct.values()):
        names = sorted(distinct, key=lambda name: distinct[name])
        scale = scale_of(list(distinct.values()))
        sizes = [scale(distinct[name]) for name in names]
    else:
        numbers = sorted((name for name in distinct if is_number(distinct[name])), key=lambda name: distinct[name])
        names = [*numbers, *sorted(distinct.keys() - set(numbers), key=by_number)]
        sizes = [float(number) for number in range(len(names))]
    width = sizes[-1] - sizes[0] or 1.0
    return {name: (size - sizes[0]) / width for name, size in zip(names, sizes, strict=True)}


def is_number(value: object) -> bool:
    return type(value) in (int, float)


def scale_of(numbers: Sequence[float]) -> Callable[[float], float]:
    """math.log, or float where that leaves the middle one of the numbers nearer to the middle of the axis."""
    low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
    if low <= 0 or high < LOGARITHMIC * low:
        return float
    off_centre = (2 * middle - low - high) / (high - low)
    off_centre_by_logarithm = math.log(middle**2 / low / high) / math.log(high / low)
    return math.log if abs(off_centre_by_logarithm) < abs(off_centre) else float


def ticks(values: Sequence[Any]) -> dict[float, str]:
    """What stands on the axis of `positions`, by its place: the values, or round numbers, with room between them."""
    distinct = {shown(value): value for value in values}
    numbers = [value for value in distinct.values() if is_number(value)]
    if len(distinct) == len(numbers) > MOST_TICKS:
        marks = round_numbers(numbers)
    else:
        marks = {place: shortened(brief(distinct[name])) for name, place in positions(values).items()}
    kept: dict[float, str] = {}
    for place, text in marks.items():
        if not kept or place - max(kept) >= ROOM:
            kept[place] = text
    return kept


def round_numbers(numbers: Sequence[float]) -> dict[float, str]:
    scale, low, high = scale_of(numbers), min(numbers), max(numbers)
    decimals = (1.0,) if high > 100 * low else (1.0, 2.0, 5.0)
    locator = LogLocator(subs=decimals) if scale is math.log else MaxNLocator(5)
    marks = [float(mark) for mark in locator.tick_values(low, high) if low <= mark <= high]
    return {(scale(mark) - scale(low)) / (scale(high) - scale(low)): f"{mark:.4g}" for mark in marks}


def shortened(name: str) -> str:
    """Its beginning and its end: names of a kind differ in either."""
    return name if len(name) <= LONGEST else f"{name[: LONGEST // 2]}…{name[1 - LONGEST // 2 :]}"
