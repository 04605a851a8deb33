import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from statistical import same_distribution, within_six_deviations
from torch.nn import functional as F

from reslab.data import augmentation
from reslab.data.augmentation import Augmentation
from reslab.data.fitting import Fitting
from reslab.data.preprocessing import Preprocessing


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


# parts of the augmentation


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_crop_windows_equals_slicing_each_padded_image_at_every_offset(padding):
    offsets = range(2 * padding + 1)
    top, left = torch.cartesian_prod(torch.tensor(offsets), torch.tensor(offsets)).T
    images = random_images(len(top), 3, 5, 4)
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    expected = [image[:, y : y + 5, x : x + 4] for image, y, x in zip(padded, top, left, strict=True)]
    result = augmentation.crop_windows(images, padding, top, left)
    assert result.dtype == torch.uint8
    assert np.array_equal(result, np.stack(expected))


def test_flip_chosen_mirrors_left_and_right_of_the_chosen():
    images = random_images(3, 2, 4, 5)
    result = augmentation.flip_chosen(images, torch.tensor([True, False, True]))
    assert np.array_equal(result[[0, 2]], images.numpy()[[0, 2], :, :, ::-1])
    assert torch.equal(result[1], images[1])


def test_right_angles_rotate_each_image_as_torch_does():
    images = random_images(8, 3, 5, 5)
    turns = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])
    expected = [torch.rot90(image, count, (1, 2)) for image, count in zip(images, turns.tolist(), strict=True)]
    assert torch.equal(augmentation.rotate_right_angles(images, turns), torch.stack(expected))


@pytest.mark.parametrize("fill", ["pixels", 0, 72, 255])
def test_fill_rectangles_fills_exactly_the_rectangles(fill):
    images = random_images(4, 3, 6, 7)
    top, left, height, width = torch.tensor([[0, 2, 5, 0], [0, 3, 6, 0], [6, 3, 1, 0], [7, 2, 1, 7]])
    pixels = random_images(4, 3, 6, 7, seed=1) if fill == "pixels" else torch.full_like(images, fill)
    result = augmentation.fill_rectangles(images, top, left, height, width, pixels if fill == "pixels" else fill)
    expected = images.clone()
    for n in range(4):
        rectangle = (n, slice(None), slice(top[n], top[n] + height[n]), slice(left[n], left[n] + width[n]))
        expected[rectangle] = pixels[rectangle]
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    assert torch.equal(result[3], images[3])  # height 0


def test_random_bytes_are_uniform_at_every_position():
    torch.manual_seed(0)
    drawn = augmentation.random_bytes(torch.empty(1001, 3, 3, 3))  # 27,027 bytes, no multiple of eight
    assert drawn.shape == (1001, 3, 3, 3)
    assert drawn.dtype == torch.uint8
    counts = drawn.flatten().bincount(minlength=256)
    assert all(within_six_deviations(int(count), drawn.numel(), 1 / 256) for count in counts)
    for place in range(8):  # within a drawn word of 8 bytes
        high = int((drawn.flatten()[place::8] >= 128).sum())
        assert within_six_deviations(high, len(drawn.flatten()[place::8]), 0.5)


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (20, 40)])
def test_symmetric_rectangles_have_the_areas_and_aspects_of_the_paper_and_lie_inside(rows, columns):
    n = 20_000
    torch.manual_seed(0)
    top, left, height, width = augmentation.draw_symmetric_rectangles(
        torch.empty(n, 1, rows, columns), probability=0.25
    )
    drawn = height > 0
    assert within_six_deviations(int(drawn.sum()), n, 0.25)
    top, left, height, width = (values[drawn] for values in (top, left, height, width))
    assert top.min() == left.min() == 0
    assert (top + height).max() == rows
    assert (left + width).max() == columns
    low, high = (fraction * rows * columns for fraction in augmentation.ERASED_AREA)
    assert ((height - 0.5) * (width - 0.5) <= high).all()  # the sides are rounded to pixels
    free = (height < rows) & (width < columns)  # not clamped
    height, width = height[free], width[free]
    assert ((height + 0.5) * (width + 0.5) >= low).all()
    assert ((height - 0.5) / (width + 0.5) <= augmentation.ERASED_ASPECT[1]).all()
    assert ((height + 0.5) / (width - 0.5) >= augmentation.ERASED_ASPECT[0]).all()
    assert (height * width).max() / (height * width).min() > 10  # areas up to 20 times as large are allowed


def test_a_symmetric_rectangle_is_tall_as_often_as_it_is_wide():
    torch.manual_seed(0)
    _, _, height, width = augmentation.draw_symmetric_rectangles(torch.empty(20_000, 1, 500, 500), probability=1.0)
    different = height != width
    assert within_six_deviations(int((height > width).sum()), int(different.sum()), 0.5)


def published_rectangles(count, rows, columns, seed):
    """Draw rectangles (top, left, height, width) one by one, as the authors' program does: (count, 4)."""
    rng, drawn = np.random.default_rng(seed), []
    while len(drawn) < count:
        area = rng.uniform(0.02, 0.4) * rows * columns
        aspect = rng.uniform(0.3, 1 / 0.3)
        height, width = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if height < rows and width < columns:
            top, left = rng.integers(0, rows - height, endpoint=True), rng.integers(0, columns - width, endpoint=True)
            drawn.append((top, left, height, width))
    return np.array(drawn)


@pytest.mark.parametrize(("rows", "columns"), [(28, 28), (8, 8), (20, 40)])
def test_published_rectangles_are_distributed_as_the_authors_are(rows, columns):
    n = 30_000
    torch.manual_seed(0)
    rectangles = augmentation.draw_published_rectangles(torch.empty(n, 1, rows, columns), 1.0)
    ours = torch.stack(rectangles, dim=1).double().numpy()
    theirs = published_rectangles(n, rows, columns, seed=0)
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    for area_or_aspect in (np.multiply, np.divide):
        assert same_distribution(*(area_or_aspect(each[:, 2], each[:, 3]) for each in (ours, theirs)))
    tall = (theirs[:, 2] > theirs[:, 3]).mean()
    assert same_distribution(*((each[:, 2] > each[:, 3]).astype(float) for each in (ours, theirs)))
    if rows == columns == 28:
        assert within_six_deviations(int((ours[:, 2] > ours[:, 3]).sum()), n, 0.745)  # by 2,000,000 draws with numpy
        symmetric = torch.stack(augmentation.draw_symmetric_rectangles(torch.empty(n, 1, 28, 28), 1.0), dim=1).numpy()
        assert not same_distribution(symmetric[:, 2], theirs[:, 2])  # the test can tell them apart
        assert 0.73 < tall < 0.76
    assert (ours[:, 2] < rows).all()
    assert (ours[:, 3] < columns).all()
    assert (ours[:, 0] + ours[:, 2] <= rows).all()
    assert (ours[:, 1] + ours[:, 3] <= columns).all()


def test_published_rectangles_are_drawn_with_the_given_probability():
    torch.manual_seed(0)
    _, _, height, _ = augmentation.draw_published_rectangles(torch.empty(20_000, 1, 28, 28), probability=0.25)
    assert within_six_deviations(int((height > 0).sum()), 20_000, 0.25)


def test_an_image_in_which_no_rectangle_fits_is_not_erased():
    """Of one row, every rectangle would have the full height: half of the root of at least 0.02 * 100 * 0.3 is 0.8."""
    images = random_images(500, 1, 1, 100)
    erasing = Augmentation(crop=0, flip=False, erasing=1.0, erasing_aspect="uniform", erasing_fill=0)
    assert torch.equal(erasing(images), images)


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


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize("aspect", ["log_uniform", "uniform"])
def test_erasing_with_a_level_changes_nothing_else(aspect, fill):
    images = random_images(200, 3, 16, 16).clamp(1, 254)
    torch.manual_seed(1)
    result = Augmentation(crop=0, flip=False, erasing=1.0, erasing_aspect=aspect, erasing_fill=fill)(images)
    erased = (result == fill).all(1)  # (N, H, W): in all channels
    assert torch.equal(erased, (result != images).any(1))
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.flatten(1).sum(1), rows * columns)  # one rectangle in each image
    assert (rows * columns > 0).all()


def test_the_recipe_of_random_erasing_is_that_of_the_authors_program(composed):
    """It normalises with MNIST's mean 0.1307 and std 0.3081, and then fills with 0.4914."""
    config = composed("experiment=fashion_mnist_random_erasing")
    data = instantiate(config.data, seed=1, _convert_="all")
    augment = data.augmentation()
    images = torch.ones(20_000, 1, 28, 28, dtype=torch.uint8)
    torch.manual_seed(0)
    erased = (augment(images) == 72)[:, 0]
    height, width = erased.any(2).sum(1), erased.any(1).sum(1)
    drawn = height > 0
    assert within_six_deviations(int(drawn.sum()), 20_000, 0.5)
    assert within_six_deviations(int((height > width).sum()), int(drawn.sum()), 0.745)
    filled = torch.full((1, 1, 1, 1), augment.erasing_fill, dtype=torch.uint8)
    normalised = Preprocessing(mean=data.mean, std=data.std, channels=1, fitting=Fitting(1))(filled)
    assert abs(normalised.item() - 0.4914) < 0.5 / 255 / 0.3081  # half a level


def test_vertical_flip_and_right_angles_give_each_symmetry_of_the_square_equally_often():
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3)
    turned = [torch.rot90(image, turns, (2, 3)) for turns in range(4)]
    variants = torch.cat([*turned, *(each.flip(2) for each in turned)])
    n = 8 * 500
    torch.manual_seed(0)
    result = Augmentation(**OFF | {"vertical_flip": True, "right_angles": True})(image.expand(n, -1, -1, -1))
    matches = (result[:, None] == variants[None]).flatten(2).all(2)  # (n, 8)
    assert (matches.sum(1) == 1).all()
    assert all(within_six_deviations(count, n, 1 / 8) for count in matches.sum(0).tolist())
    mirrored = Augmentation(**OFF | {"vertical_flip": True})(image.expand(n, -1, -1, -1))
    assert within_six_deviations(int((mirrored[:, 0, 0, 0] == 6).sum()), n, 0.5)


OFF = {"crop": 0, "flip": False, "erasing": 0.0}
WORDS = {
    "scale": 0.3, "crop": 2, "flip": True, "vertical_flip": True, "right_angles": True, "randaugment": 9,
    "trivial_augment": True, "color_jitter": [0.4, 0.4, 0.4, 0.1], "erasing": 1.0,
}  # fmt: skip


def test_every_option_that_turns_something_on_is_tested_below(composed):
    words = {name for name in composed("data=synthetic").data.augment if not name.startswith(("erasing_", "scale_"))}
    assert words == WORDS.keys()


@pytest.mark.parametrize("shape", [(16, 1, 8, 8), (16, 3, 9, 9)])
@pytest.mark.parametrize("options", [*({word: value} for word, value in WORDS.items()), WORDS])
def test_augmentation_is_a_function_of_the_seed(options, shape):
    augmentation, images = Augmentation(**OFF | options), random_images(*shape)

    def augment(seed):
        torch.manual_seed(seed)
        return augmentation(images)

    before = images.clone()
    result = augment(3)
    assert torch.equal(result, augment(3))
    assert not torch.equal(result, augment(4))
    assert (result.shape, result.dtype) == (images.shape, torch.uint8)
    assert torch.equal(images, before)
    with torch.autocast("cpu", torch.bfloat16):  # a run with trainer.precision=bf16-mixed
        assert torch.equal(result, augment(3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "options", [*({word: value} for word, value in WORDS.items()), {"erasing": 0.5, "erasing_aspect": "uniform"}]
)
def test_augmentation_does_not_depend_on_the_default_type(options, dtype):
    """Lightning changes it within a step with trainer.precision=64-true or bf16-true."""
    images, augmentation = random_images(64, 3, 40, 40), Augmentation(**OFF | options)
    torch.manual_seed(0)
    expected = augmentation(images)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(augmentation(images), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_computes_on_the_images_device_and_looks_at_no_value(channels):
    """Tensors on "meta" have no values: reading one, or a shape that depends on one, would raise."""
    images = torch.empty(16, channels, 12, 12, dtype=torch.uint8, device="meta")
    for aspect in ("log_uniform", "uniform"):
        result = Augmentation(**WORDS, erasing_aspect=aspect)(images)
        assert (result.shape, result.dtype, result.device) == (images.shape, torch.uint8, images.device)


def test_each_word_draws_anew_for_each_sample():
    image = random_images(1, 3, 16, 16)
    for word, value in WORDS.items():
        torch.manual_seed(0)
        results = Augmentation(**OFF | {word: value})(image.expand(500, -1, -1, -1))
        most = {"flip": 2, "vertical_flip": 2, "right_angles": 4, "crop": 25}.get(word)
        variants = len(results.unique(dim=0))
        assert variants == most if most else variants > 200


def test_augmentation_that_is_off_returns_the_same_tensor():
    images = random_images(4, 3, 8, 8)
    assert Augmentation(**OFF)(images) is images


# preprocessing
