"""The loss and torchmetrics' scores over an epoch, kept on the device until they are asked for."""

from typing import Any

from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
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
        self.loss = MeanMetric(nan_strategy="disable", **options)
        self.scores = MetricCollection(scores, compute_groups=False)  # type: ignore[arg-type]

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:  # mean over N, (N, num_classes), (N,)
        self.loss.update(loss, weight=len(labels))
        self.scores.update(logits, labels)

    def compute(self) -> dict[str, Tensor]:
        return {"loss": self.loss.compute(), **self.scores.compute()}

    def reset(self) -> None:
        self.loss.reset()
        self.scores.reset()


def top_accuracy(num_classes: int, k: int, options: dict[str, Any]) -> Metric:
    return MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False, **options)
