"""The loss and the scores of torchmetrics over an epoch. They stay on the device until they are computed."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score


class Metrics(nn.Module):
    """The mean loss and the scores over every image that was added since the last reset.

    `compute` returns "loss", "accuracy" and, for more than five classes, "top5_accuracy".

    Args:
        num_classes: the number of classes.
        local: compute over the images of this process alone, instead of those of all processes.
        final: compute the scores of a test as well: "f1_macro" and "calibration_error" (the expected calibration error
            with 15 bins, Guo et al. 2017, arXiv:1706.04599).
    """

    def __init__(self, num_classes: int, *, local: bool = False, final: bool = False) -> None:
        super().__init__()
        options: dict[str, Any] = {"sync_on_compute": not local}
        scores: dict[str, Metric] = {"accuracy": top_accuracy(num_classes, 1, options)}
        if num_classes > 5:
            scores["top5_accuracy"] = top_accuracy(num_classes, 5, options)
        if final:
            scores["f1_macro"] = MulticlassF1Score(num_classes, average="macro", validate_args=False)
            scores["calibration_error"] = MulticlassCalibrationError(num_classes, n_bins=15, validate_args=False)
        self.loss = MeanLoss(**options)
        self.scores = MetricCollection(scores, compute_groups=False)  # type: ignore[arg-type]

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            loss: the mean loss of the batch, a scalar.
            logits: (N, num_classes).
            labels: int64 (N,).
        """
        self.loss.update(loss, len(labels))
        self.scores.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        """Return scalars on the device, by name."""
        return {"loss": self.loss.compute(), **self.scores.compute()}

    def state(self) -> dict[str, Tensor]:
        """Return what was added, on the CPU, for a checkpoint within an epoch."""
        return {key: getattr(metric, name).cpu() for key, metric, name in self._states()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue with what `state` returned."""
        for key, metric, name in self._states():
            getattr(metric, name).copy_(state[key])

    def _states(self) -> list[tuple[str, Metric, str]]:
        metrics = [(path, module) for path, module in self.named_modules() if isinstance(module, Metric)]
        return [(f"{path}.{name}", metric, name) for path, metric in metrics for name in metric.metric_state]

    def reset(self) -> None:
        """Forget what was added."""
        self.loss.reset()
        self.scores.reset()


def top_accuracy(num_classes: int, k: int, options: dict[str, Any]) -> Metric:
    return MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False, **options)


class MeanLoss(Metric):
    """The mean over images of the mean losses of batches. It is NaN if one of them is.

    MeanMetric of torchmetrics (1.9) copies every value to the CPU to look for NaN, and ignores its weights if that is
    turned off.
    """

    total: Tensor
    images: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        self.total = self.total.float() + loss.float() * images  # in bf16-true, eight bits would be too few for the sum
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images
