import math

import pytest
import torch
from scipy.stats import betabinom

from reslab.errors import UserError
from reslab.inference.conformal import class_scores, measured_coverage, prediction_sets, threshold, true_scores


def logits_of(probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_the_scores_order_classes_as_1_minus_their_probability():
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    scores, probabilities = class_scores(logits), logits.double().softmax(1)
    assert scores.flatten().argsort().equal((1 - probabilities).flatten().argsort())
    torch.testing.assert_close(scores.neg().exp(), probabilities)


def test_sets_by_hand():
    """Nine images whose true classes have the probabilities 0.9, 0.8, ..., 0.1."""
    true = [number / 10 for number in range(1, 10)]
    scores = true_scores(logits_of([[p, 1 - p] for p in true]), torch.zeros(9, dtype=torch.int64))
    assert scores.tolist() == pytest.approx([-math.log(p) for p in sorted(true, reverse=True)])
    limit = threshold(scores, 0.75)  # ceil(10 * 0.75) = 8: the 8th largest of the nine probabilities
    assert limit == pytest.approx(-math.log(0.2))
    logits = logits_of([[0.79, 0.21, 0.0], [0.81, 0.19, 0.0], [0.3, 0.3, 0.4], [0.19, 0.0, 0.81]])
    expected = [[True, True, False], [True, False, False], [True, True, True], [False, False, True]]
    assert prediction_sets(logits, limit).tolist() == expected
    assert prediction_sets(logits, threshold(scores, 0.1)).sum(1).tolist() == [0, 0, 0, 0]  # none reaches 0.9
    facts = measured_coverage(logits, torch.tensor([1, 1, 2, 0]), limit)
    assert facts == {"coverage": 0.5, "mean_size": 1.75, "empty": 0.0, "single": 0.5}


@pytest.mark.parametrize(("n", "coverage", "rank"), [(99, 0.55, 55), (19, 0.95, 19), (100, 0.9, 91), (9, 0.05, 1)])
def test_the_rank_is_exact(n, coverage, rank):
    """100 * 0.55 is 55.00000000000001 in floating point, whose ceiling would be 56."""
    assert threshold(torch.arange(1.0, n + 1), coverage) == rank


@pytest.mark.parametrize(
    ("n", "coverage", "needed", "most"), [(18, 0.95, "19", "0.94"), (358, 0.999, "999", "0.997"), (0, 0.5, "1", "0.0")]
)
def test_too_few_images_are_one_line(n, coverage, needed, most):
    with pytest.raises(UserError) as error:
        threshold(torch.zeros(n, dtype=torch.float64), coverage)
    assert str(error.value) == (
        f"coverage={coverage} needs at least {needed} validation images, and the checkpoint was calibrated with {n}, "
        f"which allow at most coverage={most}"
    )
    if n:
        assert threshold(torch.arange(float(n)), float(most)) == n - 1
    assert threshold(torch.arange(float(needed)), coverage) == float(needed) - 1


@pytest.mark.parametrize("coverage", [0.5, 0.9, 0.95])
def test_the_coverage_of_exchangeable_images_is_beta_binomial(coverage):
    """The number of m images that are covered has the beta-binomial distribution (Vovk 2012, arXiv:1209.2673)."""
    n, m, draws = 99, 100, 400
    generator = torch.Generator().manual_seed(1)
    covered = []
    for _ in range(draws):
        logits = 2 * torch.randn(n + m, 5, generator=generator)
        labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)
        limit = threshold(true_scores(logits[:n], labels[:n]), coverage)
        covered.append(m * measured_coverage(logits[n:], labels[n:], limit)["coverage"])
    rank = math.ceil((n + 1) * coverage)
    expected = betabinom(m, rank, n + 1 - rank)
    assert expected.mean() == pytest.approx(m * coverage)  # 100 images and a round coverage: the bound is reached
    error = expected.std() / draws**0.5
    assert abs(sum(covered) / draws - expected.mean()) < 4 * error
    low, high = expected.interval(1 - 1e-6)
    assert all(low <= count <= high for count in covered)
    assert torch.tensor(covered).std().item() == pytest.approx(expected.std(), rel=0.2)
