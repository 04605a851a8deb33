import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reslab.data.fitting import Fitting
from reslab.data.preprocessing import Preprocessing, require_pixels
from reslab.errors import UserError


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_normalisation_has_exact_values():
    images = torch.tensor([[0, 51, 255], [255, 102, 0]], dtype=torch.uint8).view(2, 3, 1, 1)
    preprocess = Preprocessing(mean=[0.5, 0.2, 0.0], std=[0.25, 0.2, 1.0], channels=3, fitting=Fitting(1))
    result = preprocess(images)
    assert result.dtype == torch.float32
    expected = torch.tensor([[-2, 0, 1], [2, 1, 0.0]])
    assert torch.allclose(result.view(2, 3), expected, rtol=0, atol=1e-6)
    assert preprocess.state_dict() == {}  # a checkpoint holds the statistics in its spec


@pytest.mark.parametrize(("stored", "size"), [((12, 12), 8), ((8, 8), 16), ((6, 9), 8), ((8, 9), 8)])
def test_images_of_another_size_are_resized_with_antialiasing(stored, size):
    images = random_images(2, 3, *stored)
    result = Preprocessing(mean=[0.0] * 3, std=[1.0] * 3, channels=3, fitting=Fitting(size))(images)
    expected = F.interpolate(images / 255, (size, size), mode="bilinear", antialias=True)
    assert torch.allclose(result, expected, rtol=0, atol=1e-6)


def test_images_of_the_right_size_are_not_resized(monkeypatch):
    monkeypatch.setattr(F, "interpolate", None)
    images = random_images(2, 3, 8, 8)
    result = Preprocessing(mean=[0.0] * 3, std=[1.0] * 3, channels=3, fitting=Fitting(8))(images)
    assert torch.equal(result, images.float() / 255)


def test_grey_is_normalised_and_repeated():
    images = random_images(2, 1, 8, 8)
    result = Preprocessing(mean=[0.25], std=[0.5], channels=3, fitting=Fitting(8))(images)
    assert result.shape == (2, 3, 8, 8)
    for channel in range(3):
        assert torch.allclose(result[:, channel], (images[:, 0] / 255 - 0.25) / 0.5, rtol=0, atol=1e-6)


def test_rgb_becomes_grey_as_with_pillow():
    images = random_images(1, 3, 16, 16)
    result = Preprocessing(mean=[0.0] * 3, std=[1 / 255] * 3, channels=1, fitting=Fitting(16))(images)
    grey = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L"), dtype=np.float32)
    assert result.shape == (1, 1, 16, 16)
    assert np.abs(result[0, 0].numpy() - grey).max() < 0.51  # Pillow rounds to whole levels


@pytest.mark.parametrize("channels", [1, 3])
def test_a_network_of_grey_images_takes_rgb_as_the_grey_of_pillow(channels):
    images = random_images(2, 3, 64, 64)
    grey = [np.asarray(Image.fromarray(each.permute(1, 2, 0).numpy()).convert("L")) for each in images]
    preprocess = Preprocessing(mean=[0.25], std=[0.5], channels=channels, fitting=Fitting(32))
    assert preprocess(images).equal(preprocess(torch.from_numpy(np.stack(grey))[:, None]))


@pytest.mark.parametrize(("stored", "channels", "size"), [(3, 3, 8), (3, 3, 6), (1, 3, 8), (3, 1, 8), (1, 1, 6)])
def test_the_result_is_channels_last(stored, channels, size):
    preprocess = Preprocessing(mean=[0.5] * stored, std=[0.5] * stored, channels=channels, fitting=Fitting(size))
    result = preprocess(random_images(2, stored, 8, 8))
    assert result.shape == (2, channels, size, size)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_statistics_may_be_integers():
    """data.mean=[1] on the command line is an integer."""
    preprocess = Preprocessing(mean=[1], std=[2], channels=1, fitting=Fitting(1))
    assert preprocess(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item() == 0.0
    assert preprocess.mean.dtype == preprocess.std.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "given"),
    [
        (torch.zeros(2, 1, 8, 8), "float32 (2, 1, 8, 8)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), "int64 (2, 1, 8, 8)"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8 (3, 8, 8)"),  # three grey images would be one of RGB
        (np.zeros((2, 1, 8, 8), dtype=np.uint8), "ndarray"),
        ([0], "list"),
    ],
)
def test_what_is_no_batch_of_pixels_is_refused(images, given):
    require_pixels(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(UserError) as caught:
        require_pixels(images)
    assert str(caught.value) == (
        "the classifier takes a uint8 tensor (N, C, H, W) of values from 0 to 255, as torchvision's pil_to_tensor and "
        f"v2.PILToTensor give them, and not ToTensor; this is {given}"
    )
