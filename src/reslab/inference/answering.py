"""What predict answers with: one or several networks, their views, a temperature, and sets of classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch.plugins.precision import Precision
from torch import Tensor

from reslab.errors import UserError
from reslab.inference.conformal import ordered_sets, threshold
from reslab.inference.ensemble import class_order, mean_logits
from reslab.inference.loading import Trained, load_classifier
from reslab.inference.precision import in_precision_of_run, report_other_precision
from reslab.inference.temperature import stored_calibration, with_temperature
from reslab.inference.views import with_views
from reslab.training.build import resolve_precision


class Answering(NamedTuple):
    """Networks that answer together.

    Attributes:
        members: the networks, which read images alike.
        precisions: for each of them, what it computes with, as its run did.
        orders: for each of them, which of its classes each class of the first one is.
        temperature: by which the logits are divided.
        limit: the largest score of a class in a set, as `conformal.threshold` returns it; None: there are no sets.
    """

    members: list[Trained]
    precisions: list[Precision]
    orders: list[list[int]]
    temperature: float | None = None
    limit: float | None = None

    @property
    def first(self) -> Trained:
        return self.members[0]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> list[Tensor]:
        """Return the logits of each network, (N, num_classes) on its device, of uint8 images (N, C, H, W)."""
        logits = []
        for member, precision in zip(self.members, self.precisions, strict=True):
            with precision.forward_context():
                pixels = images.to(member.classifier.device, non_blocking=True)
                logits.append(member.classifier.evaluation_logits(pixels).float())
        return logits

    def together(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the logits of all networks together, float32 (N, num_classes), on the CPU."""
        if len(logits) == 1:
            return logits[0].cpu()
        return mean_logits([each.cpu()[:, order] for each, order in zip(logits, self.orders, strict=True)])

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities, float32 (N, num_classes), of what `together` returns."""
        return (logits if self.temperature is None else with_temperature(logits, self.temperature)).softmax(1)

    def sets(self, logits: Tensor) -> list[list[int]] | None:
        """Return the labels in the set of each image, the most probable first, of what `together` returns."""
        return None if self.limit is None else ordered_sets(logits, self.limit)


def answering_alone(trained: Trained, device: str) -> Answering:
    """Let one network answer on a device ("cpu", "cuda" or "mps"), in the precision of its run and without a set."""
    orders = [list(range(len(trained.spec.classes)))]
    return Answering([trained], [in_precision_of_run(trained, device)], orders)


def load_answering(
    checkpoints: Sequence[Path],
    device: str,
    *,
    views: str | Sequence[str] | None,
    calibrated: bool,
    coverage: float | None,
    config_dir: str | Path | None,
) -> Answering:
    """Load networks and what they are to answer with.

    Args:
        checkpoints: their files.
        device: where they compute, "cpu", "cuda" or "mps".
        views: the value of the option `views`.
        calibrated: divide the logits by the temperature in the checkpoint.
        coverage: how often the sets contain the true class; None: there are no sets.
        config_dir: as for `load_classifier`.

    Raises:
        UserError: a checkpoint cannot be used, has no calibration for these views, or the networks do not go together.
    """
    members = [with_views(load_classifier(path, config_dir), views) for path in checkpoints]
    first = members[0]
    if len(members) > 1 and (calibrated or coverage is not None):
        raise UserError("calibrated and coverage are for one network: the mean of several has no calibration")
    orders = list[list[int]]()
    for member, path in zip(members, checkpoints, strict=True):
        if reading(member) != reading(first):
            raise UserError(
                f"{path} reads images of another size or of other colours than {checkpoints[0]}: predict averages "
                "networks that read images alike; evaluate averages all"
            )
        orders.append(class_order(member.spec.classes, first.spec.classes, str(path)))
        now = resolve_precision(member.config.trainer.precision, device)
        report_other_precision(member, now, f"the network of {path}" if len(members) > 1 else "its network", " here")
    precisions = [in_precision_of_run(member, device) for member in members]
    if not calibrated and coverage is None:
        return Answering(members, precisions, orders)
    precision = resolve_precision(first.config.trainer.precision, device)
    calibration = stored_calibration(first, checkpoints[0], precision)
    limit = None if coverage is None else threshold(calibration.scores, coverage)
    return Answering(members, precisions, orders, calibration.temperature if calibrated else None, limit)


def reading(trained: Trained) -> tuple[object, ...]:
    """Return what decides the pixels that a network is given of an image file.

    The level of borders, which can be the mean of the training images and so another one for each seed, is a part of it
    only where there are borders.
    """
    fitting, background = trained.spec.fitting(training=False), trained.background
    if fitting.fit != "pad":
        fitting = replace(fitting, fill=())
    return fitting, trained.file_channels, None if background is None else tuple(background)
