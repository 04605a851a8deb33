import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, top_k_accuracy_score
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.classification import MulticlassF1Score

from reslab.training.metrics import MacroF1, MeanLoss, Metrics, TrainingMetrics

NAN = float("nan")


def computed(logits: Tensor, labels: Tensor, batch_size: int = 10_000) -> dict[str, Tensor]:
    """Return the metrics of a test in batches of some size."""
    metrics = Metrics(logits.shape[1], final=True)
    for part, target in zip(logits.split(batch_size), labels.split(batch_size), strict=True):
        metrics.add(F.cross_entropy(part, target), part, target)
    return metrics.compute()


def expected_calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Compute equation 3 of Guo et al. 2017, bin by bin."""
    probabilities = np.exp(logits.double().numpy()) / np.exp(logits.double().numpy()).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels.numpy()
    error = 0.0
    for number in range(15):
        chosen = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if chosen.any():
            error += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    return error


def test_metrics_are_those_of_the_definition():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 7), torch.randint(0, 7, (40,))
    metrics = Metrics(7)
    for start, stop in ((0, 32), (32, 40)):  # batches of unequal size count by their images
        part, target = logits[start:stop], labels[start:stop]
        metrics.add(F.cross_entropy(part, target), part, target)
    values = metrics.compute()
    assert values["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert values["accuracy"] == (logits.argmax(1) == labels).float().mean()
    assert values["top5_accuracy"] == (logits.topk(5).indices == labels[:, None]).any(1).float().mean()
    metrics.reset()
    metrics.add(torch.tensor(1.0), torch.eye(7), torch.arange(7))
    assert metrics.compute()["accuracy"] == 1


def test_final_metrics_add_macro_f1_and_calibration_error():
    logits = torch.tensor([[4.0, 0], [4.0, 0], [0, 4.0], [4.0, 0]])
    labels = torch.tensor([0, 0, 1, 1])
    metrics = Metrics(2, final=True)
    metrics.add(F.cross_entropy(logits, labels), logits, labels)
    values = metrics.compute()
    assert set(values) == {"loss", "accuracy", "f1_macro", "calibration_error"}  # no top-5 among two classes
    assert values["f1_macro"] == pytest.approx((2 * 2 / 5 + 2 * 1 / 3) / 2)  # a: 2 of 3 predicted; b: 1 of 2 found
    confidence = torch.sigmoid(torch.tensor(4.0))
    assert values["calibration_error"] == pytest.approx(abs(confidence - 0.75).item(), abs=1e-6)


def trained(metrics, logits, labels, *sizes):
    for part, target in zip(logits.split(sizes), labels.split(sizes), strict=True):
        metrics.add(metrics.of_batch(F.cross_entropy(part, target), part, target), len(target))
    return metrics


@pytest.mark.parametrize("classes", [4, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_metrics_of_training_are_those_of_validation_bit_for_bit(classes, dtype):
    logits, labels = torch.randn(40, classes).to(dtype), torch.randint(0, classes, (40,))
    training, validation = trained(TrainingMetrics(classes), logits, labels, 32, 8), Metrics(classes)
    for part, target in zip(logits.split((32, 8)), labels.split((32, 8)), strict=True):
        validation.add(F.cross_entropy(part, target), part, target)
    assert training.compute() == validation.compute()
    assert {name: value.dtype for name, value in training.compute().items()} == {
        name: value.dtype for name, value in validation.compute().items()
    }
    training.reset()
    assert trained(training, torch.eye(classes), torch.arange(classes), classes).compute()["accuracy"] == 1


def test_the_metrics_of_training_continue_from_their_state():
    logits, labels = torch.randn(40, 7), torch.randint(0, 7, (40,))
    whole = trained(TrainingMetrics(7), logits, labels, 32, 8)
    second = TrainingMetrics(7)
    second.load_states([trained(TrainingMetrics(7), logits[:32], labels[:32], 32).state()], rank=0, world_size=1)
    assert trained(second, logits[32:], labels[32:], 8).compute() == whole.compute()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_metrics_of_training_continue_on_another_number_of_devices(world_size):
    logits, labels = torch.randn(48, 7), torch.randint(0, 7, (48,))
    whole = trained(TrainingMetrics(7), logits, labels, 48).compute()
    states = [trained(TrainingMetrics(7), logits[rank:24:2], labels[rank:24:2], 12).state() for rank in range(2)]
    means = []
    for rank in range(world_size):
        metrics = TrainingMetrics(7)
        metrics.load_states(states, rank, world_size)
        own = slice(24 + rank, 48, world_size)
        means.append(trained(metrics, logits[own], labels[own], 24 // world_size).compute())
    for name, value in whole.items():
        torch.testing.assert_close(torch.stack([mean[name] for mean in means]).mean(), value)


@pytest.mark.parametrize("classes", [4, 7])
def test_the_metrics_of_training_continue_from_the_state_of_an_older_version(classes):
    """It was that of torchmetrics."""
    logits, labels = torch.randn(40, classes), torch.randint(0, classes, (40,))
    older, now = Metrics(classes), TrainingMetrics(classes)
    older.add(F.cross_entropy(logits, labels), logits, labels)
    state = {"loss.total": older.loss.total, "loss.images": older.loss.images}
    for name, score in older.scores.items():
        state |= {f"scores.{name}.{each}": getattr(score, each) for each in ("tp", "fp", "tn", "fn")}
    now.load_states([state], rank=0, world_size=1)
    assert now.compute() == older.compute()


@pytest.mark.parametrize(
    ("logits", "labels", "error"),
    [
        # From 0 to 1, as probabilities are: the confidences are 1 / (1 + exp(-0.8)) and 1 / (1 + exp(-0.5)).
        ([[0.9, 0.1], [0.2, 0.7]], [0, 1], 1 - (0.68997 + 0.62246) / 2),
        # One bin holds ten confidences of exactly 1, of which eight are right, and ten of 0.96466, which are right.
        ([[30.0, 0, 0]] * 10 + [[4.0, 0, 0]] * 10, [0] * 8 + [1] * 2 + [0] * 10, (1 + 0.96466) / 2 - 0.9),
        ([[0.0, 0, 0]] * 3, [0, 1, 2], 0),  # confidences of exactly 5/15, a bound of two bins
    ],
)
def test_the_calibration_error_is_that_of_the_definition(logits, labels, error):
    values = computed(torch.tensor(logits), torch.tensor(labels))
    assert values["calibration_error"].item() == pytest.approx(error, abs=1e-5)
    assert expected_calibration_error(torch.tensor(logits), torch.tensor(labels)) == pytest.approx(error, abs=1e-5)


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_no_metric_depends_on_the_size_of_the_batches(scale):
    torch.manual_seed(0)
    logits, labels = scale * torch.rand(300, 7), torch.randint(0, 7, (300,))
    expected = computed(logits, labels)
    assert expected["calibration_error"].item() == pytest.approx(expected_calibration_error(logits, labels), abs=1e-6)
    for batch_size in (1, 7, 256):
        values = computed(logits, labels, batch_size)
        assert {name: value.item() for name, value in values.items()} == {
            name: pytest.approx(value.item(), rel=1e-6) for name, value in expected.items()
        }


def test_accuracies_and_f1_equal_those_of_scikit_learn():
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 9), torch.randint(0, 7, (200,))
    logits[:, 7] = -100.0  # class 7 is neither true nor predicted, class 8 is only predicted
    values = computed(logits, labels, batch_size=32)
    for name, k in (("accuracy", 1), ("top5_accuracy", 5)):
        assert values[name].item() == pytest.approx(top_k_accuracy_score(labels, logits, k=k, labels=range(9)))
    assert values["f1_macro"].item() == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"))


def test_bfloat16_logits_give_the_scores_of_their_values():
    torch.manual_seed(0)
    logits, labels = torch.randn(100, 7).bfloat16(), torch.randint(0, 7, (100,))
    assert computed(logits, labels)["accuracy"] == computed(logits.float(), labels)["accuracy"]
    error = expected_calibration_error(logits.float(), labels)
    assert computed(logits, labels)["calibration_error"].item() == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("broken", [[NAN] * 7, [0, 0, 0, NAN, 0, 0, 0], [float("-inf")] * 7])
def test_an_image_without_a_prediction_is_wrong(broken):
    """argmax of NaN is a class, so that a diverged network would be right by chance."""
    values = computed(torch.tensor([broken] * 7 + [[9.0, 0, 0, 0, 0, 0, 0]]), torch.tensor([*range(7), 0]))
    assert values["accuracy"] == values["top5_accuracy"] == 1 / 8
    assert values["loss"].isnan()
    assert values["calibration_error"].isnan()


def test_the_calibration_error_counts_the_right_answers_of_the_accuracy():
    below = torch.tensor(0.25)
    above = torch.nextafter(below, torch.tensor(1.0))
    logits = torch.tensor([[below, above], [NAN, 0], [9, 0]])  # the first two have equal probabilities
    assert logits[:1].softmax(1).unique().numel() == 1
    metric = Metrics(2, final=True).calibration_error
    metric.update(logits, torch.tensor([1, 0, 0]))
    assert metric.right.sum() == 2


def test_the_mean_loss_of_many_images_counts_each_of_them():
    """A float32 sum of 20,000,000 grows in steps of 2, so that it would ignore a loss of 0.3."""
    loss = MeanLoss()
    loss.update(torch.tensor(100.0), 200_000)
    for _ in range(1000):
        loss.update(torch.tensor(0.3), 1)
    assert loss.compute().item() == pytest.approx((200_000 * 100 + 1000 * 0.3) / 201_000, rel=1e-8)


def test_the_calibration_error_of_many_images_counts_each_of_them():
    logits, labels = torch.tensor([[0.0, 4.0]]), torch.tensor([1])
    metric = Metrics(2, final=True).calibration_error
    metric.update(logits, labels)
    for state in metric.metric_state:
        setattr(metric, state, getattr(metric, state) * 2**25)  # as after 33,554,432 images
    for _ in range(100):
        metric.update(logits, labels)
    assert metric.images.sum() == metric.right.sum() == 2**25 + 100
    confidence = torch.sigmoid(torch.tensor(4.0)).item()
    assert metric.confidence.sum().item() == pytest.approx((2**25 + 100) * confidence, rel=1e-9)


def test_the_parts_of_several_processes_add_up():
    torch.manual_seed(0)
    logits, labels = torch.randn(100, 7), torch.randint(0, 7, (100,))
    parts = [Metrics(7, final=True).calibration_error for _ in range(2)]
    parts[0].update(logits[:30], labels[:30])
    parts[1].update(logits[30:], labels[30:])
    parts[0].merge_state(parts[1])  # with the reductions that torchmetrics uses between processes
    assert parts[0].compute().item() == pytest.approx(expected_calibration_error(logits, labels), abs=1e-6)


def test_macro_f1_equals_torchmetrics_bit_for_bit():
    """A class that is neither true nor predicted does not count."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (kind(9, average="macro") for kind in (MacroF1, MulticlassF1Score))
    for size in (64, 64, 5):
        logits = torch.randn(size, 9, generator=generator)
        logits[:, 8] = -9
        labels = torch.randint(0, 8, (size,), generator=generator)
        ours.update(logits, labels)
        theirs.update(logits, labels)
    assert ours.compute().item() == theirs.compute().item()
    for name in ("tp", "fp", "tn", "fn"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that an operation has returned."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, tuple | list) else [outputs]:
            if isinstance(output, torch.Tensor):
                self.size = max(self.size, output.numel())
        return outputs


def test_no_metric_has_memory_for_each_pair_of_classes():
    images, classes = 16, 2000
    with LargestTensor() as largest:
        metrics = Metrics(classes, final=True)
        logits, labels = torch.randn(images, classes), torch.arange(images)
        metrics.add(torch.tensor(1.0), logits, labels)
        metrics.compute()
    assert largest.size == images * classes
