"""timm's optimizers: their classes and groups of parameters, and what is said where timm is missing."""

import sys
from types import SimpleNamespace

import pytest
import timm.optim
import torch

from reslab.errors import UserError
from reslab.models.build import build_network
from reslab.training.build import build_optimizer
from reslab.training.classifier import parameter_groups

CLASSES = {"lamb": timm.optim.Lamb, "lion": timm.optim.Lion, "muon": timm.optim.Muon}


@pytest.mark.parametrize("name", CLASSES)
def test_an_optimizer_of_timm_has_the_options_of_its_file(composed, name):
    config = composed(f"optimizer={name}", "optimizer.lr=0.25", "optimizer.weight_decay=0.5")
    network = build_network(composed("model=resnet20").model, 3, 10, 32)
    optimizer = build_optimizer(config.optimizer)(parameter_groups(network))
    assert type(optimizer) is CLASSES[name]
    options = {option: value for option, value in config.optimizer.items() if not option.startswith("_")}
    for group, decay in zip(optimizer.param_groups, (0.5, 0.0), strict=True):
        expected = options | {"weight_decay": decay}
        values = {option: group[option] for option in expected}
        assert {
            option: list(value) if isinstance(value, tuple) else value for option, value in values.items()
        } == expected


def test_muon_orthogonalizes_the_convolutions_and_leaves_norms_to_adamw(composed):
    network = build_network(composed("model=resnet20").model, 3, 10, 32)
    optimizer = build_optimizer(composed("optimizer=muon", "optimizer.weight_decay=0").optimizer)(
        parameter_groups(network)
    )
    before = network.layer2[0].conv1.weight.detach().clone()
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    step = (network.layer2[0].conv1.weight.detach() - before).flatten(1)  # (32, 16 * 9)
    values = torch.linalg.svdvals(step)
    assert values.max() / values.min() < 2  # of the gradient itself, it is hundreds
    states = [optimizer.state[parameter] for parameter in network.parameters()]
    assert [state["use_muon"] for state in states] == [parameter.ndim > 1 for parameter in network.parameters()]


@pytest.mark.parametrize("name", CLASSES)
def test_without_timm_there_is_one_line(composed, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=rf"optimizer={name} needs the timm package: pip install -e \.\[timm\]"):
        build_optimizer(composed(f"optimizer={name}").optimizer)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(optim=SimpleNamespace()))
    with pytest.raises(UserError, match=rf"optimizer={name} needs a newer timm"):
        build_optimizer(composed(f"optimizer={name}").optimizer)
