"""timm's optimizers: their classes and groups of parameters, and what is said where timm is missing."""

import sys
from types import SimpleNamespace

import pytest
import timm.optim
import torch
from lightning.pytorch.callbacks import Callback

from reslab.errors import UserError
from reslab.models.build import build_network
from reslab.training.build import build_classifier, build_data, build_optimizer, build_trainer
from reslab.training.optimizers import parameter_groups, stages

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
    with pytest.raises(UserError, match=rf"optimizer={name} needs the timm package: pip install -e '\.\[timm\]'"):
        build_optimizer(composed(f"optimizer={name}").optimizer)
    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(optim=SimpleNamespace()))
    with pytest.raises(UserError, match=rf"optimizer={name} needs a newer timm"):
        build_optimizer(composed(f"optimizer={name}").optimizer)


# the learning rates of stages


@pytest.mark.parametrize(
    "model", ["model=resnet18", "model=preact_resnet18", "model=resnet50d", "model=timm model.name=resnet26t"]
)
def test_the_stages_are_the_stem_four_of_blocks_and_the_classifier(composed, model):
    network = build_network(composed(*model.split()).model, 3, 10, 64)
    found = stages(network)
    assert len(found) == 6
    assert set.union(*found) == set(network.parameters())
    assert sum(map(len, found)) == len(set.union(*found))
    assert found[1] >= set(network.layer1.parameters())
    assert found[-1] == set(network.fc.parameters())


def test_parameters_of_the_network_itself_are_trained_with_the_first_stage():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 2))
    network.register_parameter("token", torch.nn.Parameter(torch.zeros(4, 4)))
    groups = parameter_groups(network, layer_decay=0.5)
    assert {p for group in groups for p in group["params"]} == set(network.parameters())
    (own,) = (group for group in groups if any(each is network.token for each in group["params"]))
    assert own["lr_factor"] == 0.5


def test_a_network_of_one_stage_has_no_layer_decay():
    with pytest.raises(UserError, match=r"^model\.layer_decay needs a network of several children"):
        parameter_groups(torch.nn.Sequential(torch.nn.Linear(2, 2)), layer_decay=0.5)


@pytest.mark.parametrize("freeze", ["false", "1"])
def test_each_stage_has_a_fraction_of_the_learning_rate_of_the_next(composed, freeze):
    options = ("model=resnet8", "model.layer_decay=0.5", "optimizer.lr=0.8", "scheduler=constant", "trainer=cpu",
               "trainer.max_steps=1", "logger=none", "test=false", f"model.freeze={freeze}")  # fmt: skip
    config = composed(*options)
    rates = {}

    class Recorder(Callback):
        def on_train_start(self, trainer, classifier):
            names = {parameter: name for name, parameter in classifier.network.named_parameters()}
            for group in trainer.optimizers[0].param_groups:
                rates.update((names[parameter], group["lr"]) for parameter in group["params"])
                decays = {group["weight_decay"] for parameter in group["params"] if parameter.ndim > 1}
                assert decays <= {5e-4}

    data = build_data(config, ("fit",))
    classifier = build_classifier(config, data)
    trainer = build_trainer(config, [Recorder()], None)
    trainer.fit(classifier, datamodule=data)
    assert rates.keys() == dict(classifier.network.named_parameters()).keys()
    expected = {"conv1": 0.05, "bn1": 0.05, "layer1": 0.1, "layer2": 0.2, "layer3": 0.4, "fc": 0.8}
    assert {name: rates[name] for name in rates} == pytest.approx(
        {name: expected[name.partition(".")[0]] for name in rates}
    )
    before = build_classifier(config, data).network
    assert torch.equal(before.conv1.weight, classifier.network.conv1.weight) == (freeze == "1")
