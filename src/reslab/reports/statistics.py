"""Statistics of a metric over several seeds, and the test of whether two means differ."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95  # the probability that a confidence interval contains the true value
QUANTILE = (1 + CONFIDENCE) / 2  # of Student's t, at the upper bound of an interval
PERCENT = f"{CONFIDENCE:.0%}"


class Statistics(NamedTuple):
    """Statistics of one metric over the runs of a configuration.

    Attributes:
        n: number of runs.
        deviation: standard deviation of the sample, with n - 1 in the denominator; None for one run.
        low: lower bound of the confidence interval of the mean by Student's t; None for one run.
        high: upper bound of the interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


class MeanDifference(NamedTuple):
    """The difference between two means.

    Attributes:
        low: lower bound of the confidence interval of the difference; None where Welch's t-test does not apply.
        high: upper bound of the interval.
        p: two-sided p-value.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None


def sample_statistics(values: Sequence[float]) -> Statistics | None:
    """Return the statistics of some values, or None without any."""
    if not values:
        return None
    n, mean = len(values), mean_of(values)
    if n == 1:
        return Statistics(n, mean, None, None, None)
    if not math.isfinite(mean):
        return Statistics(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit  # importing SciPy takes 0.25 s, which a report without seeds saves

    try:
        deviation = stdev(values)
    except OverflowError:
        deviation = math.inf
    margin = float(stdtrit(n - 1, QUANTILE)) * deviation / math.sqrt(n)
    return Statistics(n, mean, deviation, mean - margin, mean + margin)


def mean_of(values: Sequence[float]) -> float:
    """Return the mean. It is infinite or NaN where the sum has no other value, which fmean raises errors for."""
    try:
        return fmean(values)
    except (OverflowError, ValueError):
        return sum(map(float, values)) / len(values)


def welch(first: Statistics, second: Statistics) -> MeanDifference:
    """Compare two means by Welch's t-test, which does not assume equal variances.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947).

    Returns:
        The difference `second.mean - first.mean`. The test does not apply if one side has a single run, neither side
        varies, or a value is not finite.
    """
    difference = second.mean - first.mean
    if first.deviation is None or second.deviation is None or not 0 < first.deviation + second.deviation < math.inf:
        return MeanDifference(difference)
    from scipy.special import stdtr, stdtrit

    unit = max(first.deviation, second.deviation)  # the square of a deviation may be too large or too small
    variances = (first.deviation / unit) ** 2 / first.n, (second.deviation / unit) ** 2 / second.n  # of the two means
    error = unit * math.sqrt(sum(variances))
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    margin = float(stdtrit(freedom, QUANTILE)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return MeanDifference(difference, difference - margin, difference + margin, p)
