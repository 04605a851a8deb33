"""Which images the page shows: a bounded number, those that say most first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reslab.training.answers import Answers

MAX_PICTURES = 500  # on a page
SHOWN = 24  # most confident mistakes, and as many least confident right answers
SHARE_OF_RIGHT = 4  # at least a quarter of the pictures are of right answers, where there are so many

Positions = NDArray[np.int64]  # in the answers


@dataclass(frozen=True)
class Chosen:
    """The images of a page, by their positions in the answers.

    Attributes:
        mistakes: the most confident ones first.
        doubtful: the right answers of least confidence first.
        all: those of both and of the cells of the confusion matrix, ascending.
    """

    mistakes: list[int]
    doubtful: list[int]
    all: list[int]


def choose(answers: Answers, limit: int = MAX_PICTURES) -> Chosen:
    """Choose the images that the page shows.

    Each pair of a true and a predicted class gets its worst image before any pair gets a second one, so that as many
    cells of the confusion matrix as possible have one. A mistake is worse for a larger loss, a right answer for less
    confidence.
    """
    right = answers.right.numpy()
    confidence = np.nan_to_num(answers.confidence.numpy().astype(np.float64), nan=0.0)
    losses = np.nan_to_num(answers.losses.numpy().astype(np.float64), nan=np.inf)
    pairs = answers.labels.numpy() * len(answers.classes) + answers.predicted.numpy()
    (wrong_ones,), (right_ones,) = np.nonzero(~right), np.nonzero(right)
    mistakes = wrong_ones[np.argsort(-confidence[wrong_ones], kind="stable")][:SHOWN]
    doubtful = right_ones[np.argsort(confidence[right_ones], kind="stable")][:SHOWN]
    worst = without_repeats([mistakes, in_turn(wrong_ones, pairs, losses)])
    other = without_repeats([doubtful, in_turn(right_ones, pairs, -confidence)])
    worst = worst[: limit - min(len(other), limit // SHARE_OF_RIGHT)]
    return Chosen(mistakes.tolist(), doubtful.tolist(), sorted(worst + other[: limit - len(worst)]))


def without_repeats(parts: Sequence[Positions]) -> list[int]:
    return list(dict.fromkeys(np.concatenate(parts).tolist()))


def in_turn(positions: Positions, pairs: NDArray[np.int64], badness: NDArray[np.float64]) -> Positions:
    """Return positions ordered by their rank within their pair, and those of equal rank by badness, the worst first."""
    order = positions[np.lexsort((positions, -badness[positions], pairs[positions]))]  # by pair, the worst first
    _, starts, counts = np.unique(pairs[order], return_index=True, return_counts=True)
    ranks = np.arange(len(order)) - np.repeat(starts, counts)
    return order[np.lexsort((order, -badness[order], ranks))]
