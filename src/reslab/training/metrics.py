"""The loss and the scores over an epoch. They stay on the device until they are computed."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

BINS = 15  # of the calibration error, as in Guo et al. 2017, section 5
TOP5_ABOVE = 5  # classes: with fewer, every prediction would be among the first five
# A float32 sum of a million small numbers stops growing. Apple's GPUs compute in float32 alone.
SUM_DTYPE = torch.float32 if torch.mps.is_available() else torch.float64


class Metrics(nn.Module):
    """The mean loss and the scores over every image that was added since the last reset.

    `compute` returns "loss", "accuracy" and, for more than five classes, "top5_accuracy". No score depends on how the
    images were divided into batches. An image whose logits have no softmax, e.g. because one of them is NaN, counts as
    wrong; the loss and the calibration error are then NaN.

    Args:
        num_classes: the number of classes.
        final: compute the scores of a test as well: "f1_macro", the mean over the classes that are the true or the
            predicted class of some image, and "calibration_error".
    """

    def __init__(self, num_classes: int, *, final: bool = False) -> None:
        super().__init__()
        scores: dict[str, Metric] = {name: top_accuracy(num_classes, k) for name, k in accuracies(num_classes).items()}
        if final:
            scores["f1_macro"] = MacroF1(num_classes, average="macro", validate_args=False)
        self.loss = MeanLoss()
        self.scores = MetricCollection(scores, compute_groups=False)  # type: ignore[arg-type]
        self.calibration_error = CalibrationError() if final else None

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Add a batch, and return the logits that its scores are computed from.

        Args:
            loss: the mean loss of the batch, a scalar.
            logits: (N, num_classes).
            labels: int64 (N,).
        """
        if not len(labels):  # the share of a process: its mean loss is NaN, and torchmetrics (1.9) cannot count it
            return logits
        self.loss.update(loss, len(labels))
        scored = without_accidental_hits(logits, labels)
        self.scores.update(scored, labels)
        if self.calibration_error is not None:
            self.calibration_error.update(logits, labels)
        return scored

    def compute(self) -> dict[str, Tensor]:
        """Return scalars on the device, by name."""
        values = {"loss": self.loss.compute(), **self.scores.compute()}
        if self.calibration_error is not None:
            values["calibration_error"] = self.calibration_error.compute()
        return values

    def reset(self) -> None:
        """Forget what was added."""
        self.loss.reset()
        self.scores.reset()
        if self.calibration_error is not None:
            self.calibration_error.reset()


def metrics_of(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the metrics of a test by name, without "test/", from logits, float32 (N, C), and labels, int64 (N,)."""
    metrics = Metrics(logits.shape[1], final=True)
    for part in torch.arange(len(labels)).split(1024):
        metrics.add(F.cross_entropy(logits[part], labels[part]), logits[part], labels[part])
    return {name: value.item() for name, value in metrics.compute().items()}


class TrainingMetrics:
    """The mean loss and the accuracies over the images that this process has trained on since the last reset.

    A step needs one operation for them, and nothing waits for the device before `compute`. Training ends at a loss that
    is NaN, so that it counts no accidental hits.

    Args:
        num_classes: the number of classes.

    Attributes:
        sums: of `SUM_DTYPE`: the sum of the losses of all images, and how many are right by each accuracy.
        images: the number of images, which need not be an integer where `load_states` has divided it.
    """

    def __init__(self, num_classes: int) -> None:
        self.accuracies = accuracies(num_classes)
        self.reset()

    def reset(self) -> None:
        """Forget what was added."""
        self.sums = torch.zeros(1 + len(self.accuracies), dtype=SUM_DTYPE)
        self.images: float = 0

    def of_batch(self, loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the sums of a batch with this mean loss, without adding them."""
        right = [hits(logits, labels, k).to(SUM_DTYPE) for k in self.accuracies.values()]
        return torch.stack([loss.to(SUM_DTYPE) * len(labels), *right])

    def add(self, sums: Tensor, images: int) -> None:
        """Add the sums of a batch, whose memory may change afterwards."""
        self.sums, self.images = self.sums.to(sums.device) + sums, self.images + images

    def compute(self) -> dict[str, Tensor]:
        """Return scalars on the device, by name."""
        loss, *right = self.sums
        scores = {name: count.float() / self.images for name, count in zip(self.accuracies, right, strict=True)}
        return {"loss": loss / self.images, **scores}

    def state(self) -> dict[str, Any]:
        """Return what was added, on the CPU, for a checkpoint within an epoch."""
        return {"sums": self.sums.cpu(), "images": self.images}

    def load_states(self, states: Sequence[dict[str, Any]], rank: int, world_size: int) -> None:
        """Continue with what `state` returned in each process, here or in an older version with torchmetrics.

        Where another number of processes continues, each of them takes an equal share of all sums.
        """
        sums, images = zip(*map(self.sums_and_images, states), strict=True)
        if len(states) == world_size:
            self.sums, self.images = sums[rank], images[rank]
        else:
            self.sums, self.images = torch.stack(sums).sum(0) / world_size, sum(images) / world_size

    def sums_and_images(self, state: dict[str, Any]) -> tuple[Tensor, float]:
        if "sums" in state:
            return state["sums"], state["images"]
        right = [state[f"scores.{name}.tp"].sum().to(SUM_DTYPE) for name in self.accuracies]
        return torch.stack([state["loss.total"].to(SUM_DTYPE), *right]), int(state["loss.images"])


def accuracies(num_classes: int) -> dict[str, int]:
    """Return the names of the accuracies, and how many of an image's most probable classes count in each."""
    return {"accuracy": 1} | ({"top5_accuracy": 5} if num_classes > TOP5_ABOVE else {})


def hits(logits: Tensor, labels: Tensor, k: int) -> Tensor:  # (N, C), (N,) -> ()
    """Return how many images have their label among the k most probable classes."""
    if k == 1:
        return (logits.argmax(1) == labels).sum()
    return (logits.topk(k).indices == labels[:, None]).sum()


def top_accuracy(num_classes: int, k: int) -> Metric:
    return MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False)


class MacroF1(MulticlassF1Score):
    """The macro F1 score. torchmetrics (1.9) counts each batch in a matrix of num_classes**2 numbers."""

    def update(self, logits: Tensor, labels: Tensor) -> None:  # (N, num_classes), int64 (N,)
        predicted = logits.argmax(1)
        right = predicted == labels

        def count(classes: Tensor, counted: Tensor) -> Tensor:  # (N,), bool (N,) -> int64 (num_classes,)
            return labels.new_zeros(logits.shape[1]).index_add_(0, classes, counted.long())

        true, false_positive = count(labels, right), count(predicted, ~right)
        false_negative = count(labels, ~right)
        self._update_state(true, false_positive, len(labels) - true - false_positive - false_negative, false_negative)


def without_accidental_hits(logits: Tensor, labels: Tensor) -> Tensor:  # (N, C), (N,) -> (N, C)
    """Return logits in which an image without a softmax has its own class in the last place.

    argmax takes NaN for the largest number, so that a network of NaN would be right for every image of class 0.
    """
    has_softmax = logits.logsumexp(1, keepdim=True).isfinite()  # (N, 1)
    is_other_class = torch.arange(logits.shape[1], device=logits.device) != labels[:, None]  # (N, C)
    return torch.where(has_softmax, logits, is_other_class.to(logits.dtype))


class MeanLoss(Metric):
    """The mean over images of the mean losses of batches. It is NaN if one of them is.

    MeanMetric of torchmetrics (1.9) copies every value to the CPU to look for NaN, and ignores its weights if that is
    turned off.
    """

    full_state_update = False  # an update does not depend on the earlier ones
    total: Tensor
    images: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("total", torch.tensor(0.0, dtype=SUM_DTYPE), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        self.total = self.total.to(SUM_DTYPE) + loss.to(SUM_DTYPE) * images  # bf16-true has made it bfloat16
        self.images += images

    def compute(self) -> Tensor:
        return self.total / self.images


class CalibrationError(Metric):
    """The expected calibration error: how far the confidence of a prediction is from the share of right predictions.

    The confidences, from 0 to 1, are divided into `BINS` equal intervals; each bin counts by its images (Guo et al.
    2017, arXiv:1706.04599, equation 3). MulticlassCalibrationError of torchmetrics (1.9) takes a batch of logits from
    0 to 1 for probabilities, has a further bin for the confidence 1, and keeps every image.
    """

    full_state_update = False
    images: Tensor
    right: Tensor
    confidence: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("images", torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros(BINS, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidence", torch.zeros(BINS, dtype=SUM_DTYPE), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        confidence = logits.float().softmax(1).amax(1)  # (N,)
        predicted = without_accidental_hits(logits, labels).argmax(1)  # (N,), as the accuracy counts it
        number = bins_of(confidence)
        in_bin = number[:, None] == torch.arange(BINS, device=logits.device)  # (N, BINS)
        self.images += in_bin.sum(0)
        self.right += (in_bin & (predicted == labels)[:, None]).sum(0)
        # A confidence that is NaN makes every sum NaN, whatever its bin.
        confidences = in_bin * confidence.to(SUM_DTYPE)[:, None]
        self.confidence = self.confidence.to(SUM_DTYPE) + confidences.sum(0)

    def compute(self) -> Tensor:
        return (self.right - self.confidence).abs().sum() / self.images.sum()


def bins_of(confidence: Tensor) -> Tensor:  # (N,) -> int64 (N,)
    """Return the number of the bin of each confidence, of `BINS` equal ones. An upper bound belongs to its bin."""
    upper_bounds = torch.arange(1, BINS, device=confidence.device) / BINS
    return torch.bucketize(confidence, upper_bounds)
