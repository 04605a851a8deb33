from types import SimpleNamespace

import pytest
import torch
from conftest import equal, last_weights
from hydra import compose
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback
from torch.nn import functional as F

from reslab.data.batches import NO_IMAGES, derive_seed
from reslab.errors import UserError
from reslab.inference.evaluation import evaluate
from reslab.inference.prediction import predict
from reslab.models.build import build_network
from reslab.run import Run
from reslab.training import fit
from reslab.training.build import build_callbacks, build_classifier, build_data, build_trainer
from reslab.training.classifier import Classifier, parameter_groups
from reslab.training.history import History
from reslab.training.mixing import Mix, batch_mixing

TINY = ("model=resnet8", "data=synthetic", "data.num_images=64", "data.image_size=8", "data.batch_size=16")
SHORT = (*TINY, "trainer=cpu", "trainer.max_epochs=2", "logger=none", "test=false")
NUMBER = 2  # of the batch after two epochs of one batch each


def fitted(config):
    """Return the classifier and trainer after fit, without the test and the result of fit.train."""
    torch.manual_seed(config.seed)
    data = build_data(config, stages=("fit",))
    classifier = build_classifier(config, data)
    history = History(Run(config.folder))
    trainer = build_trainer(config, build_callbacks(config, data, history), logger=None)
    trainer.fit(classifier, datamodule=data)
    return classifier, trainer


def test_a_trained_classifier_takes_pixels_and_refuses_levels_from_0_to_1(trained):
    """Levels from 0 to 1 would all be taken for black, and the accuracy would be that of chance without a word."""
    classifier = Run(trained.folder).classifier()
    with torch.no_grad():
        right = (classifier(trained.images).argmax(1) == trained.labels).double().mean()
    assert right == pytest.approx(trained.result["test/accuracy"])
    with pytest.raises(UserError, match=r"^the classifier takes a uint8 tensor .* this is float32 \(359, 1, 8, 8\)$"):
        classifier(trained.images / 255)


def test_biases_and_norms_have_no_weight_decay(composed):
    network = build_network(composed("model=resnet20").model, 3, 10, 32)
    decayed, undecayed = parameter_groups(network)
    # ResNet-20: 19 convolutions and the linear weight; 19 norms with weight and bias, and the linear bias
    assert len(decayed["params"]) == 20
    assert len(undecayed["params"]) == 19 * 2 + 1
    assert "weight_decay" not in decayed
    assert undecayed["weight_decay"] == 0
    assert all(p.ndim > 1 for p in decayed["params"])
    optimizer = instantiate(composed("optimizer=adamw").optimizer)(parameter_groups(network))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.05, 0.0]


PLAIN_STEP = (
    *SHORT, "trainer.max_steps=1", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0",
    "optimizer.lr=1", "scheduler=constant", "trainer.limit_val_batches=0",
)  # fmt: skip


def weights_around(config):
    """Return all weights in one vector, before the first step and after the run."""
    torch.manual_seed(config.seed)
    before = flat(build_classifier(config, build_data(config, ["fit"])).network.parameters())
    return before, flat(fitted(config)[0].network.parameters())


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_by_their_common_norm(composed, precision):
    step = (*PLAIN_STEP, f"trainer.precision={precision}")
    before, clipped = weights_around(composed(*step, "trainer.gradient_clip_val=0.01"))
    _, whole = weights_around(composed(*step))
    assert (whole - before).norm() > 0.1
    assert (clipped - before).norm().item() == pytest.approx(0.01, rel=1e-4)
    torch.testing.assert_close((clipped - before) / 0.01, (whole - before) / (whole - before).norm(), atol=1e-4, rtol=0)


def test_an_accumulated_step_takes_the_mean_gradient_of_its_batches(composed):
    config = composed(*PLAIN_STEP, "trainer.accumulate_grad_batches=3")
    before, after = weights_around(config)
    torch.manual_seed(config.seed)
    data = build_data(config, stages=("fit",))
    classifier = build_classifier(config, data).train()
    for _, (images, labels) in zip(range(3), data.train_dataloader(), strict=False):
        (F.cross_entropy(classifier(images), labels) / 3).backward()
    gradient = flat(parameter.grad for parameter in classifier.network.parameters())
    torch.testing.assert_close(after, before - gradient)


def test_a_training_step_draws_from_seed_batch_number_and_rank_alone(composed):
    config = composed(*SHORT, "data.augment.crop=2", "data.augment.erasing=0.5", "trainer.limit_train_batches=1")
    classifier, _ = fitted(config)
    images, labels = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8), torch.arange(16) % 10
    classifier.train()
    torch.manual_seed(123)
    first = classifier.training_step((images, labels), 0)
    torch.manual_seed(456)  # whatever happened to the generators before
    second = classifier.training_step((images, labels), 0)
    assert torch.equal(first, second)
    torch.manual_seed(derive_seed(config.seed, NUMBER, 0))
    expected = F.cross_entropy(classifier(classifier.augment(images)), labels)
    torch.testing.assert_close(first, expected)


@pytest.fixture
def numbers(monkeypatch):
    """The number of each training batch since the start of the run, from which its seed is derived."""
    seen = []

    def record(seed, number, rank):
        seen.append(number)
        return derive_seed(seed, number, rank)

    monkeypatch.setattr("reslab.training.classifier.derive_seed", record)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "total"),
    [
        ((), 6),  # 58 training images are three batches of 16
        (("trainer.accumulate_grad_batches=2",), 6),
        (("trainer.limit_train_batches=2",), 4),
        (("trainer.limit_train_batches=0.4",), 2),
        (("trainer.overfit_batches=2",), 4),
        (("trainer.overfit_batches=1.0",), 6),
        (("trainer.max_steps=4",), 4),
    ],
)
def test_every_batch_of_a_run_has_its_own_number(composed, numbers, options, total):
    fit.train(composed(*SHORT, *options))
    assert numbers == list(range(total))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("accumulated", "steps", "batches", "more_steps", "all_batches"),
    [(1, 4, 4, 5, 5), (2, 3, 5, 5, 8)],  # two batches and the third one are the two steps of an epoch
)
def test_a_resumed_run_continues_the_numbers(
    composed, numbers, tmp_path, accumulated, steps, batches, more_steps, all_batches
):
    options = (*SHORT, "trainer.max_epochs=3", f"trainer.accumulate_grad_batches={accumulated}")
    fit.train(composed(*options, f"trainer.max_steps={steps}"))
    assert numbers == list(range(batches))  # it has ended within an epoch
    numbers.clear()
    fit.train(composed(*options, f"trainer.max_steps={more_steps}", f"resume={tmp_path}"))
    assert numbers == list(range(batches, all_batches))


def test_label_smoothing_reaches_the_training_loss_only(composed):
    classifier, _ = fitted(composed(*SHORT, "label_smoothing=0.2", "trainer.limit_train_batches=1"))
    images, labels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8)
    classifier.eval()  # so that batch norm is the same in both passes
    log_probabilities = classifier(images).log_softmax(1)
    smoothed = -(0.8 * log_probabilities[range(8), labels] + 0.2 * log_probabilities.mean(1)).mean()
    torch.testing.assert_close(classifier.training_step((images, labels), 0), smoothed)
    classifier.val_metrics.reset()
    classifier.validation_step((images, labels), 0)
    plain = -log_probabilities[range(8), labels].mean()
    torch.testing.assert_close(classifier.val_metrics.compute()["loss"].float(), plain.detach())


def mixing_step(composed, *overrides):
    """Return the loss of a step, the classifier and the batch, and set the generator to where the share was drawn."""
    config = composed(*SHORT, "data.image_size=32", "trainer.limit_train_batches=1", *overrides)
    classifier, _ = fitted(config)
    classifier.eval()  # so that batch norm is the same in every pass
    images, labels = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8), torch.arange(32) % 10
    loss = classifier.training_step((images, labels), 0)
    torch.manual_seed(derive_seed(config.seed, NUMBER, 0))
    torch.multinomial(torch.ones(1), 1)  # the choice among one method
    return loss, classifier, images, labels


def assert_mixed(loss, logits, labels, share, smoothing):
    """Check that `share` of each label is its own, and the rest its neighbour's."""
    own, other = (F.cross_entropy(logits, y, label_smoothing=smoothing) for y in (labels, labels.roll(1)))
    torch.testing.assert_close(loss, share * own + (1 - share) * other)
    assert not torch.allclose(loss, own)


def draw_beta(alpha):
    return torch.distributions.Beta(torch.tensor([alpha]), torch.tensor([alpha])).sample().item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixup_blends_images_and_labels_with_their_neighbours(composed, smoothing):
    loss, classifier, images, labels = mixing_step(composed, "mixup=0.7", f"label_smoothing={smoothing}")
    share = draw_beta(0.7)
    x = classifier.preprocess(images)
    logits = classifier.network(share * x + (1 - share) * x.roll(1, 0))
    assert_mixed(loss, logits, labels, share, smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cutmix_pastes_a_rectangle_and_shares_the_label_by_its_area(composed, smoothing):
    loss, classifier, images, labels = mixing_step(composed, "cutmix=20", f"label_smoothing={smoothing}")
    half = int(16 * (1 - draw_beta(20.0)) ** 0.5)
    column, row = (torch.randint(32, (1,)).item() for _ in range(2))
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = True
    x = classifier.preprocess(images)
    logits = classifier.network(torch.where(inside, x.roll(1, 0), x))
    assert_mixed(loss, logits, labels, 1 - inside.float().mean(), smoothing)


class NextLabel:
    def draw(self, device):
        return Mix("mixup", torch.empty(0))

    def apply(self, mix, x, labels):
        return x, F.one_hot((labels + 1) % 10, 10).float()


def test_training_accuracy_counts_the_labels_from_before_mixing(composed):
    _, classifier, images, _ = mixing_step(composed, "mixup=1.0")
    classifier.mixing = NextLabel()
    classifier.train_metrics.reset()
    classifier.training_step((images, classifier(images).argmax(1)), 0)
    assert classifier.train_metrics.compute()["accuracy"] == 1


def test_with_mixup_and_cutmix_each_batch_uses_one_of_them():
    mixing = batch_mixing(mixup=1.0, cutmix=1.0, num_classes=4, image_size=16)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    torch.manual_seed(0)
    blended = 0
    for _ in range(200):
        mixed, targets = mixing.apply(mixing.draw(torch.device("cpu")), images, torch.arange(4))
        blended += bool((mixed.flatten(1).diff() == 0).all() and 0 < mixed[1, 0, 0, 0] < 1)
        torch.testing.assert_close(mixed[1].mean(), targets[1, 1])  # a mean of zeros and ones by their shares
    assert 70 < blended < 130  # the expected 100 and four standard deviations; CutMix never blends two numbers


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_negative_alpha_is_one_line(composed, name):
    with pytest.raises(UserError, match=rf"^{name}=-0\.2 must be a number from 0\.001 to 1000, or 0$"):
        fitted(composed(*SHORT, f"{name}=-0.2"))


def test_flip_averaging_is_the_mean_of_the_logits_of_an_image_and_its_mirror_image(composed):
    classifier, _ = fitted(composed(*SHORT, "flip_averaging=true"))
    classifier.eval()
    images, labels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8)
    straight, mirrored = classifier(images), classifier(images.flip(3))
    assert not torch.allclose(straight, mirrored)
    expected = (straight + mirrored) / 2
    torch.testing.assert_close(classifier.test_step((images, labels, labels), 0), expected)
    torch.testing.assert_close(classifier.evaluation_logits(images), expected)
    classifier.val_metrics.reset()
    classifier.validation_step((images, labels), 0)
    loss = classifier.val_metrics.compute()["loss"].float()
    torch.testing.assert_close(loss, F.cross_entropy(expected, labels).detach())
    training_loss = classifier.training_step((images, labels), 0)
    torch.testing.assert_close(training_loss, F.cross_entropy(straight, labels))


def test_evaluate_and_predict_average_as_the_run_did(composed, trained, digit_files, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["config"]["flip_averaging"] = True
    path = tmp_path / "averaging.ckpt"
    torch.save(checkpoint, path)
    with torch.inference_mode():
        logits = (trained.classifier(trained.images) + trained.classifier(trained.images.flip(3))) / 2
    metrics = evaluate(compose("evaluate", [f"checkpoint={path}", "trainer=cpu"]))["metrics"]
    assert metrics["test/loss"] == pytest.approx(F.cross_entropy(logits, trained.labels).item(), rel=1e-5)
    assert metrics["test/loss"] != pytest.approx(trained.result["test/loss"], rel=0.1)
    (row,) = predict(path, digit_files[1], device="cpu")
    probabilities = [entry["probability"] for entry in row["classes"]]
    assert probabilities == pytest.approx(logits[1].softmax(0).topk(3).values.tolist(), abs=1e-5)
    assert probabilities != pytest.approx(trained.probabilities[1].topk(3).values.tolist(), abs=1e-3)


@pytest.mark.parametrize("options", [(), ("data.eval_size=12",), ("data.interpolation=bicubic", "data.fit=pad")])
def test_a_batch_without_images_changes_no_metric(composed, options):
    """The share of a process is one if none of its images can be read."""
    config = composed(*TINY, *options)
    classifier = build_classifier(config, build_data(config, ("fit",))).eval()
    classifier.trainer = SimpleNamespace(world_size=2)
    images, labels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8), torch.arange(8)
    classifier.test_step((images, labels, labels), 0)
    before = classifier.test_metrics.compute()
    assert classifier.test_step((NO_IMAGES, labels[:0], labels[:0]), 1).shape == (0, 10)
    assert classifier.test_metrics.compute() == before


def test_the_learning_rate_follows_the_schedule_at_every_step(composed):
    config = composed(*SHORT, "scheduler=multi_step", "optimizer.lr=0.5", "trainer.log_every_n_steps=1")
    rates = []

    class Recorder(Callback):
        def on_train_batch_start(self, trainer, *args):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    data = build_data(config, stages=("fit",))
    trainer = build_trainer(config, [History(Run(config.folder)), Recorder()], logger=None)
    trainer.fit(build_classifier(config, data), datamodule=data)
    # two epochs of three steps: 58 training images (a tenth of every class of 64 is 6) in whole batches of 16
    # milestones round to steps 3 and 4 of 6
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.005, 0.005])


@pytest.mark.slow
@pytest.mark.parametrize("accumulated", [2, 3, 4])
def test_an_incomplete_accumulation_is_the_mean_of_its_batches(composed, tmp_path, accumulated):
    """Plain SGD: the step's gradient is the difference of the weights, whatever the rate."""
    options = (
        *SHORT, "scheduler=constant", "optimizer.momentum=0", "optimizer.nesterov=false", "optimizer.weight_decay=0",
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false",
    )  # fmt: skip
    weights = []
    for number, options_of_step in enumerate(((), (f"trainer.accumulate_grad_batches={accumulated}",))):
        fit.train(composed(*options, *options_of_step, f"folder={tmp_path}/{number}"))
        weights.append(last_weights(tmp_path / str(number)))
    assert equal(*weights)


def test_the_steps_of_an_epoch_average_over_the_batches_that_they_have(composed, monkeypatch):
    factors = []
    step = Classifier.training_step

    def record(self, batch, batch_index):
        factors.append(self._accumulation_factor(batch_index))
        return step(self, batch, batch_index)

    monkeypatch.setattr(Classifier, "training_step", record)
    fit.train(composed(*SHORT, "trainer.max_epochs=2", "trainer.accumulate_grad_batches=2"))
    assert factors == [1, 1, 2] * 2  # three batches are a step of two and a step of one


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["norm", "value"])
def test_gradients_are_clipped_as_asked(composed, tmp_path, algorithm):
    """One step of plain SGD with rate 1: the weights move by the clipped gradient."""
    options = (
        *SHORT, "scheduler=constant", "optimizer.lr=1", "optimizer.momentum=0", "optimizer.nesterov=false",
        "optimizer.weight_decay=0", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "test=false",
    )  # fmt: skip
    clip = ("trainer.gradient_clip_val=0.01", f"trainer.gradient_clip_algorithm={algorithm}")
    config = composed(*options)
    torch.manual_seed(config.seed)
    start = build_network(config.model, 3, 10, 8).state_dict()
    moves = []
    for number, more in enumerate(((), clip)):
        fit.train(composed(*options, *more, f"folder={tmp_path}/{number}"))
        end = last_weights(tmp_path / str(number))
        names = [name for name in start if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
        moves.append(torch.cat([(start[name] - end[f"network.{name}"]).flatten() for name in names]))
    gradient, clipped = moves
    expected = gradient.clamp(-0.01, 0.01) if algorithm == "value" else gradient * 0.01 / gradient.norm()
    torch.testing.assert_close(clipped, expected, rtol=1e-3, atol=1e-6)


def test_the_first_weights_depend_on_nothing_but_the_seed(composed):
    config = composed(*SHORT)
    weights = []
    for draws in (0, 5):
        data = build_data(config, stages=("fit",))
        torch.rand(draws)
        weights.append(build_classifier(config, data).state_dict())
    assert equal(*weights)


def test_a_module_in_place_of_a_plain_value_is_registered_and_the_other_way_round(composed):
    data = build_data(composed(*SHORT), stages=("fit",))
    classifier = build_classifier(composed(*SHORT), data)
    classifier.part = "a name"
    classifier.part = "another name"
    assert classifier.part == "another name"
    classifier.part = torch.nn.Linear(1, 1)
    assert "part.weight" in classifier.state_dict()
    classifier.part = None
    assert "part.weight" not in classifier.state_dict()
    assert classifier.part is None
