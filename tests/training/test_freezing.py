from itertools import count

import pytest
import torch
from conftest import equal, last_weights
from lightning.pytorch.callbacks import Callback
from torch import nn

from reslab.errors import UserError
from reslab.models.build import build_network
from reslab.training import build, fit
from reslab.training.classifier import parameter_groups
from reslab.training.freezing import Freezing

QUICK = ("model=resnet8", "trainer=cpu", "logger=none", "test=false", "data.val_fraction=0", "optimizer.lr=0.05")
HEAD = ("network.fc.weight", "network.fc.bias")


class Recorder(Callback):
    """Record, at each step, the learning rates, and after each epoch, the weights and what requires gradients."""

    def __init__(self):
        self.rates, self.weights, self.trained = [], [], []

    def on_train_batch_start(self, trainer, module, *_):
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])

    def on_train_batch_end(self, trainer, module, *_):
        self.trained.append({name for name, parameter in module.named_parameters() if parameter.requires_grad})
        if trainer.is_last_batch:
            self.weights.append({name: tensor.clone() for name, tensor in module.state_dict().items()})


@pytest.fixture
def recorded(composed, monkeypatch, tmp_path):
    numbers = count()

    def train(*options):
        recorder, build_callbacks = Recorder(), build.build_callbacks
        with monkeypatch.context() as patch:
            patch.setattr(fit, "build_callbacks", lambda *args: [recorder, *build_callbacks(*args)])
            fit.train(composed(*QUICK, *options, f"folder={tmp_path}/{next(numbers)}"))
        return recorder

    return train


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.slow
def test_the_frozen_part_stays_as_it_was_with_its_statistics(recorded):
    weights = recorded("model.freeze=true", "trainer.max_epochs=3").weights
    assert moved(weights[0], weights[2]) == set(HEAD)


@pytest.mark.slow
def test_the_norms_train_if_they_are_asked_to(recorded):
    weights = recorded("model.freeze=true", "model.train_norms=true", "trainer.max_epochs=2").weights
    changed = moved(weights[0], weights[1])
    assert {*HEAD, "network.bn1.weight", "network.bn1.running_mean"} <= changed
    assert not any("conv" in name for name in changed)


@pytest.mark.slow
def test_after_the_frozen_epochs_everything_trains_under_one_schedule(recorded):
    options = ("scheduler=cosine", "trainer.max_epochs=3")
    frozen, whole = recorded("model.freeze=1", *options), recorded(*options)
    assert [rates[0] for rates in frozen.rates] == [rates[0] for rates in whole.rates]
    assert all(len(set(rates)) == 1 for rates in frozen.rates)
    everything = whole.trained[0]
    assert frozen.trained == [set(HEAD)] * 22 + [everything] * 44  # an epoch is 22 batches of 64 of 1,438 images
    assert moved(frozen.weights[1], frozen.weights[2]) == frozen.weights[1].keys()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_trains_what_the_uninterrupted_one_does(composed, tmp_path, optimizer):
    options = (*QUICK, "model.freeze=1", "scheduler=constant", f"optimizer={optimizer}", "optimizer.lr=0.01")
    fit.train(composed(*options, "trainer.max_epochs=3", f"folder={tmp_path}/whole"))
    for steps in (10, 20, 30, 45):
        parts = tmp_path / str(steps)
        fit.train(composed(*options, "trainer.max_epochs=3", f"trainer.max_steps={steps}", f"folder={parts}"))
        fit.train(composed(*options, "trainer.max_epochs=3", f"folder={parts}", f"resume={parts}"))
        assert equal(last_weights(tmp_path / "whole"), last_weights(parts)), steps


def test_the_groups_keep_the_decay_that_they_would_have_without_freezing(composed):
    config = composed(*QUICK, "model.freeze=1")
    data = build.build_data(config, stages=("fit",))
    classifier = build.build_classifier(config, data)
    decays = {}
    for freezing in (frozenset(), classifier.freezing.parameters):
        groups = parameter_groups(classifier.network, freezing)
        decays[len(groups)] = {p: group.get("weight_decay") for group in groups for p in group["params"]}
    assert decays[2] == decays[4]
    assert len(decays[4]) == len(list(classifier.network.parameters()))


def test_what_the_network_itself_keeps_frozen_stays_so():
    network = nn.Module()
    network.get_classifier = lambda: network.head[1]
    network.stem, network.head = nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    network.stem.bias.requires_grad_(False)
    freezing = Freezing(network, epochs=2, train_norms=False)
    for epoch, trained in ((1, {"head.1.weight", "head.1.bias"}), (2, {"stem.weight", "head.0.weight", "head.0.bias"})):
        freezing.apply(epoch)
        now = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
        assert now == trained | {"head.1.weight", "head.1.bias"}
        assert network.head[0].training == (epoch == 2)


def test_norms_that_are_synchronised_over_devices_are_frozen_too(composed):
    """Lightning puts them in the places of the others once the classifier has been built."""
    network = build_network(composed("model=resnet8").model, 1, 10, 8)
    freezing = Freezing(network, epochs=1, train_norms=False)
    nn.SyncBatchNorm.convert_sync_batchnorm(network)
    norms = [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert len(norms) == 7  # of the stem, and two of each of the three blocks
    for epoch, trains in ((0, False), (1, True)):
        freezing.apply(epoch)
        assert {norm.training for norm in norms} == {norm.weight.requires_grad for norm in norms} == {trains}


@pytest.mark.slow
def test_a_run_that_an_older_version_froze_is_refused(composed, tmp_path):
    options = (*QUICK, "model.freeze=1", "trainer.max_epochs=1")
    fit.train(composed(*options))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["BackboneFinetuning"] = {}
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match=r"begun with model\.freeze in an older version, .* start a new run$"):
        fit.train(composed(*options, f"resume={tmp_path}"))
