import math
import random

import pytest
from scipy import stats

from reslab.reports.statistics import sample_statistics, welch


def test_statistics_of_no_of_one_and_of_two_values():
    assert sample_statistics([]) is None
    assert sample_statistics([0.5]) == (1, 0.5, None, None, None)
    assert list(map(str, sample_statistics([0.5, math.nan]))) == ["2", "nan", "nan", "nan", "nan"]
    assert list(map(str, sample_statistics([0.5, math.inf]))) == ["2", "inf", "nan", "nan", "nan"]
    n, mean, deviation, low, high = sample_statistics([0.5, 0.7])
    assert (n, mean, deviation) == (2, pytest.approx(0.6), pytest.approx(0.1 * 2**0.5))
    margin = 12.7062 * 0.1  # 12.7062: Student's t for one degree of freedom
    assert (low, high) == pytest.approx((0.6 - margin, 0.6 + margin), rel=1e-5)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (10, 4)])
def test_statistics_equal_those_of_scipy(n, m):
    generator = random.Random(n)
    first = [generator.gauss(0.9, 0.01) for _ in range(n)]
    second = [generator.gauss(0.92, 0.03) for _ in range(m)]
    interval = stats.t.interval(0.95, n - 1, loc=sum(first) / n, scale=stats.sem(first))
    assert sample_statistics(first)[3:] == pytest.approx(interval)
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
