import numpy as np
import pytest
from sklearn.metrics import f1_score

from reslab.reports.run_page import resampling
from reslab.reports.run_page.resampling import calibrated_errors, f1_resamples, intervals_of, mean_resamples


def test_the_intervals_of_a_mean_is_that_of_its_standard_error():
    values = np.random.default_rng(1).normal(3, 2, 5000)
    ((low, high),) = intervals_of(mean_resamples(values)[:, None], np.array([values.mean()]))
    error = values.std() / 5000**0.5
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
    assert mean_resamples(values).tolist() == mean_resamples(values).tolist()  # a fixed seed


def test_values_that_do_not_vary_or_are_not_finite_have_no_interval():
    values = np.array([[0.5, np.nan, np.nan, 0.25], [0.5, 0.5, np.nan, 0.75], [0.5, 0.5, np.nan, np.inf]])
    assert intervals_of(values, np.full(4, 0.5)) == [None] * 4


def test_an_interval_has_its_metric_and_what_resamples_have_and_is_within_the_bounds():
    values = np.random.default_rng(3).normal(0.9, 0.02, (5000, 2))
    (low, high), (_, highest) = intervals_of(values, np.array([0.92, 0.99]), highest=1)
    assert (low, high) == (pytest.approx(0.90 - 1.96 * 0.02, abs=0.002), pytest.approx(0.92 + 1.96 * 0.02, abs=0.002))
    assert highest == 1


def test_a_class_with_one_mistake_may_have_had_none():
    scores = f1_resamples(np.array([0, 0, 1]), np.array([0, 1, 1]), np.array([30, 1, 30]), num_classes=2)
    assert (scores == 1).all(1).mean() == pytest.approx((60 / 61) ** 61, abs=0.05)
    assert [high for _, high in intervals_of(scores, np.array([60 / 61, 60 / 61]), highest=1)] == [1, 1]


@pytest.mark.slow
def test_the_f1_scores_of_resamples_are_those_of_drawn_images():
    """Resampling pairs of classes and resampling images give the same distribution; scikit-learn scores the images."""
    random = np.random.default_rng(2)
    true = random.integers(0, 3, 300)
    predicted = np.where(random.random(300) < 0.7, true, random.integers(0, 3, 300))
    codes, counts = np.unique(3 * true + predicted, return_counts=True)
    scores = f1_resamples(codes // 3, codes % 3, counts, 4)
    assert scores.shape == (1000, 4)
    assert np.isnan(scores[:, 3]).all()  # a class without images
    drawn = (random.integers(0, 300, 300) for _ in range(400))
    expected = np.array([f1_score(true[each], predicted[each], average=None) for each in drawn])
    assert scores[:, :3].mean(0) == pytest.approx(expected.mean(0), abs=0.005)
    assert scores[:, :3].std(0) == pytest.approx(expected.std(0), rel=0.15)


def test_a_calibrated_network_shows_the_error_of_its_draws():
    """In one bin of n images of the confidence 1/2, the error is that of n throws of a coin."""
    errors = calibrated_errors(np.full(400, 0.5, np.float32), np.full(400, 7), 15)
    assert errors.mean() == pytest.approx((2 / np.pi) ** 0.5 * 0.5 / 20, rel=0.1)
    assert calibrated_errors(np.ones(5, np.float32), np.full(5, 14), 15).max() == 0


def test_many_images_have_fewer_resamples(monkeypatch):
    monkeypatch.setattr(resampling, "MAX_DRAWS", 1000)
    monkeypatch.setattr(resampling, "NUMBERS_AT_ONCE", 30)
    assert len(mean_resamples(np.arange(10.0))) == 100
    assert f1_resamples(np.array([0, 1]), np.array([0, 0]), np.array([5, 5]), 2).shape == (100, 2)
    assert len(calibrated_errors(np.full(10, 0.5, np.float32), np.zeros(10, int), 15)) == 100
