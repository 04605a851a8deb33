"""Whether two networks give the same answers."""

import torch
from torch import Tensor

from reslab.errors import RunError

# float32 sums in another order differ by about 1e-6; 3e-7 was measured for a ResNet-8, 2e-6 for a ResNet-1001.
TOLERANCE = 1e-4


class Comparison:
    """Count over batches how much the probabilities of a file differ from those of the run's network.

    Attributes:
        images: how many were compared.
        difference: the largest difference of a probability; not a number if the file has given one that is none.
        changed: answers (the most probable class) that are others. A tie is none: two classes whose probabilities in
            the run's network differ by less than twice the tolerance.
        right, right_before: the right answers of the file and of the run's network; 0 where there are no labels.
    """

    def __init__(self) -> None:
        self.images = self.changed = self.right = self.right_before = 0
        self._difference = torch.tensor(0.0)

    @property
    def difference(self) -> float:
        return float(self._difference)

    @property
    def agrees(self) -> bool:
        return self.difference <= TOLERANCE and self.changed == 0

    def add(self, expected: Tensor, given: Tensor, labels: Tensor | None = None) -> None:
        """Count a batch.

        Args:
            expected: the probabilities of the run's network, (N, num_classes).
            given: those of the file.
            labels: int64 (N,).

        Raises:
            RunError: the file has answered in another shape.
        """
        if given.shape != expected.shape:
            raise RunError(f"the file answers in the shape {tuple(given.shape)} instead of {tuple(expected.shape)}")
        self.images += len(expected)
        # torch's maximum of a number and of what is none is none; Python's would be the number
        self._difference = torch.maximum(self._difference, (given - expected).abs().max())
        answers = given.argmax(1)
        gap = expected.amax(1) - expected.gather(1, answers[:, None]).squeeze(1)
        self.changed += int(((answers != expected.argmax(1)) & ~(gap < 2 * TOLERANCE)).sum())
        if labels is not None:
            self.right += int((answers == labels).sum())
            self.right_before += int((expected.argmax(1) == labels).sum())
