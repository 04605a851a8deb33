"""How far the metrics of a test may be off because it had these images and not others: the bootstrap over its images.

Each resample draws as many images as the test had, with replacement (Efron, "Bootstrap methods: another look at the
jackknife", Annals of Statistics 7, 1979); an interval has the percentiles of the metric over the resamples. The draws
have a fixed seed, so that equal answers give equal intervals.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from reslab.reports.statistics import CONFIDENCE

RESAMPLES = 1000
MAX_DRAWS = 200_000_000  # of images: a test of a million images has 200 resamples
NUMBERS_AT_ONCE = 2_000_000
SEED = 0

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Interval(NamedTuple):
    low: float
    high: float


def resamples_of(n: int) -> int:
    """Return how many resamples of n images are drawn."""
    return min(RESAMPLES, MAX_DRAWS // n)


def intervals_of(values: Floats, estimates: Floats, highest: float = math.inf) -> list[Interval | None]:
    """Return the intervals of some metrics; None where resamples do not vary, which says nothing, or are not finite.

    An interval reaches as far as the percentiles do, and as far as they do once they are moved so that the mean of the
    resamples is the metric itself: resampling lowers an F1 score of few images, so that the percentiles alone could
    leave out the very value whose interval they are.

    Args:
        values: of resamples, (resamples, metrics); NaN where a resample does not have the metric.
        estimates: the metrics, (metrics,).
        highest: what no metric exceeds; none is below 0.
    """
    varies = np.nan_to_num(values, nan=np.inf).min(0) < np.nan_to_num(values, nan=-np.inf).max(0)
    varies &= ~np.isinf(values).any(0)
    tail = 100 * (1 - CONFIDENCE) / 2
    found: list[Interval | None] = [None] * len(estimates)
    if not varies.any():
        return found
    varying = values[:, varies]
    percentiles = np.nanpercentile(varying, [tail, 100 - tail], axis=0)  # (2, metrics)
    both = np.concatenate([percentiles, percentiles - np.nanmean(varying, axis=0) + estimates[varies]]).clip(0, highest)
    bounds = np.stack([both.min(0), both.max(0)])
    for number, (low, high) in zip(np.flatnonzero(varies), bounds.T.tolist(), strict=True):
        found[number] = Interval(low, high) if math.isfinite(high - low) else None
    return found


def mean_resamples(values: NDArray[np.floating]) -> Floats:
    """Return the means of resamples of some values, (N,) -> (resamples,)."""
    n, random = len(values), np.random.default_rng(SEED)
    means = [
        values[random.integers(0, n, (rows, n))].mean(1, dtype=np.float64) for rows in row_counts(resamples_of(n), n)
    ]
    return np.concatenate(means)


def row_counts(resamples: int, width: int) -> list[int]:
    """Return by how many resamples to proceed, each of `width` numbers, so that they have room in memory."""
    rows = max(1, NUMBERS_AT_ONCE // width)
    return [min(rows, resamples - start) for start in range(0, resamples, rows)]


def f1_resamples(true: Integers, predicted: Integers, counts: Integers, num_classes: int) -> Floats:
    """Return the F1 score of each class in resamples.

    A resample of images is one of the pairs of a true and a predicted class, of which there are fewer.

    Args:
        true, predicted: the classes of each pair that occurred, (pairs,).
        counts: the images of each pair, (pairs,).
        num_classes: the number of all classes.

    Returns:
        (resamples, num_classes); NaN for a class that a resample has neither as a true nor as a predicted class.
    """
    n = int(counts.sum())
    random = np.random.default_rng(SEED)
    parts = []
    for rows in row_counts(resamples_of(n), max(len(counts), num_classes)):
        drawn = random.multinomial(n, counts / n, rows)  # (rows, pairs)
        images = summed(drawn, true, num_classes) + summed(drawn, predicted, num_classes)
        right = summed(drawn * (true == predicted), true, num_classes)
        parts.append(np.divide(2 * right, images, out=np.full(images.shape, np.nan), where=images > 0))
    return np.concatenate(parts)


def summed(drawn: Integers, classes: Integers, num_classes: int) -> Integers:
    """Return how many images each class has, (rows, pairs) -> (rows, num_classes)."""
    order = np.argsort(classes, kind="stable")
    present, starts = np.unique(classes[order], return_index=True)
    sums = np.zeros((len(drawn), num_classes), np.int64)
    sums[:, present] = np.add.reduceat(drawn[:, order], starts, axis=1)
    return sums


def calibrated_errors(confidence: NDArray[np.floating], bins: Integers, num_bins: int) -> Floats:
    """Return the calibration errors that a perfectly calibrated network would show.

    An image is right with the probability of its confidence (Bröcker and Smith, "Increasing the reliability of
    reliability diagrams", Weather and Forecasting 22, 2007). The bootstrap has no place here: the error is a sum of
    absolute values, which resampling makes larger on the average.

    Args:
        confidence: of each image, (N,).
        bins: the number of the bin of each image, (N,).
        num_bins: how many bins there are.

    Returns:
        (resamples,).
    """
    order = np.argsort(bins, kind="stable")
    confidence, n, random = confidence[order], len(bins), np.random.default_rng(SEED)
    starts = np.unique(bins[order], return_index=True)[1]
    expected = np.add.reduceat(confidence.astype(np.float64), starts)
    errors = []
    for rows in row_counts(resamples_of(n), n):
        right = random.random((rows, n), np.float32) < confidence
        errors.append(np.abs(np.add.reduceat(right, starts, axis=1, dtype=np.int64) - expected).sum(1) / n)
    return np.concatenate(errors)
