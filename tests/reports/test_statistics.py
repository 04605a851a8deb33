import math
import random

import numpy as np
import pytest
from scipy import stats

from reslab.reports.statistics import compare_accuracies, sample_statistics, welch, with_interval


def test_statistics_of_no_of_one_and_of_two_values():
    assert sample_statistics([]) is None
    assert sample_statistics([0.5]) == (1, 0.5, None, None, None, 0)
    assert list(map(str, sample_statistics([0.5, math.nan]))) == ["2", "nan", "nan", "None", "None", "0.0"]
    assert list(map(str, sample_statistics([0.5, math.inf]))) == ["2", "inf", "nan", "None", "None", "0.0"]
    assert sample_statistics([0.5, 0.7]) == (2, pytest.approx(0.6), pytest.approx(0.1 * 2**0.5), None, None, 0)


# confidence intervals of accuracies


def interval(values, images):
    return with_interval(sample_statistics(values), images)[3:5]


@pytest.mark.parametrize(("right", "images"), [(0, 359), (180, 359), (324, 359), (359, 359), (1, 2)])
def test_equal_seeds_have_the_interval_of_one_proportion(right, images):
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert interval([right / images] * 2, images) == pytest.approx(tuple(expected))


def test_with_many_images_and_seeds_the_interval_is_students():
    """Wilson's interval and that of t differ by a part of 1 / n."""
    generator = random.Random(1)
    values = [generator.gauss(0.5, 0.001) for _ in range(20)]
    expected = stats.t.interval(0.95, 19, loc=sum(values) / 20, scale=stats.sem(values))
    assert interval(values, 10**9) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("images", [None, 10, 10_000])
@pytest.mark.parametrize("values", [(0, 1), (0.5, 0.7), (0.9, 0.99), (0.99, 1.0), (1e-9, 0), (1 - 1e-9, 1)])
def test_an_interval_is_within_0_and_1_and_contains_the_mean(values, images):
    low, high = interval(values, images)
    assert 0 <= low <= sum(values) / 2 <= high <= 1
    assert low < high


@pytest.mark.parametrize(("seeds", "images", "spread"), [(2, 300, 0.01), (3, 300, 0), (3, 5000, 0.01), (10, 300, 0.02)])
def test_the_interval_covers_the_accuracy_as_often_as_it_says(seeds, images, spread):
    """Images differ in difficulty, seeds in luck. The images are the same for all seeds."""
    generator, hits, trials = np.random.default_rng(seeds), 0, 1000
    difficulty = generator.beta(4.5, 0.5, 200_000)
    accuracy = difficulty.mean()
    for _ in range(trials):
        chances = generator.choice(difficulty, images)[None] + generator.normal(0, spread, (seeds, 1))
        values = (generator.random((seeds, images)) < chances).mean(1).tolist()
        low, high = interval(values, images)
        hits += low <= accuracy <= high
    assert hits / trials > 0.93  # three standard errors of a thousand trials below 0.95


@pytest.mark.parametrize("values", [(0.9,), (0.9, math.nan), (-0.5, 0.5), (3.0, 4.0), (0.9, 0.9), (0.0, math.inf)])
def test_no_interval_without_a_proportion_or_a_spread(values):
    assert interval(values, None) == (None, None)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (10, 4)])
def test_welchs_test_equals_that_of_scipy(n, m):
    generator = random.Random(n)
    first = [generator.gauss(0.9, 0.01) for _ in range(n)]
    second = [generator.gauss(0.92, 0.03) for _ in range(m)]
    tested = welch(sample_statistics(first), sample_statistics(second))
    expected = stats.ttest_ind(second, first, equal_var=False)
    assert tested.p == pytest.approx(expected.pvalue)
    assert (tested.low, tested.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert tested.mean == pytest.approx(sum(second) / m - sum(first) / n)


def test_where_no_test_applies():
    varied, single, equal = sample_statistics([0.5, 0.6]), sample_statistics([0.5]), sample_statistics([1.0, 1.0])
    for sides in ((varied, single), (single, varied), (equal, sample_statistics([0.9, 0.9]))):
        assert welch(*sides)[1:] == (None, None, None)
    for broken in (sample_statistics([0.5, math.nan]), sample_statistics([0.5, math.inf])):
        assert welch(varied, broken).p is welch(broken, varied).p is None
    assert welch(varied, equal).p == pytest.approx(stats.ttest_ind([0.5, 0.6], [1, 1], equal_var=False).pvalue)


def test_the_interval_of_a_difference_of_accuracies_is_within_their_range():
    sides = sample_statistics([0.1, 0.9]), sample_statistics([0.8, 0.9])
    difference, possible = welch(*sides), compare_accuracies(*sides)
    assert difference.low < -1
    assert difference.high > 1
    assert (possible.low, possible.high, possible.p) == (-1, 1, difference.p)
    assert compare_accuracies(sample_statistics([0.8, 0.81]), sides[1]) == welch(
        sample_statistics([0.8, 0.81]), sides[1]
    )


def test_the_mean_of_folds_varies_more_than_that_of_seeds():
    """Nadeau and Bengio 2003: the variance of the mean is (1/n + test images / training images) times that of runs."""
    seeds = sample_statistics([0.80, 0.82, 0.84, 0.86, 0.88])
    folds = seeds._replace(overlap=1 / 4)
    assert folds.variance_of_mean(folds.deviation) == pytest.approx((1 / 5 + 1 / 4) * 0.001)
    widths = [statistics.high - statistics.low for statistics in (with_interval(each, None) for each in (seeds, folds))]
    assert widths[1] / widths[0] == pytest.approx(1.5, rel=0.01)  # the root of 9/4
    other = sample_statistics([0.9, 0.91, 0.92, 0.93, 0.94])
    assert welch(folds, other._replace(overlap=1 / 4)).p > welch(seeds, other).p
