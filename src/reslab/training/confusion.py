"""Which classes a network confuses: how often each pair of a true and a predicted class occurred in a test."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Confusion:
    """The pairs of a true and a predicted class that occurred, with their counts.

    The memory grows with the images, not with the square of the classes: a matrix of 20,000 classes has 3.2 GB.

    Attributes:
        true, predicted: the classes of each pair, int64 (pairs,), sorted.
        counts: the images of each pair, int64 (pairs,).
        num_classes: the number of all classes.
    """

    true: Tensor
    predicted: Tensor
    counts: Tensor
    num_classes: int

    @classmethod
    def of_codes(cls, parts: Iterable[Tensor], num_classes: int) -> "Confusion":
        """Count images by their codes, int64 (N,) in each part: true class * num_classes + predicted class."""
        empty = torch.empty(0, dtype=torch.int64)
        codes, counts = torch.cat([empty, *(part.cpu() for part in parts)]).unique(return_counts=True)
        return cls(codes // num_classes, codes % num_classes, counts, num_classes)

    @property
    def images(self) -> int:
        return int(self.counts.sum())

    def by_true_class(self) -> Tensor:
        """Return the number of images of each class, int64 (num_classes,)."""
        return self._sum(self.true, self.counts)

    def by_predicted_class(self) -> Tensor:
        """Return how often each class was predicted, int64 (num_classes,)."""
        return self._sum(self.predicted, self.counts)

    def right(self) -> Tensor:
        """Return how many images of each class were classified correctly, int64 (num_classes,)."""
        return self._sum(self.true, self.counts * (self.true == self.predicted))

    def matrix(self, classes: Tensor | None = None) -> Tensor:
        """Return the counts as a matrix, true by predicted class.

        Args:
            classes: the classes of the rows and columns, int64 (n,); by default all of them.

        Returns:
            int64 (n, n).
        """
        classes = torch.arange(self.num_classes) if classes is None else classes
        place = torch.full((self.num_classes,), -1)
        place[classes] = torch.arange(len(classes))
        rows, columns = place[self.true], place[self.predicted]
        kept = (rows >= 0) & (columns >= 0)
        matrix = torch.zeros(len(classes), len(classes), dtype=torch.int64)
        matrix[rows[kept], columns[kept]] = self.counts[kept]
        return matrix

    def most_confused(self, n: int) -> Tensor:
        """Return the `n` classes, sorted, that were most often the true or the predicted class of a mistake."""
        mistakes = self.by_true_class() + self.by_predicted_class() - 2 * self.right()
        return mistakes.topk(min(n, self.num_classes)).indices.sort().values

    def _sum(self, classes: Tensor, counts: Tensor) -> Tensor:
        return torch.zeros(self.num_classes, dtype=torch.int64).index_add_(0, classes, counts)
