import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from reslab.data import transforms
from reslab.data.transforms import Augmentation, Preprocessing


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def within_six_deviations(count, draws, probability):
    """Return whether a binomial count is within an interval that it leaves once in 5e8 times."""
    return abs(count - draws * probability) < 6 * (draws * probability * (1 - probability)) ** 0.5


# parts of the augmentation


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_crop_windows_equals_slicing_each_padded_image_at_every_offset(padding):
    offsets = range(2 * padding + 1)
    top, left = torch.cartesian_prod(torch.tensor(offsets), torch.tensor(offsets)).T
    images = random_images(len(top), 3, 5, 4)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    expected = [image[:, y : y + 5, x : x + 4] for image, y, x in zip(padded, top, left, strict=True)]
    result = transforms.crop_windows(images, padding, top, left)
    assert result.dtype == torch.uint8
    assert np.array_equal(result, np.stack(expected))


def test_flip_chosen_mirrors_left_and_right_of_the_chosen():
    images = random_images(3, 2, 4, 5)
    result = transforms.flip_chosen(images, torch.tensor([True, False, True]))
    assert np.array_equal(result[[0, 2]], images.numpy()[[0, 2], :, :, ::-1])
    assert torch.equal(result[1], images[1])


def test_erase_rectangles_fills_exactly_the_rectangles():
    images = random_images(4, 3, 6, 7)
    top, left, height, width = torch.tensor([[0, 2, 5, 0], [0, 3, 6, 0], [6, 3, 1, 0], [7, 2, 1, 7]])
    torch.manual_seed(5)
    result = transforms.erase_rectangles(images, top, left, height, width)
    torch.manual_seed(5)
    noise = transforms.random_bytes(images)
    expected = images.clone()
    for n in range(4):
        rectangle = (n, slice(None), slice(top[n], top[n] + height[n]), slice(left[n], left[n] + width[n]))
        expected[rectangle] = noise[rectangle]
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    assert torch.equal(result[3], images[3])  # height 0
    assert (result[0] != images[0]).sum() > 100  # of 126; two bytes are equal once in 256 times


def test_random_bytes_are_uniform_at_every_position():
    torch.manual_seed(0)
    drawn = transforms.random_bytes(torch.empty(1001, 3, 3, 3))  # 27,027 bytes, no multiple of eight
    assert drawn.shape == (1001, 3, 3, 3)
    assert drawn.dtype == torch.uint8
    counts = drawn.flatten().bincount(minlength=256)
    assert all(within_six_deviations(int(count), drawn.numel(), 1 / 256) for count in counts)
    for place in range(8):  # within a drawn word of 8 bytes
        high = int((drawn.flatten()[place::8] >= 128).sum())
        assert within_six_deviations(high, len(drawn.flatten()[place::8]), 0.5)


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (20, 40)])
def test_rectangles_have_the_areas_and_aspects_of_the_paper_and_lie_inside(rows, columns):
    n = 20_000
    torch.manual_seed(0)
    top, left, height, width = transforms.draw_rectangles(torch.empty(n, 1, rows, columns), probability=0.25)
    drawn = height > 0
    assert within_six_deviations(int(drawn.sum()), n, 0.25)
    top, left, height, width = (values[drawn] for values in (top, left, height, width))
    assert top.min() == left.min() == 0
    assert (top + height).max() == rows
    assert (left + width).max() == columns
    low, high = (fraction * rows * columns for fraction in transforms.ERASED_AREA)
    assert ((height - 0.5) * (width - 0.5) <= high).all()  # the sides are rounded to pixels
    free = (height < rows) & (width < columns)  # not clamped
    height, width = height[free], width[free]
    assert ((height + 0.5) * (width + 0.5) >= low).all()
    assert ((height - 0.5) / (width + 0.5) <= transforms.ERASED_ASPECT[1]).all()
    assert ((height + 0.5) / (width - 0.5) >= transforms.ERASED_ASPECT[0]).all()
    assert (height * width).max() / (height * width).min() > 10  # areas up to 20 times as large are allowed


def test_a_rectangle_is_tall_as_often_as_it_is_wide():
    torch.manual_seed(0)
    _, _, height, width = transforms.draw_rectangles(torch.empty(20_000, 1, 500, 500), probability=1.0)
    different = height != width
    assert within_six_deviations(int((height > width).sum()), int(different.sum()), 0.5)


# the augmentation


def test_every_offset_occurs_equally_often_and_half_of_the_images_are_mirrored():
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    padded = F.pad(image, (1,) * 4)
    windows = [padded[:, :, y : y + 3, x : x + 3] for y in range(3) for x in range(3)]
    variants = torch.cat([*windows, *(window.flip(3) for window in windows)])  # 18 different images
    n = 18 * 500
    torch.manual_seed(0)
    result = Augmentation(crop=1, flip=True, erasing=0.0)(image.expand(n, -1, -1, -1))
    matches = (result[:, None] == variants[None]).flatten(2).all(2)  # (n, 18)
    assert (matches.sum(1) == 1).all()
    assert all(within_six_deviations(count, n, 1 / 18) for count in matches.sum(0).tolist())
    assert within_six_deviations(int(matches[:, 9:].sum()), n, 0.5)  # mirrored


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_changes_the_given_share_of_the_images(probability):
    images = random_images(4000, 1, 16, 16)
    torch.manual_seed(1)
    result = Augmentation(crop=0, flip=False, erasing=probability)(images)
    changed = int((result != images).flatten(1).any(1).sum())
    # the smallest rectangle has 5 pixels, all drawn equal to the image's once in 256**5 times
    assert changed == 4000 if probability == 1 else within_six_deviations(changed, 4000, probability)


@pytest.mark.parametrize("options", [(2, False, 0.0), (0, True, 0.0), (0, False, 0.5), (2, True, 0.5)])
def test_augmentation_is_a_function_of_the_seed(options):
    crop, flip, erasing = options
    augmentation, images = Augmentation(crop=crop, flip=flip, erasing=erasing), random_images(16, 3, 8, 9)

    def augment(seed):
        torch.manual_seed(seed)
        return augmentation(images)

    result = augment(3)
    assert torch.equal(result, augment(3))
    assert not torch.equal(result, augment(4))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)


def test_augmentation_that_is_off_returns_the_same_tensor():
    images = random_images(4, 3, 8, 8)
    assert Augmentation(crop=0, flip=False, erasing=0.0)(images) is images


# preprocessing


def test_normalisation_has_exact_values():
    images = torch.tensor([[0, 51, 255], [255, 102, 0]], dtype=torch.uint8).view(2, 3, 1, 1)
    preprocess = Preprocessing(mean=[0.5, 0.2, 0.0], std=[0.25, 0.2, 1.0], channels=3, image_size=1)
    result = preprocess(images)
    assert result.dtype == torch.float32
    expected = torch.tensor([[-2, 0, 1], [2, 1, 0.0]])
    assert torch.allclose(result.view(2, 3), expected, rtol=0, atol=1e-6)
    assert preprocess.state_dict() == {}  # a checkpoint holds the statistics in its spec


@pytest.mark.parametrize(("stored", "size"), [((12, 12), 8), ((8, 8), 16), ((6, 9), 8), ((8, 9), 8)])
def test_images_of_another_size_are_resized_with_antialiasing(stored, size):
    images = random_images(2, 3, *stored)
    result = Preprocessing(mean=[0.0] * 3, std=[1.0] * 3, channels=3, image_size=size)(images)
    expected = F.interpolate(images / 255, (size, size), mode="bilinear", antialias=True)
    assert torch.allclose(result, expected, rtol=0, atol=1e-6)


def test_images_of_the_right_size_are_not_resized(monkeypatch):
    monkeypatch.setattr(F, "interpolate", None)
    images = random_images(2, 3, 8, 8)
    result = Preprocessing(mean=[0.0] * 3, std=[1.0] * 3, channels=3, image_size=8)(images)
    assert torch.equal(result, images.float() / 255)


def test_grey_is_normalised_and_repeated():
    images = random_images(2, 1, 8, 8)
    result = Preprocessing(mean=[0.25], std=[0.5], channels=3, image_size=8)(images)
    assert result.shape == (2, 3, 8, 8)
    for channel in range(3):
        assert torch.allclose(result[:, channel], (images[:, 0] / 255 - 0.25) / 0.5, rtol=0, atol=1e-6)


def test_rgb_becomes_grey_as_with_pillow():
    images = random_images(1, 3, 16, 16)
    result = Preprocessing(mean=[0.0] * 3, std=[1 / 255] * 3, channels=1, image_size=16)(images)
    grey = np.asarray(Image.fromarray(images[0].permute(1, 2, 0).numpy()).convert("L"), dtype=np.float32)
    assert result.shape == (1, 1, 16, 16)
    assert np.abs(result[0, 0].numpy() - grey).max() < 0.51  # Pillow rounds to whole levels


@pytest.mark.parametrize(("stored", "channels", "size"), [(3, 3, 8), (3, 3, 6), (1, 3, 8), (3, 1, 8), (1, 1, 6)])
def test_the_result_is_channels_last(stored, channels, size):
    preprocess = Preprocessing(mean=[0.5] * stored, std=[0.5] * stored, channels=channels, image_size=size)
    result = preprocess(random_images(2, stored, 8, 8))
    assert result.shape == (2, channels, size, size)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_statistics_may_be_integers():
    """data.mean=[1] on the command line is an integer."""
    preprocess = Preprocessing(mean=[1], std=[2], channels=1, image_size=1)
    assert preprocess(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)).item() == 0.0
    assert preprocess.mean.dtype == preprocess.std.dtype == torch.float32
