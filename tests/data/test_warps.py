import pytest
import torch
from image_batches import greatest_difference, random_images
from statistical import same_distribution
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as reference

from reslab.data import warps


def numbers(count, *values):
    return [torch.full((count,), float(value)) for value in values]


def test_the_identity_changes_nothing():
    images = random_images(6, 3, 31, 17)
    assert torch.equal(warps.warp(images, numbers(6, 0, 1, 0), numbers(6, 1, 0, 0)), images)


@pytest.mark.parametrize("size", [(31, 17), (32, 32), (8, 8)])
def test_a_window_that_is_enlarged_is_within_a_level_of_torchvisions(size):
    rows, columns = size
    images = random_images(40, 3, rows, columns)
    generator = torch.Generator().manual_seed(0)
    height, width = (torch.randint(1, side + 1, (40,), generator=generator) for side in size)
    top = (torch.rand(40, generator=generator) * (rows - height + 1)).long()
    left = (torch.rand(40, generator=generator) * (columns - width + 1)).long()
    height[4], width[4], top[4], left[4] = rows, columns, 0, 0
    boxes = torch.stack([top, left, height, width], 1)
    expected = torch.stack(
        [reference.resized_crop(image, *box, list(size)) for image, box in zip(images, boxes.tolist(), strict=True)]
    )
    result = warps.resize_windows(images, *boxes.float().T)
    assert greatest_difference(result, expected) <= 1
    assert torch.equal(result[4], images[4])


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "aspect"), [(100, 100, (3 / 4, 4 / 3)), (100, 20, (0.9, 1.1))])
def test_windows_are_distributed_as_torchvisions_are(rows, columns, aspect):
    torch.manual_seed(0)
    n, image = 20_000, torch.empty(1, rows, columns)
    crop = v2.RandomResizedCrop(rows, scale=(0.3, 1.0), ratio=aspect)
    drawn = [crop.make_params([image]) for _ in range(n)]
    theirs = torch.tensor([[each[name] for name in ("top", "left", "height", "width")] for each in drawn]).numpy()
    ours = torch.stack(warps.draw_windows(torch.empty(n, 1, rows, columns), 0.3, aspect), 1).double().numpy()
    for column in range(4):
        assert same_distribution(ours[:, column], theirs[:, column])
    assert same_distribution(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    assert same_distribution(ours[:, 3] / ours[:, 2], theirs[:, 3] / theirs[:, 2])


def test_where_no_window_fits_the_largest_one_in_the_centre_is_taken():
    for rows, columns in ((10, 100), (100, 10)):
        top, left, height, width = warps.draw_windows(torch.empty(5, 1, rows, columns), 0.9, (3 / 4, 4 / 3))
        expected = (0, 43, 10, 13) if rows == 10 else (43, 0, 13, 10)
        assert torch.equal(torch.stack([top, left, height, width], 1), torch.tensor([expected] * 5).float())
