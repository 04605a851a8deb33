"""The comparison of every configuration with every other one, corrected for the number of comparisons."""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from reslab.reports.configurations import Configuration
from reslab.reports.statistics import MeanDifference, compare_accuracies

MAX_COMPARED = 20  # the best configurations: a wider matrix has no room on a page


class Comparison(NamedTuple):
    """The comparison of two configurations.

    Attributes:
        difference: of the means, as `versus` computes it.
        p: the p-value after Holm's correction; None where Welch's t-test does not apply.
    """

    difference: MeanDifference
    p: float | None


def comparisons(configurations: Sequence[Configuration], metric: str) -> dict[tuple[int, int], Comparison]:
    """Compare configurations that have the metric of at least two runs.

    Returns:
        The comparison of each pair, as the first minus the second, by the places of both from 1. The first of a pair
        has the lower place.
    """
    found = enumerate((each.statistics(metric) for each in configurations[:MAX_COMPARED]), 1)
    several = {place: each for place, each in found if each and each.n > 1}
    pairs = {pair: compare_accuracies(several[pair[1]], several[pair[0]]) for pair in combinations(several, 2)}
    tested = {pair: difference.p for pair, difference in pairs.items() if difference.p is not None}
    corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
    return {pair: Comparison(difference, corrected.get(pair)) for pair, difference in pairs.items()}


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values for which 5% is the chance that any of them is below 0.05 by luck.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6
    (1979).
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected
