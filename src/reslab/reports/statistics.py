"""Statistics of a metric over several seeds, and the test of whether two means differ."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple


class Statistics(NamedTuple):
    """Statistics of one metric over the runs of a configuration.

    Attributes:
        n: number of runs.
        deviation: standard deviation of the sample, with n - 1 in the denominator; None for one run.
        low: lower bound of the 95% confidence interval of the mean by Student's t; None for one run.
        high: upper bound of the interval.
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None
    high: float | None


class MeanDifference(NamedTuple):
    """The difference between two means, the bounds of its 95% confidence interval, and the p-value."""

    mean: float
    low: float
    high: float
    p: float


def sample_statistics(values: Sequence[float]) -> Statistics | None:
    """Return the statistics of some values, or None without any."""
    if not values:
        return None
    n, mean = len(values), fmean(values)
    if n == 1:
        return Statistics(n, mean, None, None, None)
    if not math.isfinite(mean):
        return Statistics(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit  # importing SciPy takes 0.25 s, which a report without seeds saves

    deviation = stdev(values)
    margin = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return Statistics(n, mean, deviation, mean - margin, mean + margin)


def welch(first: Statistics, second: Statistics) -> MeanDifference | None:
    """Compare two means by Welch's t-test, which does not assume equal variances.

    Source: B. L. Welch, "The generalization of 'Student's' problem when several different population variances are
    involved", Biometrika 34 (1947).

    Returns:
        The difference `second.mean - first.mean` with its two-sided p-value. None where the test does not apply: one
        side has a single run, neither side varies, or a value is not finite.
    """
    if first.deviation is None or second.deviation is None or not 0 < first.deviation + second.deviation < math.inf:
        return None
    from scipy.special import stdtr, stdtrit

    difference = second.mean - first.mean
    variances = first.deviation**2 / first.n, second.deviation**2 / second.n  # of the two means
    error = math.sqrt(sum(variances))
    freedom = error**4 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    margin = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return MeanDifference(difference, difference - margin, difference + margin, p)
