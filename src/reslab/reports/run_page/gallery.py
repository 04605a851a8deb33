"""Which images the page shows: a bounded number, those that say most first."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reslab.training.answers import Answers

MAX_PICTURES = 500  # on a page
SHOWN = 24  # most confident mistakes, and as many least confident right answers
SHARE_OF_RIGHT = 4  # a quarter of the pictures are of right answers, unless the cells of mistakes need more

Positions = NDArray[np.int64]  # in the answers


@dataclass(frozen=True)
class Chosen:
    """The images of a page, by their positions in the answers.

    Attributes:
        mistakes: the most confident ones first.
        doubtful: the right answers of least confidence first.
        all: those of both, and further ones of the cells of the confusion matrix, ascending.
    """

    mistakes: list[int]
    doubtful: list[int]
    all: list[int]


def choose(answers: Answers, limit: int = MAX_PICTURES) -> Chosen:
    """Choose the images that the page shows, in this order until there are as many as the limit:

    1. the most confident mistakes and the least confident right answers, which have galleries of their own;
    2. the worst image of each cell of mistakes, i.e. of a true and another predicted class, that has none yet;
    3. right answers until they are a quarter of the limit;
    4. further mistakes, and then further right answers.

    In 3 and 4, the worst image of every cell comes before the second worst of any, and so on. A mistake is worse for a
    larger loss, a right answer for less confidence.
    """
    right = answers.right.numpy()
    confidence = np.nan_to_num(answers.confidence.numpy().astype(np.float64), nan=0.0)
    losses = np.nan_to_num(answers.losses.numpy().astype(np.float64), nan=np.inf)
    pairs = answers.labels.numpy() * len(answers.classes) + answers.predicted.numpy()
    (wrong_ones,), (right_ones,) = np.nonzero(~right), np.nonzero(right)
    mistakes = wrong_ones[np.argsort(-confidence[wrong_ones], kind="stable")][:SHOWN]
    doubtful = right_ones[np.argsort(confidence[right_ones], kind="stable")][:SHOWN]
    wrong_in_turn, right_in_turn = in_turn(wrong_ones, pairs, losses), in_turn(right_ones, pairs, -confidence)
    worst_of_cells = wrong_in_turn[: len(np.unique(pairs[wrong_ones]))]
    worst_of_others = worst_of_cells[~np.isin(pairs[worst_of_cells], pairs[mistakes])]
    share_of_right = without_repeats([doubtful, right_in_turn])[: limit // SHARE_OF_RIGHT]
    shown = without_repeats([mistakes, doubtful, worst_of_others, share_of_right, wrong_in_turn, right_in_turn])
    return Chosen(mistakes.tolist(), doubtful.tolist(), sorted(shown[:limit].tolist()))


def without_repeats(parts: Sequence[Positions]) -> Positions:
    together = np.concatenate(parts)
    return together[np.sort(np.unique(together, return_index=True)[1])]


def in_turn(positions: Positions, pairs: NDArray[np.int64], badness: NDArray[np.float64]) -> Positions:
    """Return positions ordered by their rank within their pair, and those of equal rank by badness, the worst first."""
    order = positions[np.lexsort((positions, -badness[positions], pairs[positions]))]  # by pair, the worst first
    _, starts, counts = np.unique(pairs[order], return_index=True, return_counts=True)
    ranks = np.arange(len(order)) - np.repeat(starts, counts)
    return order[np.lexsort((order, -badness[order], ranks))]
