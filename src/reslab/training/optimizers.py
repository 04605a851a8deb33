"""The groups of parameters that an optimizer takes, and optimizers that torch lacks, from timm, which is an extra."""

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from typing import Any

from torch import nn
from torch.optim import Optimizer

from reslab.errors import UserError

ParameterGroups = list[dict[str, Any]]  # the parameters, as an optimizer of torch takes them


def parameter_groups(
    network: nn.Module, frozen: AbstractSet[nn.Parameter] = frozenset(), layer_decay: float = 1.0
) -> ParameterGroups:
    """Return groups: weights with the optimizer's weight decay, and biases and norms without weight decay.

    What is frozen at first has groups of its own: torch's fused optimizers (2.15) refuse a group in which only some
    parameters have had gradients before.

    With `layer_decay` below 1, each stage has groups of its own as well, the last stage first, with the factor on their
    learning rate as "lr_factor".
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups: ParameterGroups = []
    for part in ([p for p in trained if p not in frozen], [p for p in trained if p in frozen]):
        groups.append({"params": [parameter for parameter in part if parameter.ndim > 1]})
        groups.append({"params": [parameter for parameter in part if parameter.ndim <= 1], "weight_decay": 0.0})
    groups = groups if frozen else groups[:2]
    return groups if layer_decay == 1 else [*groups_by_stage(groups, network, layer_decay)]


def groups_by_stage(groups: ParameterGroups, network: nn.Module, layer_decay: float) -> Iterator[dict[str, Any]]:
    """Yield the parts of each group that belong to one stage, the last stage first."""
    for number, stage in enumerate(reversed(stages(network))):
        for group in groups:
            if part := [parameter for parameter in group["params"] if parameter in stage]:
                yield group | {"params": part, "lr_factor": layer_decay**number}


def stages(network: nn.Module) -> list[set[nn.Parameter]]:
    """Return the parameters of the stem, of each stage of blocks and of the classifier, in the order of the data.

    These are the network's children. A norm belongs to the child before it, and what belongs to no child to the first.

    Raises:
        UserError: there is only one.
    """
    found: list[set[nn.Parameter]] = []
    for child in network.children():
        parameters = set(child.parameters())
        if not parameters:
            continue
        if found and all(parameter.ndim <= 1 for parameter in parameters):
            found[-1] |= parameters
        else:
            found.append(parameters)
    if len(found) < 2:
        raise UserError("model.layer_decay needs a network of several children with parameters, one for each stage")
    found[0] |= set(network.parameters(recurse=False))
    return found


def lamb(groups: ParameterGroups, **options: Any) -> Optimizer:
    """Return timm's Lamb; conf/optimizer/lamb.yaml holds the options."""
    return timm_optimizer("Lamb")(groups, **options)


def lion(groups: ParameterGroups, **options: Any) -> Optimizer:
    """Return timm's Lion; conf/optimizer/lion.yaml holds the options."""
    return timm_optimizer("Lion")(groups, **options)


def muon(groups: ParameterGroups, **options: Any) -> Optimizer:
    """Return timm's Muon; conf/optimizer/muon.yaml holds the options."""
    return timm_optimizer("Muon")(groups, **options)


def timm_optimizer(name: str) -> Callable[..., Optimizer]:
    """Return a class of optimizers. Raise UserError if timm is not installed, or has no such class."""
    try:
        from timm import optim
    except ImportError as error:
        raise UserError(f"optimizer={name.lower()} needs the timm package: pip install -e '.[timm]'") from error
    if not hasattr(optim, name):
        raise UserError(f"optimizer={name.lower()} needs a newer timm: pip install -U timm")
    optimizer: Callable[..., Optimizer] = getattr(optim, name)
    return optimizer
