import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn import functional as F

from reslab.errors import UserError
from reslab.inference.temperature import fit_temperature, standard_error, with_temperature


def drawn(temperature, n=20_000):
    """Logits that are too large by a factor, and labels that are drawn from the right probabilities."""
    generator = torch.Generator().manual_seed(0)
    right = 2 * torch.randn(n, 6, generator=generator)
    return right * temperature, torch.multinomial(right.softmax(1), 1, generator=generator).squeeze(1)


def mean_loss(logits, labels):
    return F.cross_entropy(logits.double(), labels).item()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_temperature_with_which_labels_were_drawn_is_found(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.02)


def test_the_temperature_has_the_least_loss():
    logits, labels = drawn(1.7, n=500)
    loss = minimize_scalar(
        lambda t: mean_loss(logits.double() / math.exp(t), labels), bounds=(-3, 3), options={"xatol": 1e-9}
    )
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(math.exp(loss.x), rel=1e-5)
    assert mean_loss(logits.double() / temperature, labels) <= loss.fun + 1e-12


def test_two_classes_by_hand():
    """Three of four images are right with a difference of logits of 1, so that 1 / T is log(3)."""
    logits, labels = torch.tensor([[1.0, 0.0]] * 4), torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(1 / math.log(3), rel=1e-9)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[3.0, 0.0], [0.0, 2.0]], [0, 1], "no temperature fits: the network is right about all 2 validation images"),
        ([[3.0, 0.0], [0.0, 2.0]], [1, 0], "no temperature fits: the network is no better than chance on 2"),
        ([[0.0, 0.0], [0.0, 0.0]], [1, 0], "no temperature fits"),
        ([[math.inf, 0.0], [0.0, 2.0]], [0, 1], "the network has no temperature: its logits for some validation imag"),
        ([[math.nan, 0.0], [0.0, 2.0]], [0, 1], "the network has no temperature: its logits for some validation imag"),
    ],
)
def test_what_has_no_temperature_is_one_line(logits, labels, message):
    with pytest.raises(UserError) as error:
        fit_temperature(torch.tensor(logits), torch.tensor(labels))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("temperature", [0.3, 1.1, 7.0])
def test_a_temperature_changes_no_answer(temperature):
    """Many of these logits differ in the last bit only, and some become equal when they are divided."""
    base = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(0)) * 4
    above = torch.nextafter(base, base.new_tensor(math.inf))
    logits = torch.cat([base - 3, base, above], 1)
    divided = logits / temperature
    assert temperature < 1 or (divided.argmax(1) != 2).any()
    scaled = with_temperature(logits, temperature)
    assert scaled.argmax(1).equal(logits.argmax(1))
    torch.testing.assert_close(scaled, divided, rtol=1e-6, atol=1e-6)
    assert scaled[:, 0].equal(divided[:, 0])


def test_the_standard_error_is_the_spread_over_other_samples():
    fitted = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        right = 2 * torch.randn(400, 4, generator=generator)
        labels = torch.multinomial(right.softmax(1), 1, generator=generator).squeeze(1)
        fitted.append(fit_temperature(1.5 * right, labels))
    spread = torch.tensor(fitted).std().item()  # known to 5% after 200 samples
    assert standard_error(1.5 * right, fitted[-1]) == pytest.approx(spread, rel=0.25)
