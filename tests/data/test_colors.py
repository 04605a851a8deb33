import itertools

import pytest
import torch
from image_batches import greatest_difference, random_images
from statistical import same_distribution
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from reslab.data import colors

FACTORS = torch.tensor([0.0, 0.1, 0.37, 0.5, 0.99, 1.0, 1.01, 1.37, 1.9, 3.0])


def each(function, images, *parameters):
    return torch.stack([function(image, *values) for image, *values in zip(images, *parameters, strict=True)])


OTHERS = {
    "brightness": lambda images: torch.zeros(1),
    "contrast": lambda images: colors.gray_levels(images).mean((1, 2, 3), keepdim=True),
    "saturation": colors.gray_levels,
    "sharpness": colors.smoothed,
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OTHERS)
def test_a_blend_is_within_a_level_of_torchvisions_function_on_each_image(name, channels):
    images = random_images(len(FACTORS), channels)
    result = colors.blend(images, OTHERS[name](images), FACTORS)
    expected = each(getattr(reference, f"adjust_{name}"), images, FACTORS.tolist())
    if (name, channels) == ("saturation", 1):  # torchvision leaves grey images alone, as `apply_operations` does
        expected = images
    assert greatest_difference(result, expected) <= 1


def test_a_blend_of_ratio_one_changes_nothing():
    images = random_images(10, 3)
    for other in OTHERS.values():
        assert torch.equal(colors.blend(images, other(images), torch.ones(10)), images)


def test_brightness_and_the_smoothed_image_equal_torchvisions():
    images = random_images(len(FACTORS), 3)
    brighter = each(reference.adjust_brightness, images, FACTORS.tolist())
    assert torch.equal(colors.blend(images, torch.zeros(1), FACTORS), brighter)
    sharpest = each(lambda image: reference.adjust_sharpness(image, 0.0), images)
    assert torch.equal(colors.smoothed(images).byte(), sharpest)


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.1, 0.0, 0.1, 0.25, 0.5])
def test_the_hue_is_within_a_level_of_torchvisions_on_each_image(shift):
    images = random_images(10, 3)
    expected = each(lambda image: reference.adjust_hue(image, shift), images)
    result = colors.shift_hue(images, torch.full((10,), shift))
    assert greatest_difference(result, expected) <= 1


def test_grey_images_have_no_hue():
    images = random_images(10, 1)
    assert colors.shift_hue(images, torch.full((10,), 0.3)) is images


# color jitter


def jittered(image, order, strengths, factors, shift):
    """Apply torchvision's functions to one image in the order of `order`, where 3 is the hue."""
    functions = (
        lambda image: reference.adjust_brightness(image, factors[0]),
        lambda image: reference.adjust_contrast(image, factors[1]),
        lambda image: reference.adjust_saturation(image, factors[2]),
        lambda image: reference.adjust_hue(image, shift) if strengths[3] else image,
    )
    for which in order:
        image = functions[which](image)
    return image


@pytest.mark.parametrize("channels", [1, 3])
def test_blends_in_turn_are_torchvisions_in_every_order(channels):
    orders = torch.tensor([*itertools.permutations(range(3))])
    factors = torch.tensor([0.7, 1.25, 1.4]).expand(6, -1).gather(1, orders)
    images = random_images(6, channels)
    expected = [
        jittered(image, order, (1, 1, 1, 0), (0.7, 1.25, 1.4), 0.0)
        for image, order in zip(images, orders.tolist(), strict=True)
    ]
    # Each blend adds a level at most and multiplies those before by its factor: 1 + 1.4 + 1.4 * 1.25 = 4.15.
    assert greatest_difference(colors.blend_in_turn(images, orders, factors), torch.stack(expected)) <= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "strengths", [(0.4, 0.3, 0.5, 0.1), (0.4, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.3), (2.0, 0.0, 1.0, 0.5)]
)
def test_jitter_is_distributed_as_torchvisions(strengths):
    n = 5000
    image = torch.tensor([[200, 30], [90, 61], [40, 150]], dtype=torch.uint8).view(1, 3, 1, 2)
    torch.manual_seed(0)
    ours = colors.jitter(image.expand(n, -1, -1, -1), strengths)
    change = v2.ColorJitter(*strengths)
    theirs = torch.stack([change(image[0]) for _ in range(n)])
    for channel in range(3):
        for column in range(2):
            assert same_distribution(*(each[:, channel, 0, column].numpy() for each in (ours, theirs)))


# tables


def replaced(images, tables):
    """Apply tables as `apply_operations` does."""
    return colors.apply_tables(images, colors.to_levels(tables).expand(*images.shape[:2], -1))


@pytest.mark.parametrize("channels", [1, 3])
def test_posterizing_and_solarizing_equal_torchvisions(channels):
    images = random_images(9, channels)
    bits, thresholds = torch.arange(9), torch.tensor([0.0, 1, 8.5, 77, 128, 240, 254, 254.5, 255])
    posterized = each(reference.posterize, images, bits.tolist())
    assert torch.equal(replaced(images, colors.posterize_table(bits)), posterized)
    solarized = each(reference.solarize, images, thresholds.tolist())
    assert torch.equal(replaced(images, colors.solarize_table(thresholds)), solarized)


@pytest.mark.parametrize("size", [(24, 20), (8, 8), (3, 90), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_equalizing_and_stretching_the_levels_equal_torchvisions(channels, size):
    images = random_images(12, channels, *size)
    assert torch.equal(replaced(images, colors.equalize_table(images)), each(reference.equalize, images))
    assert torch.equal(replaced(images, colors.autocontrast_table(images)), each(reference.autocontrast, images))
