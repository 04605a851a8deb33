import pytest
import torch
from torch.nn import functional as F

from reslab.training.metrics import Metrics


def test_metrics_are_those_of_the_definition():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 7), torch.randint(0, 7, (40,))
    metrics = Metrics(7)
    for start, stop in ((0, 32), (32, 40)):  # batches of unequal size count by their images
        part, target = logits[start:stop], labels[start:stop]
        metrics.add(F.cross_entropy(part, target), part, target)
    values = metrics.compute()
    torch.testing.assert_close(values["loss"], F.cross_entropy(logits, labels))
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


def test_metrics_continue_from_their_state():
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 7), torch.randint(0, 7, (40,))
    whole, first, second = Metrics(7), Metrics(7), Metrics(7)
    for metrics, start, stop in ((whole, 0, 32), (whole, 32, 40), (first, 0, 32)):
        metrics.add(F.cross_entropy(logits[start:stop], labels[start:stop]), logits[start:stop], labels[start:stop])
    second.load_state(first.state())
    second.add(F.cross_entropy(logits[32:], labels[32:]), logits[32:], labels[32:])
    assert second.compute() == whole.compute()
