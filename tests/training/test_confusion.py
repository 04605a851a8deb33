import numpy as np
import torch
from sklearn.metrics import confusion_matrix

from reslab.training.confusion import Confusion

GENERATOR = np.random.default_rng(0)
TRUE, PREDICTED = GENERATOR.integers(0, 6, 500), GENERATOR.integers(1, 7, 500)  # 0 is never predicted, 6 has no image
EXPECTED = confusion_matrix(TRUE, PREDICTED, labels=range(8))


def confusion():
    codes = torch.from_numpy(TRUE * 8 + PREDICTED)
    return Confusion.of_codes(codes.split(64), 8)


def test_the_matrix_is_that_of_scikit_learn():
    assert np.array_equal(confusion().matrix(), EXPECTED)
    assert np.array_equal(confusion().matrix(torch.tensor([5, 1])), EXPECTED[np.ix_([5, 1], [5, 1])])


def test_sums_are_those_of_the_matrix():
    found = confusion()
    assert found.images == 500
    assert np.array_equal(found.by_true_class(), EXPECTED.sum(1))
    assert np.array_equal(found.by_predicted_class(), EXPECTED.sum(0))
    assert np.array_equal(found.right(), EXPECTED.diagonal())


def test_the_most_confused_classes():
    mistakes = EXPECTED.sum(0) + EXPECTED.sum(1) - 2 * EXPECTED.diagonal()
    assert sorted(mistakes)[-3] > sorted(mistakes)[-4]  # the three are unambiguous
    assert confusion().most_confused(3).tolist() == sorted(np.argsort(mistakes)[-3:].tolist())


def test_memory_grows_with_the_images_and_not_with_the_classes():
    found = Confusion.of_codes([torch.tensor([7, 7, 10**12 - 1])], 10**6)
    assert (found.true.tolist(), found.predicted.tolist(), found.counts.tolist()) == (
        [0, 999_999],
        [7, 999_999],
        [2, 1],
    )


def test_a_test_without_images_has_no_pairs():
    found = Confusion.of_codes([], 3)
    assert found.images == 0
    assert not found.matrix().any()
