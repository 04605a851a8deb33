"""Test-time augmentation of a trained network, as the option `views` asks for it: see training/views.py."""

from collections.abc import Sequence
from dataclasses import replace

from reslab.configuration import as_list
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.training.views import Views


def with_views(trained: Trained, asked: str | Sequence[str] | None) -> Trained:
    """Let a network look at other copies of each image than its run did.

    Args:
        trained: the network. Its classifier is changed.
        asked: the value of the option `views`: one or several kinds of copies, "none", or None for those of the run.

    Returns:
        The network. With "crops", its spec is that of images as large as `resize` says, out of which the squares that
        the network takes are cut.

    Raises:
        UserError: crops would be no smaller than the images that they are cut out of.
    """
    if asked is None:
        return trained
    names, spec = as_list(asked), trained.spec
    side = spec.size_in_evaluation
    crop = side if "crops" in names else None
    if crop:
        if (spec.resize or side) <= side:
            raise UserError(
                f"views=crops cuts squares of {side} pixels out of larger images: it needs a data.resize of more than "
                f"{side} pixels, which the run or evaluate sets"
            )
        spec = replace(spec, eval_size=spec.resize, resize=None)
        trained.classifier.preprocess.in_evaluation = spec.fitting(training=False)
    trained.classifier.views = Views(flip="flip" in names, shifts="shifts" in names, crop=crop)
    return trained._replace(spec=spec)
