import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from reslab.data.batches import derive_seed
from reslab.data.fitting import Fitting
from reslab.data.readers import ReadRandomCrop, ReadSquare, read_with_randaugment, read_with_trivial_augment

SIZE = 16


def save_noise(path, size):
    """Write an RGB image of random pixels; `size` is (height, width)."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def test_the_shorter_side_of_an_image_is_resized_and_the_center_cut_out(tmp_path):
    columns = np.tile(np.arange(40, dtype=np.uint8) * 6, (20, 1))  # (20, 40), a ramp from left to right
    Image.fromarray(columns).save(tmp_path / "wide.png")
    image = ReadSquare(Fitting(20))(tmp_path / "wide.png", 0)
    assert torch.equal(image, torch.from_numpy(columns[:, 10:30]).expand(3, 20, 20))
    assert ReadSquare(Fitting(10))(tmp_path / "wide.png", 0).shape == (3, 10, 10)


def test_a_random_crop_is_a_function_of_its_seed_and_draws_nothing_from_the_global_generators(tmp_path):
    save_noise(tmp_path / "image.png", (40, 30))
    reader = ReadRandomCrop(Fitting(8), scale=0.1)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = reader(tmp_path / "image.png", 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(reader(tmp_path / "image.png", 5), first)
    assert len({reader(tmp_path / "image.png", seed).numpy().tobytes() for seed in range(20)}) == 20
    assert (first.shape, first.dtype) == ((3, 8, 8), torch.uint8)


def test_a_random_crop_keeps_at_least_the_given_area(tmp_path):
    """Each pixel holds its own coordinates, so the corners of a crop show its extent."""
    rows, columns = np.meshgrid(np.arange(200), np.arange(200), indexing="ij")
    Image.fromarray(np.stack([rows, columns, rows], axis=-1).astype(np.uint8)).save(tmp_path / "image.png")
    areas = []
    for seed in range(200):
        crop = ReadRandomCrop(Fitting(50), scale=0.5)(tmp_path / "image.png", seed).float()
        extents = crop[0, -1].mean() - crop[0, 0].mean(), crop[1, :, -1].mean() - crop[1, :, 0].mean()
        areas.append(float(extents[0] * extents[1]) * (50 / 49) ** 2 / 200**2)
    assert min(areas) == pytest.approx(0.5, abs=0.04)  # half a pixel on each side, and few draws reach the limit
    assert max(areas) > 0.9


@pytest.mark.parametrize("read", [ReadSquare(Fitting(SIZE)), ReadRandomCrop(Fitting(SIZE), scale=0.2)])
def test_randaugment_changes_the_image_with_a_seed_of_its_own(tmp_path, read):
    path = tmp_path / "image.png"
    save_noise(path, (24, 32))
    reader = read_with_randaugment(read, 9)
    state = torch.get_rng_state()
    images = [reader(path, seed) for seed in range(12)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(reader(path, 5), images[5])
    # A change may be the identity, and two changes may be the same.
    assert len({image.numpy().tobytes() for image in images}) > 8
    change = v2.RandAugment(num_ops=2, magnitude=9, interpolation=InterpolationMode.BILINEAR)
    for seed, image in enumerate(images):
        torch.manual_seed(derive_seed(seed, 1))
        assert torch.equal(image, change(read(path, seed)))
        assert (image.shape, image.dtype) == ((3, SIZE, SIZE), torch.uint8)


def test_trivial_augment_has_another_seed_than_randaugment(tmp_path):
    path, read = tmp_path / "image.png", ReadSquare(Fitting(SIZE))
    save_noise(path, (24, 32))
    change = v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
    for seed in range(12):
        torch.manual_seed(derive_seed(seed, 2))
        assert torch.equal(read_with_trivial_augment(read)(path, seed), change(read(path, seed)))


def test_a_random_crop_has_the_given_aspects(tmp_path):
    rows, columns = np.meshgrid(np.arange(100), np.arange(100), indexing="ij")
    Image.fromarray(np.stack([rows, columns, rows], axis=-1).astype(np.uint8)).save(tmp_path / "image.png")
    for seed in range(20):
        crop = ReadRandomCrop(Fitting(50), scale=0.2, aspect=[0.5, 0.6])(tmp_path / "image.png", seed).float()
        height, width = crop[0, -1].mean() - crop[0, 0].mean(), crop[1, :, -1].mean() - crop[1, :, 0].mean()
        assert 0.47 < width / height < 0.63  # whole pixels


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_random_crop_is_that_of_torchvision(tmp_path, interpolation):
    """Of a tensor, or of Pillow's image where Pillow resizes."""
    save_noise(tmp_path / "image.png", (40, 30))
    crop = v2.RandomResizedCrop(8, scale=(0.2, 1.0), interpolation=InterpolationMode(interpolation))
    image = Image.open(tmp_path / "image.png")
    for by_pillow, source in ((True, image), (False, v2.functional.pil_to_tensor(image))):
        reader = ReadRandomCrop(Fitting(8, interpolation=interpolation, by_pillow=by_pillow), scale=0.2)
        for seed in range(5):
            torch.manual_seed(seed)
            expected = crop(source)
            expected = v2.functional.pil_to_tensor(expected) if by_pillow else expected
            assert torch.equal(reader(tmp_path / "image.png", seed), expected)


@pytest.mark.parametrize("size", [(640, 480), (480, 640)])
def test_a_random_crop_is_one_of_the_padded_or_squashed_square(tmp_path, size):
    """Each pixel of the image has the level 200, and of the borders 7."""
    Image.new("RGB", size, (200, 200, 200)).save(tmp_path / "image.png")
    whole = ReadRandomCrop(Fitting(64, fit="pad", fill=(7, 7, 7), by_pillow=True), scale=1.0)
    image = whole(tmp_path / "image.png", 0)[0]
    image = image if size[0] > size[1] else image.mT
    assert image[[0, 1, 62, 63]].unique().tolist() == [7]
    assert image[8:56].unique().tolist() == [200] or image[9:55].unique().tolist() == [200]
    squashed = ReadRandomCrop(Fitting(64, fit="squash", by_pillow=True), scale=1.0)(tmp_path / "image.png", 0)
    assert squashed.unique().tolist() == [200]
