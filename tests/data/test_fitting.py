"""Squares of images, compared with the presets of torchvision and with Pillow, on crops of two photographs."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn import functional as F
from torchvision.models import ResNet50_Weights
from torchvision.transforms import v2

from reslab.data.fitting import Fitting, border_levels, center_square
from reslab.data.images import load_image
from reslab.data.preprocessing import Preprocessing
from reslab.data.spec import ImageSpec

SIZES = [(640, 427), (427, 640), (500, 375), (375, 500), (333, 247), (231, 301), (224, 224), (90, 61), (640, 64)]
PRESETS = {"V1": ResNet50_Weights.IMAGENET1K_V1.transforms(), "V2": ResNet50_Weights.IMAGENET1K_V2.transforms()}
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files of several sizes, (width, height), cut from photographs that scikit-learn carries."""
    folder, whole = tmp_path_factory.mktemp("photos"), load_sample_images().images
    for number, (width, height) in enumerate(SIZES):
        image = Image.fromarray(whole[number % 2])
        image = image if width <= image.width and height <= image.height else image.transpose(Image.Transpose.ROTATE_90)
        image.crop((0, 0, width, height)).save(folder / f"{number}.jpg", quality=85)
    return sorted(folder.iterdir())


def spec(**options):
    return ImageSpec(["a", "b"], 3, 224, MEAN, STD, **options)


@pytest.mark.parametrize(("preset", "resize"), [("V1", 256), ("V2", 232)])
def test_evaluation_equals_the_presets_of_torchvision(photos, preset, resize):
    """The pixels are equal, and the normalised values up to the rounding of float32."""
    fitting = spec(resize=resize).fitting(training=False)
    preprocess = Preprocessing(mean=MEAN, std=STD, channels=3, fitting=fitting).eval()
    pixels = v2.Compose([v2.Resize(resize, antialias=True), v2.CenterCrop(224), v2.PILToTensor()])
    for path in photos:
        image = fitting.of_file(load_image(path, 3))
        assert torch.equal(image, pixels(Image.open(path)))
        assert torch.allclose(preprocess(image[None])[0], PRESETS[preset](Image.open(path)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("resize", "size"), [(224, 224), (61, 60), (257, 224), (100, 31)])
def test_every_size_and_interpolation_is_rounded_as_with_pillow(photos, interpolation, resize, size):
    mode = v2.InterpolationMode(interpolation)
    expected = v2.Compose([v2.Resize(resize, mode), v2.CenterCrop(size), v2.PILToTensor()])
    fitting = Fitting(size, resize, interpolation, "crop", by_pillow=True)
    for path in photos:
        assert torch.equal(fitting.of_file(load_image(path, 3)), expected(Image.open(path)))


def test_without_these_options_files_are_read_as_before(photos):
    for options in ({}, {"fit": "crop"}):
        fitting = spec(**options).fitting(training=False)
        for path in photos:
            image = load_image(path, 3)
            assert torch.equal(fitting.of_file(image), center_square(v2.functional.pil_to_tensor(image), 224))


@pytest.mark.parametrize(
    "options", [{"eval_size": 224}, {"resize": 224}, {"interpolation": "bicubic"}, {"fit": "pad"}, {"fit": "squash"}]
)
def test_each_of_these_options_lets_pillow_resize_in_training_too(options):
    assert spec(**options).fitting(training=False).by_pillow
    assert spec(**options).fitting(training=True).by_pillow


def test_training_and_evaluation_have_sizes_of_their_own():
    sizes = spec(eval_size=288, resize=320, interpolation="bicubic", fit="crop")
    assert (sizes.fitting(training=True).size, sizes.fitting(training=True).resize) == (224, None)
    assert (sizes.fitting(training=False).size, sizes.fitting(training=False).resize) == (288, 320)
    assert {sizes.fitting(training=training).interpolation for training in (True, False)} == {"bicubic"}


@pytest.mark.parametrize("turned", [False, True])
def test_pad_adds_borders_of_the_background_and_squash_changes_the_proportions(turned):
    """A ramp of 640x480 or 480x640 pixels, whose places can be read from its levels."""
    ramp = np.linspace(0, 255, 640).round().astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp, (480, 640)).copy()).convert("RGB")
    image = image.transpose(Image.Transpose.TRANSPOSE) if turned else image
    padded = Fitting(64, fit="pad", fill=(1, 2, 3), by_pillow=True).of_file(image)
    squashed = Fitting(64, fit="squash", by_pillow=True).of_file(image)
    cropped = Fitting(48, fit="crop", by_pillow=True).of_file(image)
    if turned:
        padded, squashed, cropped = padded.mT, squashed.mT, cropped.mT
    assert padded[:, [*range(8), *range(56, 64)]].flatten(1).unique(dim=1).tolist() == [[1], [2], [3]]
    whole = torch.from_numpy(np.array(Image.fromarray(ramp[None]).resize((64, 1), Image.Resampling.BILINEAR)))
    assert torch.equal(padded[:, 8:56], whole.expand(3, 48, 64))
    assert torch.equal(squashed, whole.expand(3, 64, 64))
    assert torch.equal(cropped, whole[:, 8:56].expand(3, 48, 48))


def test_an_odd_border_has_one_pixel_more_below_and_at_the_right():
    padded = Fitting(6, fit="pad", fill=(9,), by_pillow=True).of_file(Image.new("L", (3, 6), 1))
    assert padded[0, 0].tolist() == [9, 1, 1, 1, 9, 9]
    assert Fitting(6, fit="pad", fill=(9,), by_pillow=True).of_file(Image.new("L", (600, 1), 1))[0, :, 0].tolist() == [
        9, 9, 1, 9, 9, 9,
    ]  # fmt: skip


def test_borders_have_the_background_or_the_mean():
    assert border_levels([1, 2, 3], MEAN) == (1, 2, 3)
    assert border_levels(None, MEAN) == (124, 116, 104)
    assert border_levels([255, 0, 0], [0.5]) == (76,)


@pytest.mark.parametrize(("fit", "interpolation"), [("crop", "bilinear"), ("pad", "bicubic"), ("squash", "bilinear")])
@pytest.mark.parametrize("size", [(480, 640), (640, 480)])
def test_a_batch_on_the_device_becomes_the_same_squares_as_files(photos, fit, interpolation, size):
    """Up to one level, to which the pixels of a file are rounded."""
    with Image.open(photos[0]) as opened:
        image = opened.resize(size)
    resize = 40 if fit == "crop" else None
    fitting = Fitting(32, resize, interpolation, fit, (10, 20, 30), by_pillow=True)
    preprocess = Preprocessing(mean=[0.5] * 3, std=[0.5 / 255] * 3, channels=3, fitting=fitting)
    batch = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)[None].contiguous()
    levels = preprocess(batch)[0] / 2 + 127.5
    assert (levels - fitting.of_file(image)).abs().max() < 1.1


def test_a_batch_of_an_older_run_is_squashed():
    x = torch.rand(2, 3, 9, 7)
    expected = F.interpolate(x, (8, 8), mode="bilinear", antialias=True)
    assert torch.equal(Fitting(8).of_batch(x, torch.zeros(1)), expected)


def test_bicubic_does_not_leave_the_levels_of_an_image():
    edge = torch.tensor([0, 0, 0, 0, 255, 255, 255, 255], dtype=torch.uint8).expand(1, 1, 8, 8)
    preprocess = Preprocessing(mean=[0.5], std=[0.5], channels=1, fitting=Fitting(24, interpolation="bicubic"))
    assert (preprocess(edge).min().item(), preprocess(edge).max().item()) == (-1, 1)


def test_images_of_extreme_proportions_stay_small_and_keep_their_middle():
    dot = torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1)
    assert torch.equal(center_square(dot, 5), dot.expand(3, 5, 5))
    line = torch.arange(1_999_999).remainder(256).byte().expand(3, 1, -1)  # resized by 224 it would take 301 GB
    assert torch.equal(center_square(line, 224)[:, :, 112], line[:, :1, 999_999].expand(3, 224))
    image = Image.fromarray(line[0].numpy())
    middle = Fitting(225, by_pillow=True).of_file(image)
    assert torch.equal(middle[:, :, 112], line[:1, :1, 999_999].expand(1, 225))
