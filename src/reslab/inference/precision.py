"""The precision in which a trained network computes: that of its run, as in the tests of the run."""

import logging

from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision

from reslab.inference.loading import Trained
from reslab.training.build import resolve_precision

log = logging.getLogger(__name__)


def report_other_precision(trained: Trained, now: str, what: str, advice: str = "") -> None:
    """Warn if a network computes in another precision than its run did, e.g. because it was trained on a GPU.

    Args:
        trained: the network.
        now: the precision in which it computes.
        what: that computes in it, for the message.
        advice: what to do, to follow the message.
    """
    before = trained.classifier.record.get("origin", {}).get("precision", now)
    if before != now:
        log.warning("the run computed in %s and %s computes in %s%s", before, what, now, advice)


def in_precision_of_run(trained: Trained, device: str) -> Precision:
    """Move a network to a device ("cpu", "cuda" or "mps"), and let it compute there in the precision of its run.

    Returns:
        Lightning's plugin, in whose `forward_context` it is to be called.
    """
    name = resolve_precision(trained.config.trainer.precision, device)
    plugin = precision_plugin(name, device)
    plugin.convert_module(trained.classifier)
    trained.classifier.to(device)
    return plugin


def precision_plugin(name: str, device: str) -> Precision:
    """Return the plugin with which Lightning's Trainer computes in a precision."""
    if name in ("16-mixed", "bf16-mixed"):
        return MixedPrecision(name, device)  # type: ignore[arg-type]
    if name in ("16-true", "bf16-true"):
        return HalfPrecision(name)  # type: ignore[arg-type]
    return DoublePrecision() if name == "64-true" else Precision()
