"""One temperature for the logits of a trained network (Guo et al. 2017, arXiv:1706.04599, section 4.2)."""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra.core.hydra_config import HydraConfig
from torch import Tensor

from reslab.configuration import name_of, shown, task_overrides
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.machine import command
from reslab.newest import is_in_zoo
from reslab.training.record import CALIBRATION_SCORES

log = logging.getLogger(__name__)

SETTINGS = ("views", "data.eval_size", "data.image_size", "data.resize", "data.interpolation", "data.fit")
TEMPERATURES = (0.01, 100.0)  # of networks that have learned anything, they are between 0.5 and 5


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature with the least mean negative log-likelihood of softmax(logits / temperature).

    The likelihood is convex in 1 / temperature, so that its derivative has one zero, which Brent's method finds in
    float64.

    Args:
        logits: float (N, C) of images that the network was not trained on.
        labels: int64 (N,).

    Raises:
        UserError: a logit is not finite, or there is no minimum, as for a network that is right about all images.
    """
    from scipy.optimize import brentq  # evaluate and predict, which only divide, start without SciPy

    z = logits.double()
    if not z.isfinite().all():
        raise UserError("the network has no temperature: its logits for some validation images are not finite")
    true = z.gather(1, labels[:, None]).squeeze(1)  # (N,)

    def slope(log_temperature: float) -> float:
        """Return the derivative of the mean negative log-likelihood by 1 / temperature."""
        probabilities = (z / math.exp(log_temperature)).softmax(1)
        return ((probabilities * z).sum(1) - true).mean().item()

    lowest, highest = map(math.log, TEMPERATURES)
    if slope(lowest) <= 0:
        raise UserError(
            f"no temperature fits: the network is right about all {len(z):,} validation images, so that no confidence "
            "is too high for them; more validation images are needed (data.val_fraction)"
        )
    if slope(highest) >= 0:
        raise UserError(f"no temperature fits: the network is no better than chance on {len(z):,} validation images")
    return math.exp(brentq(slope, lowest, highest, xtol=1e-12))


def standard_error(logits: Tensor, temperature: float) -> float:
    """Return the standard error of a fitted temperature, from the curvature of the likelihood (Fisher information).

    Args:
        logits: float (N, C), with which it was fitted.
        temperature: the temperature.
    """
    z = logits.double()
    probabilities = (z / temperature).softmax(1)
    mean = (probabilities * z).sum(1, keepdim=True)
    information = (probabilities * (z - mean).square()).sum().item()  # of 1 / temperature
    return temperature**2 / math.sqrt(information)


def with_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Return logits / temperature, float (N, C), with the same class in the first place for every image."""
    scaled, first = logits / temperature, logits.argmax(1, keepdim=True)
    # Two logits that differ in the last bit can become equal, and then the class with the lower number would win.
    above = torch.nextafter(scaled.amax(1, keepdim=True), scaled.new_tensor(math.inf))
    return torch.where(scaled.argmax(1, keepdim=True) == first, scaled, scaled.scatter(1, first, above))


# in a checkpoint


class Calibration(NamedTuple):
    """What `calibrate` has stored in a checkpoint.

    Attributes:
        temperature: by which logits are divided.
        scores: of the true classes of the validation images, float64 (n,), ascending: see conformal.py.
    """

    temperature: float
    scores: Tensor


def settings(trained: Trained) -> dict[str, Any]:
    """Return what a calibration holds for: the copies of each image, and how it becomes a square."""
    spec = trained.spec
    return {
        "views": trained.classifier.views.names,
        "size": spec.size_in_evaluation,
        "resize": spec.resize,
        "interpolation": spec.interpolation,
        "fit": spec.fit,
    }


def words(value: Any) -> str:
    return ",".join(value) or "none" if isinstance(value, list) else shown(value)


def given_settings() -> list[str]:
    """Return the arguments of this command that decide what a calibration holds for; none in Python."""
    if not HydraConfig.initialized():
        return []
    return [each for each in task_overrides() if name_of(each) in SETTINGS]


def stored_calibration(trained: Trained, checkpoint: Path, precision: str) -> Calibration:
    """Return the calibration of a network, with the views and sizes that it has now.

    Another precision changes the last digits of the logits only, and is a warning.

    Args:
        trained: the network.
        checkpoint: its file, for messages.
        precision: in which it computes now.

    Raises:
        UserError: it has none, or one for other views or sizes.
    """
    stored = trained.classifier.record.get("calibration")
    if stored is None and is_in_zoo(checkpoint):
        advice = "copy the network's folder, and calibrate and use the copy"
        raise UserError(f"{checkpoint} has no calibration, and the zoo stays as it is: {advice}")
    if stored is None:
        adding = command("calibrate", str(checkpoint), *given_settings())
        raise UserError(f"{checkpoint} has no calibration; this adds it: {adding}")
    now = settings(trained)
    if changed := [name for name in now if now[name] != stored[name]]:
        was, is_now = (" ".join(f"{name}={words(values[name])}" for name in changed) for values in (stored, now))
        raise UserError(
            f"{checkpoint} was calibrated with {was}, and this is {is_now}: calibrate it with these options"
        )
    if stored.get("precision", precision) != precision:
        log.warning(
            "%s was calibrated in %s and computes in %s now; this calibrates it for that: %s",
            checkpoint, stored["precision"], precision,
            command("calibrate", str(checkpoint), f"trainer.precision={precision}", *given_settings()),
        )  # fmt: skip
    return Calibration(stored["temperature"], trained.classifier.record[CALIBRATION_SCORES])
