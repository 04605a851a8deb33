"""Statistics of a metric over several seeds, confidence intervals of accuracies, and tests of differences."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

CONFIDENCE = 0.95  # the probability that a confidence interval contains the true value
QUANTILE = (1 + CONFIDENCE) / 2  # of Student's t, at the upper bound of an interval
PERCENT = f"{CONFIDENCE:.0%}"
SIGNIFICANCE_LEVEL = round(1 - CONFIDENCE, 6)


class Statistics(NamedTuple):
    """Statistics of one metric over the runs of a configuration.

    Attributes:
        n: number of runs.
        deviation: standard deviation of the sample, with n - 1 in the denominator; None for one run.
        low: lower bound of the confidence interval of an accuracy; None where there is none.
        high: upper bound of the interval.
        overlap: of the folds of a cross-validation, the number of images of a fold per training image; 0 for seeds.
            Folds share training images, so that their mean varies more than that of independent runs, by the variance
            between them times this number (Nadeau and Bengio, "Inference for the generalization error", Machine
            Learning 52, 2003).
    """

    n: int
    mean: float
    deviation: float | None
    low: float | None = None
    high: float | None = None
    overlap: float = 0.0

    def variance_of_mean(self, deviation: float) -> float:
        """Return the variance of the mean of runs with this standard deviation."""
        return deviation**2 / self.n + deviation**2 * self.overlap


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
        return Statistics(n, mean, None)
    try:
        return Statistics(n, mean, stdev(values) if math.isfinite(mean) else math.nan)
    except OverflowError:
        return Statistics(n, mean, math.inf)


def with_interval(accuracy: Statistics, images: int | None) -> Statistics:
    """Add the confidence interval of an accuracy: where it would be with other seeds and other images.

    Wilson's score interval ("Probable inference, the law of succession, and statistical inference", Journal of the
    American Statistical Association 22, 1927) for the effective number of images (Kish, "Survey Sampling", 1965): as
    many as would give a proportion the variance of the mean, which is that of the seeds, deviation**2 / n, plus that of
    the images, mean * (1 - mean) / images. The quantile is Student's t with the degrees of freedom of such a sum
    (Satterthwaite, "An approximate distribution of estimates of variance components", Biometrics Bulletin 2, 1946), of
    which the seeds have n - 1. Korn and Graubard ("Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data", Survey Methodology 24, 1998) combine the two in this way.

    The bounds are within 0 and 1, and the interval contains the mean. Seeds with equal results leave the variance of
    the images, and the interval is then that of a single proportion.

    Args:
        accuracy: the statistics of accuracies.
        images: how many images each of them is a proportion of; None if this is unknown.

    Returns:
        The statistics, without an interval for one run, for values that are no proportions, and where neither the
        seeds nor a number of images say how far the mean may be off.
    """
    n, mean, deviation = accuracy[:3]
    if deviation is None or not (0 <= mean <= 1 and deviation <= 1):
        return accuracy
    of_one_image = mean * (1 - mean)
    if (n - 1) * deviation**2 > n * of_one_image + 1e-9:  # proportions vary no more
        return accuracy
    of_seeds, of_images = accuracy.variance_of_mean(deviation), of_one_image / images if images else 0.0
    variance = of_seeds + of_images
    effective = of_one_image / variance if variance and of_one_image else images
    if not effective:
        return accuracy
    from scipy.special import ndtri, stdtrit  # importing SciPy takes 0.25 s, which a report without seeds saves

    ratio = variance / of_seeds if of_seeds else math.inf
    freedom = (n - 1) * ratio * ratio  # ratio**2 may be too large
    quantile = float(ndtri(QUANTILE) if math.isinf(freedom) else stdtrit(freedom, QUANTILE))
    low, high = wilson(mean, effective, quantile)
    return accuracy._replace(low=low, high=high)


def wilson(proportion: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the bounds of Wilson's score interval, which are within 0 and 1 and contain the proportion.

    Args:
        proportion: from 0 to 1.
        n: how many images it is a proportion of, as a real number if it is an effective one.
        quantile: of the distribution, e.g. 1.96.
    """
    weight = quantile**2 / n
    centre = (proportion + weight / 2) / (1 + weight)
    margin = math.sqrt(weight * proportion * (1 - proportion) + weight**2 / 4) / (1 + weight)
    return max(0.0, min(centre - margin, proportion)), min(1.0, max(centre + margin, proportion))


def proportion_interval(part: int, n: int) -> tuple[float, float]:
    """Return the confidence interval of a proportion: where it would be with other images. (0, 1) of none.

    Example:
        >>> proportion_interval(10, 10)  # all right: the true proportion may still be below 1
        (0.7224672001371..., 1.0)
    """
    return wilson(part / n, n, NormalDist().inv_cdf(QUANTILE)) if n else (0.0, 1.0)


def mean_of(values: Sequence[float]) -> float:
    """Return the mean. It is infinite or NaN where the sum has no other value, which fmean raises errors for."""
    try:
        return fmean(values)
    except (OverflowError, ValueError):
        return sum(map(float, values)) / len(values)


def compare_accuracies(first: Statistics, second: Statistics) -> MeanDifference:
    """Compare two means by Welch's t-test, with the part of its interval that a difference of accuracies can be in."""
    difference = welch(first, second)
    if difference.low is None or difference.high is None or not -1 <= difference.mean <= 1:
        return difference
    return difference._replace(low=max(-1.0, difference.low), high=min(1.0, difference.high))


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
    variances = first.variance_of_mean(first.deviation / unit), second.variance_of_mean(second.deviation / unit)
    error = unit * math.sqrt(sum(variances))
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    margin = float(stdtrit(freedom, QUANTILE)) * error
    p = 2 * float(stdtr(freedom, -abs(difference) / error))
    return MeanDifference(difference, difference - margin, difference + margin, p)
