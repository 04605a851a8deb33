"""The whitening stem: the outputs of its filters on the images that it was computed from."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reslab.errors import UserError
from reslab.models.whitening import EPSILON, whiten_stem


@pytest.mark.parametrize(("channels", "filters", "stride"), [(1, 16, 2), (1, 32, 1), (3, 64, 2)])
def test_outputs_are_uncorrelated_and_of_unit_variance(channels: int, filters: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20, channels, 15, 15, generator=generator)
    images = F.avg_pool2d(noise, 3, 1)  # neighbours are correlated
    network = nn.Module()
    network.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
    before = network.conv1.weight.detach().clone()
    whiten_stem(network, images)
    weight = network.conv1.weight.detach()
    pairs = min(9 * channels, filters // 2)
    assert torch.equal(weight[2 * pairs :], before[2 * pairs :])
    assert torch.equal(weight[pairs : 2 * pairs], -weight[:pairs])
    outputs = F.conv2d(images, weight[:pairs], stride=stride).transpose(0, 1).flatten(1)  # without the padded border
    covariance = outputs @ outputs.T / outputs.shape[1]
    variances = covariance.diagonal()
    torch.testing.assert_close(covariance, variances.diag(), rtol=0, atol=1e-5)
    patches = F.unfold(images, 3, stride=stride).transpose(0, 1).flatten(1)
    strongest = torch.linalg.eigvalsh(patches @ patches.T / patches.shape[1]).flip(0)[:pairs]
    torch.testing.assert_close(variances, strongest / (strongest + EPSILON), rtol=1e-4, atol=1e-5)


def test_the_first_convolution_of_the_deep_stem_is_whitened() -> None:
    network = nn.Module()
    network.conv1 = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.Conv2d(4, 8, 3, bias=False))
    last = network.conv1[2].weight.detach().clone()
    whiten_stem(network, torch.rand(4, 1, 9, 9))
    assert torch.equal(network.conv1[0].weight[2:], -network.conv1[0].weight[:2])
    assert torch.equal(network.conv1[2].weight, last)


def test_a_network_without_a_first_convolution_is_refused() -> None:
    with pytest.raises(UserError, match="needs a stem"):
        whiten_stem(nn.Module(), torch.rand(4, 1, 9, 9))
