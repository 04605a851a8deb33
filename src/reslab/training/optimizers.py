"""Optimizers that torch lacks, from timm, which is an extra."""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from reslab.errors import UserError

Groups = list[dict[str, Any]]  # the parameters, as an optimizer of torch takes them


def lamb(groups: Groups, **options: Any) -> Optimizer:
    """Return timm's Lamb; conf/optimizer/lamb.yaml holds the options."""
    return timm_optimizer("Lamb")(groups, **options)


def lion(groups: Groups, **options: Any) -> Optimizer:
    """Return timm's Lion; conf/optimizer/lion.yaml holds the options."""
    return timm_optimizer("Lion")(groups, **options)


def muon(groups: Groups, **options: Any) -> Optimizer:
    """Return timm's Muon; conf/optimizer/muon.yaml holds the options."""
    return timm_optimizer("Muon")(groups, **options)


def timm_optimizer(name: str) -> Callable[..., Optimizer]:
    """Return a class of optimizers. Raise UserError if timm is not installed, or has no such class."""
    try:
        from timm import optim
    except ImportError as error:
        raise UserError(f"optimizer={name.lower()} needs the timm package: pip install -e .[timm]") from error
    if not hasattr(optim, name):
        raise UserError(f"optimizer={name.lower()} needs a newer timm: pip install -U timm")
    optimizer: Callable[..., Optimizer] = getattr(optim, name)
    return optimizer
