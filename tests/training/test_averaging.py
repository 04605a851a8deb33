from copy import deepcopy

import pytest
import torch
from hydra import compose
from lightning.pytorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from reslab.errors import one_line
from reslab.inference.evaluation import evaluate
from reslab.inference.loading import load_classifier
from reslab.training import build, fit
from reslab.training.averaging import WeightAverage

EMA = (
    "model=resnet8", "data=synthetic", "data.num_images=64", "data.image_size=8", "data.batch_size=16",  # 3 batches
    "trainer=cpu", "trainer.max_epochs=2", "logger=none", "test=false", "callbacks=ema",
)  # fmt: skip


class Recorder(Callback):
    """The network's state before the first step and after each."""

    def __init__(self):
        self.states = []

    def on_train_start(self, trainer, classifier):
        self.states.append(deepcopy(classifier.network.state_dict()))

    def on_train_batch_end(self, trainer, classifier, *args):
        if trainer.global_step == len(self.states):
            self.on_train_start(trainer, classifier)


def run(config, monkeypatch):
    """Each state of the network, the last checkpoint, and the result."""
    recorder = Recorder()
    build_callbacks = fit.build_callbacks
    with monkeypatch.context() as patch:
        patch.setattr(fit, "build_callbacks", lambda *args: [*build_callbacks(*args), recorder])
        result = fit.train(config)
    return recorder.states, torch.load(f"{config.folder}/checkpoints/last.ckpt", weights_only=True), result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "decays"),
    [
        (("callbacks.ema.warmup=false",), [0.7] * 6),
        ((), [2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16]),
        (("callbacks.ema.decay=0.3",), [2 / 11, 3 / 12, 0.3, 0.3, 0.3, 0.3]),
        (("trainer.accumulate_grad_batches=3",), [2 / 11, 3 / 12]),
        (("trainer.precision=bf16-true", "callbacks.ema.warmup=false"), [0.7] * 6),
    ],
)
def test_the_average_follows_its_recursion(composed, monkeypatch, options, decays):
    states, checkpoint, _ = run(composed(*EMA, "callbacks.ema.decay=0.7", *options), monkeypatch)
    assert len(states) == 1 + len(decays)
    for name, average in states[0].items():
        expected = average
        for decay, state in zip(decays, states[1:], strict=True):
            expected = decay * expected.float() + (1 - decay) * state[name].float()
        if name.endswith("num_batches_tracked"):
            expected = states[-1][name]
        saved = checkpoint["state_dict"][f"network.{name}"]
        assert saved.dtype == (torch.float32 if average.is_floating_point() else torch.int64)
        torch.testing.assert_close(saved, expected)
        assert torch.equal(checkpoint["last_weights"][f"network.{name}"], states[-1][name])
    assert not torch.allclose(expected, states[-1][name].float())  # the loop's last values, of the linear layer's bias


@pytest.mark.slow
@pytest.mark.parametrize("every_steps", [1, 2])
@pytest.mark.parametrize("copied_epochs", [0, 1, 2])
def test_the_average_is_that_of_torchvisions_recipe(composed, monkeypatch, every_steps, copied_epochs):
    """With the loop of references/classification/train.py over the same weights: 4 epochs of 3 steps."""
    options = (
        "trainer.max_epochs=4", "callbacks.ema.warmup=false", "callbacks.ema.decay=0.7",
        f"callbacks.ema.every_steps={every_steps}", f"callbacks.ema.copy_fraction={copied_epochs / 4}",
    )  # fmt: skip
    states, checkpoint, _ = run(composed(*EMA, *options), monkeypatch)
    model = torch.nn.ParameterDict({name.replace(".", "_"): value.float() for name, value in states[0].items()})
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    for step, state in enumerate(states[1:]):
        epoch, batch = divmod(step, 3)
        if batch % every_steps == 0:
            for name, value in state.items():
                model[name.replace(".", "_")] = value.float()
            averaged.update_parameters(model)
            if epoch < copied_epochs:
                averaged.n_averaged.fill_(0)
    for name in states[0]:
        if not name.endswith("num_batches_tracked"):
            expected = averaged.module[name.replace(".", "_")]
            torch.testing.assert_close(checkpoint["state_dict"][f"network.{name}"], expected.data)


@pytest.mark.slow
def test_updates_count_optimizer_steps(composed, monkeypatch):
    options = ("trainer.accumulate_grad_batches=2", "callbacks.ema.every_steps=2", "callbacks.ema.warmup=false")
    states, checkpoint, _ = run(composed(*EMA, *options, "callbacks.ema.decay=0.7"), monkeypatch)
    assert len(states) == 1 + 4  # two epochs of two steps, whose first ones have an update
    first, second = (0.3 * states[step]["fc.bias"] for step in (1, 3))
    expected = 0.7 * (0.7 * states[0]["fc.bias"] + first) + second
    torch.testing.assert_close(checkpoint["state_dict"]["network.fc.bias"], expected)


@pytest.mark.slow
def test_the_average_is_validated_saved_and_tested(composed, monkeypatch, tmp_path):
    options = (
        "model=resnet8",
        "trainer=cpu",
        "trainer.max_epochs=3",
        "logger=none",
        "callbacks=ema",
        "optimizer.lr=0.4",
    )
    _, _, result = run(composed(*options), monkeypatch)
    path = tmp_path / "checkpoints" / "best.ckpt"
    classifier, config, _ = load_classifier(path)
    val = build.build_data(config, stages=("fit",)).splits["val"]
    with torch.inference_mode():
        predicted = classifier.evaluation_logits(val.images[val.indices]).argmax(1)
    accuracy = (predicted == val.labels[val.indices]).float().mean().item()
    assert accuracy == pytest.approx(result["val/accuracy"])
    metrics = evaluate(compose("evaluate", [f"checkpoint={path}", "trainer=cpu"]))["metrics"]
    assert metrics == {name: result[name] for name in metrics}
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"state_dict": checkpoint["last_weights"]}, tmp_path / "last_weights.ckpt")
    last = evaluate(compose("evaluate", [f"checkpoint={tmp_path}/last_weights.ckpt", "trainer=cpu"]))["metrics"]
    assert last["test/loss"] != pytest.approx(metrics["test/loss"], rel=0.01)


@pytest.mark.slow
def test_without_validation_the_last_average_is_tested(composed, monkeypatch, tmp_path):
    _, _, result = run(composed(*EMA, "data.val_fraction=0", "test=true"), monkeypatch)
    metrics = evaluate(compose("evaluate", [f"checkpoint={tmp_path}", "trainer=cpu"]))["metrics"]
    assert metrics == {name: result[name] for name in metrics}


@pytest.mark.slow
def test_averaging_changes_no_step_of_the_training(composed, monkeypatch, tmp_path):
    with_average, _, _ = run(composed(*EMA, f"folder={tmp_path}/with"), monkeypatch)
    without, _, _ = run(composed(*EMA, f"folder={tmp_path}/without", "callbacks=default"), monkeypatch)
    assert all(torch.equal(with_average[-1][name], tensor) for name, tensor in without[-1].items())


def test_frozen_weights_stay_equal_to_the_last_bit(composed, monkeypatch):
    states, checkpoint, _ = run(composed(*EMA, "model.freeze=true"), monkeypatch)
    assert torch.equal(checkpoint["state_dict"]["network.conv1.weight"], states[0]["conv1.weight"])
    assert not torch.equal(checkpoint["state_dict"]["network.fc.weight"], states[0]["fc.weight"])


@pytest.mark.parametrize("decay", [-0.1, 1.1])
def test_a_decay_outside_its_range_is_one_line(composed, decay):
    with pytest.raises(Exception, match=r"must be a number from 0 to 1") as error:
        fit.train(composed(*EMA, f"callbacks.ema.decay={decay}"))
    assert one_line(error.value, "config") == f"callbacks.ema.decay={decay} must be a number from 0 to 1"


@pytest.mark.parametrize("decay", [0, 1])
def test_a_decay_of_zero_or_one_is_allowed(decay):
    assert WeightAverage(decay=decay, warmup=False).decay_at(5) == decay


def test_the_decay_of_the_first_updates_counts_the_steps_in_every_steps():
    average = WeightAverage(decay=0.999, warmup=True, every_steps=4)
    assert [average.decay_at(step) for step in (1, 4, 5, 9, 100_000)] == [2 / 11, 2 / 11, 3 / 12, 4 / 13, 0.999]
