"""Sets of classes that contain the true one with a chosen probability: split conformal prediction.

The score of a class is what its cross-entropy loss would be, -log p. It ranks the classes of all images as the score
1 - p of Sadinle et al. 2019 (LAC, arXiv:1609.00451, section 2) does, so that the sets are the same, and has no ties
where probabilities round to 1. Among all sets of the same coverage, these have the smallest mean size if the
probabilities are right (theorem 1 there). Adaptive sets (APS, Romano et al. 2020, arXiv:2006.02544) cover hard images
better, but are larger and random.
"""

import math
from fractions import Fraction

from torch import Tensor

from reslab.errors import UserError


def class_scores(logits: Tensor) -> Tensor:  # float (N, C) -> float64 (N, C)
    """Return the score of each class of each image. The probabilities are those without a temperature."""
    return -logits.double().log_softmax(1)


def true_scores(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the scores of the true classes, ascending: what `threshold` takes.

    Args:
        logits: float (N, C).
        labels: int64 (N,).

    Returns:
        float64 (N,).
    """
    return class_scores(logits).gather(1, labels[:, None]).squeeze(1).sort().values


def threshold(scores: Tensor, coverage: float) -> float:
    """Return the largest score that a class of a prediction set may have.

    It is the k-th smallest of the n scores, k = ceil((n + 1) * coverage) (Vovk et al. 2005; Angelopoulos & Bates 2021,
    arXiv:2107.07511, section 1). If another image and these n are exchangeable, its set contains its true class with a
    probability of at least `coverage`, and of at most coverage + 1 / (n + 1) if no two scores are equal.

    Args:
        scores: float64 (n,), ascending, of images that the network was not trained on.
        coverage: above 0 and below 1.

    Raises:
        UserError: there are too few scores for this coverage.
    """
    n = len(scores)
    rank = math.ceil((n + 1) * Fraction(str(coverage)))  # 100 * 0.55 is 55.00000000000001 in floating point
    if rank > n:
        raise UserError(
            f"coverage={coverage} needs at least {math.ceil(1 / (1 - Fraction(str(coverage)))) - 1:,} validation "
            f"images, and the checkpoint was calibrated with {n:,}, which allow at most coverage={highest_coverage(n)}"
        )
    return scores[rank - 1].item()


def highest_coverage(n: int) -> str:
    """Return the highest coverage that n scores allow, n / (n + 1), rounded down to as many digits as it needs."""
    digits = len(str(n + 1))
    return f"{math.floor(Fraction(n, n + 1) * 10**digits) / 10**digits:.{digits}f}"


def prediction_sets(logits: Tensor, limit: float) -> Tensor:  # float (N, C) -> bool (N, C)
    """Return which classes belong to the set of each image: those with scores up to `limit`. A set may be empty."""
    return class_scores(logits) <= limit


def ordered_sets(logits: Tensor, limit: float) -> list[list[int]]:
    """Return the labels in the set of each image, the most probable first. Arguments as for `prediction_sets`."""
    order = logits.sort(dim=1, descending=True, stable=True).indices
    kept = prediction_sets(logits, limit).gather(1, order)
    return [labels[keep].tolist() for labels, keep in zip(order, kept, strict=True)]


def measured_coverage(logits: Tensor, labels: Tensor, limit: float) -> dict[str, float]:
    """Return what the sets of labelled images are like.

    Args:
        logits: float (N, C).
        labels: int64 (N,).
        limit: what `threshold` returns.

    Returns:
        "coverage", the share of images whose set contains the true class; "mean_size", the mean number of classes in a
        set; "empty" and "single", the shares of sets without a class and with one.
    """
    sets = prediction_sets(logits, limit)
    sizes = sets.sum(1)
    shares = {
        "coverage": sets.gather(1, labels[:, None]),
        "mean_size": sizes,
        "empty": sizes == 0,
        "single": sizes == 1,
    }
    return {name: values.double().mean().item() for name, values in shares.items()}
