"""The loss of training, as conf/loss chooses it. Validation and tests measure the cross-entropy, whatever it is.

A loss is a function of (logits, targets, class_weights, label_smoothing) and of the options in its file:

- logits: (N, num_classes).
- targets: int64 labels (N,), or shares of the classes (N, num_classes) in batches that MixUp or CutMix has mixed.
- class_weights: (num_classes,), or None where every image counts equally.
- label_smoothing: from 0 to 1, spread over all classes.

It returns a scalar. Nothing in it looks at a value on a GPU.
"""

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor, class_weights: Tensor | None, label_smoothing: float) -> Tensor:
    """Return the mean cross-entropy; with weights, the weighted mean, of which torch's is a case for unmixed labels."""
    if class_weights is None:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    total = F.cross_entropy(logits, targets, class_weights, reduction="sum", label_smoothing=label_smoothing)
    return total / mean_over_processes(image_weights(targets, class_weights).sum())


def binary_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    class_weights: Tensor | None,
    label_smoothing: float,
    target_threshold: float | None,
    sum_classes: bool,
) -> Tensor:
    """Return the mean over the images of the mean or the sum of the classes' binary cross-entropies.

    Targets, threshold and smoothing are those of timm's BinaryCrossEntropy and Mixup.
    """
    shares = class_shares(logits, targets, label_smoothing)
    if target_threshold is not None:
        shares = (shares > target_threshold).to(shares.dtype)
    each = F.binary_cross_entropy_with_logits(logits.to(shares.dtype), shares, reduction="none")  # (N, num_classes)
    losses = each.sum(1) if sum_classes else each.mean(1)
    if class_weights is None:
        return losses.mean()
    weights = image_weights(targets, class_weights)  # a weight of the class's own terms would move no optimum
    return (losses * weights).sum() / mean_over_processes(weights.sum())


def focal(
    logits: Tensor, targets: Tensor, class_weights: Tensor | None, label_smoothing: float, gamma: float
) -> Tensor:
    """Return the mean cross-entropy whose terms count by (1 - probability) ** gamma.

    `class_weights` are what the paper calls alpha.
    """
    shares = class_shares(logits, targets, label_smoothing)
    log_probabilities = logits.to(shares.dtype).log_softmax(1)
    # The gradient of 0 ** gamma is infinite for gamma below 1, and a probability may round to 1.
    rest = (-torch.expm1(log_probabilities)).clamp_min(torch.finfo(shares.dtype).tiny)
    terms = -shares * rest**gamma * log_probabilities  # (N, num_classes)
    if class_weights is None:
        return terms.sum(1).mean()
    return (terms * class_weights).sum() / mean_over_processes(image_weights(targets, class_weights).sum())


def class_shares(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Return the smoothed shares of the classes, (N, num_classes), in float32 or the wider type of the logits."""
    shares = targets
    if targets.ndim == 1:
        shares = targets[:, None] == torch.arange(logits.shape[1], device=logits.device)
    shares = shares.to(torch.promote_types(logits.dtype, torch.float32))
    return shares * (1 - label_smoothing) + label_smoothing / logits.shape[1]


def image_weights(targets: Tensor, class_weights: Tensor) -> Tensor:
    """Return by how much each image counts, (N,): the weight of its class, or of its classes by their shares."""
    return class_weights[targets] if targets.ndim == 1 else (targets * class_weights).sum(1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a scalar over all processes.

    Processes average their gradients. With one divisor for all of them, these are those of the whole batch.
    """
    if not dist.is_initialized():
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()
