import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reslab.training.views import Views, five_crops, shifted

IMAGES = torch.randint(0, 256, (3, 2, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def floats(images):
    return images.float()


def test_without_views_the_logits_are_the_networks():
    network = nn.Sequential(nn.Flatten(), nn.Linear(84, 5))
    assert Views().mean_logits(IMAGES, floats, network).equal(network(IMAGES.float()))
    assert Views().names == []


def test_the_mean_of_all_copies():
    """The network sums weighted pixels, so that the mean of its logits is that of the mean of the copies."""
    weights = torch.rand(2, 6, 7)
    mean = Views(flip=True, shifts=True).mean_logits(IMAGES, floats, lambda x: (x * weights).sum((1, 2, 3))[:, None])
    copies = torch.stack([copy for each in (IMAGES, IMAGES.flip(3)) for copy in shifted(each)])
    assert len(copies) == 18
    torch.testing.assert_close(mean[:, 0], (copies.float().mean(0) * weights).sum((1, 2, 3)))


def test_shifts_are_those_of_the_padded_image():
    padded = F.pad(IMAGES, (1, 1, 1, 1))
    copies = list(shifted(IMAGES))
    assert copies[0].equal(IMAGES)
    assert len({copy.numpy().tobytes() for copy in copies}) == 9
    windows = [padded[:, :, top : top + 6, left : left + 7] for top in range(3) for left in range(3)]
    assert all(any(copy.equal(window) for window in windows) for copy in copies)


def test_ten_crops():
    x = torch.arange(2 * 3 * 8 * 8.0).view(2, 3, 8, 8).to(memory_format=torch.channels_last)
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    crops = list(five_crops(x, 6))
    assert all(
        crop.equal(x[:, :, top : top + 6, left : left + 6]) for crop, (top, left) in zip(crops, corners, strict=True)
    )
    assert all(crop.is_contiguous(memory_format=torch.channels_last) for crop in crops)
    copies = list(Views(flip=True, crop=6).copies(x, lambda images: images))
    assert len(copies) == 10
    assert copies[5].equal(x.flip(3)[:, :, :6, :6])
    assert Views(flip=True, crop=6).names == ["flip", "crops"]


@pytest.mark.parametrize("views", [Views(flip=True), Views(crop=5), Views(flip=True, crop=5)])
def test_a_network_that_ignores_position_gives_the_same_results(views):
    """Its images have one colour each, so that all copies are equal."""
    torch.manual_seed(0)
    images = IMAGES[:, :, :1, :1].expand(-1, -1, 8, 8)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = network(images.float())
    torch.testing.assert_close(views.mean_logits(images, floats, network), expected, rtol=1e-6, atol=1e-5)


def test_shifts_of_an_image_with_a_black_border_change_nothing_for_a_network_that_pools():
    torch.manual_seed(0)
    images = F.pad(IMAGES, (2, 2, 2, 2))
    network = nn.Sequential(nn.Conv2d(2, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = network(images.float())
    torch.testing.assert_close(Views(shifts=True).mean_logits(images, floats, network), expected, rtol=1e-6, atol=1e-5)
