"""The loss and torchmetrics' scores over an epoch, kept on the device until they are asked for."""

from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError, MulticlassF1Score


class Metrics(nn.Module):
    """Over every image added since the last reset; over all devices unless `local`.

    final: also the scores that only the test reports, macro F1 and the calibration error (15 bins, arXiv:1706.04599).
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

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:  # mean over N, (N, num_classes), (N,)
        self.loss.update(loss, len(labels))
        self.scores.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        return {"loss": self.loss.compute(), **self.scores.compute()}

    def state(self) -> dict[str, Tensor]:
        """What was added, for a checkpoint within an epoch."""
        return {key: getattr(metric, name).cpu() for key, metric, name in self._states()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        for key, metric, name in self._states():
            getattr(metric, name).copy_(state[key])

    def _states(self) -> list[tuple[str, Metric, str]]:
        metrics = [(path, module) for path, module in self.named_modules() if isinstance(module, Metric)]
        return [(f"{path}.{name}", metric, name) for path, metric in metrics for name in metric.metric_state]

    def reset(self) -> None:
        self.loss.reset()
        self.scores.reset()


def top_accuracy(num_classes: int, k: int, options: dict[str, Any]) -> Metric:
    return MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False, **options)


class MeanLoss(Metric):
    """The mean over images of batch means; a NaN shows.

    torchmetrics' own MeanMetric reads back every value to look for NaNs or, told not to (1.9), drops the weights.
    """

    total: Tensor
    images: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        self.total = self.total.float() + loss.float() * images  # precision=bf16-true would count in eight bits
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images
