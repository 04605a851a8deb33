import pytest
import torch
from image_batches import greatest_difference, random_images
from statistical import same_distribution, within_six_deviations
from torchvision.transforms import v2

from reslab.data import auto_augment
from reslab.data.augmentation import Augmentation
from reslab.data.auto_augment import RANDAUGMENT, TRIVIAL_AUGMENT, Operation

NAMES = {
    Operation.IDENTITY: "Identity", Operation.SHEAR_X: "ShearX", Operation.SHEAR_Y: "ShearY",
    Operation.TRANSLATE_X: "TranslateX", Operation.TRANSLATE_Y: "TranslateY", Operation.ROTATE: "Rotate",
    Operation.BRIGHTNESS: "Brightness", Operation.COLOR: "Color", Operation.CONTRAST: "Contrast",
    Operation.SHARPNESS: "Sharpness", Operation.POSTERIZE: "Posterize", Operation.SOLARIZE: "Solarize",
    Operation.AUTO_CONTRAST: "AutoContrast", Operation.EQUALIZE: "Equalize",
}  # fmt: skip
EXACT = (
    Operation.IDENTITY, Operation.TRANSLATE_X, Operation.TRANSLATE_Y, Operation.BRIGHTNESS, Operation.POSTERIZE,
    Operation.SOLARIZE, Operation.AUTO_CONTRAST, Operation.EQUALIZE,
)  # fmt: skip
SPACES = {RANDAUGMENT: v2.RandAugment, TRIVIAL_AUGMENT: v2.TrivialAugmentWide}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (224, 224), (96, 40)])
def test_the_operations_and_magnitudes_are_torchvisions(space, size):
    theirs = SPACES[space]._AUGMENTATION_SPACE
    assert list(theirs) == list(NAMES.values())
    magnitudes = space.magnitudes(*size, torch.device("cpu"))
    for operation, (values, is_signed) in zip(Operation, theirs.values(), strict=True):
        expected = values(31, *size)
        expected = torch.zeros(31) if expected is None else expected * (255 if operation == Operation.SOLARIZE else 1)
        assert torch.equal(magnitudes[operation], expected.float())
        assert is_signed == (Operation.IDENTITY < operation < Operation.POSTERIZE)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("operation", Operation)
def test_each_operation_does_to_a_batch_what_torchvisions_does_to_each_image(operation, space, channels):
    """Every magnitude with both signs, one per image; the images differ too."""
    change = SPACES[space](interpolation=v2.InterpolationMode.BILINEAR)
    sizes = [(32, 32), (28, 20)]
    for size in sizes:
        table = space.magnitudes(*size, torch.device("cpu"))[operation]
        is_signed = Operation.IDENTITY < operation < Operation.POSTERIZE
        magnitudes = torch.cat([table, -table]) if is_signed else table
        images = random_images(len(magnitudes), channels, *size).flip(0)
        scale = 255 if operation == Operation.SOLARIZE else 1
        expected = torch.stack(
            [
                change._apply_image_or_video_transform(image, NAMES[operation], size / scale, change.interpolation, {})
                for image, size in zip(images, magnitudes.tolist(), strict=True)
            ]
        )
        result = auto_augment.apply_operations(images, torch.full((len(images),), int(operation)), magnitudes)
        assert greatest_difference(result, expected) <= (operation not in EXACT)


@pytest.mark.parametrize(("space", "magnitude"), [(RANDAUGMENT, 9), (RANDAUGMENT, 30), (TRIVIAL_AUGMENT, None)])
def test_operations_magnitudes_and_signs_are_drawn_as_torchvision_draws_them(space, magnitude):
    n, images = 40_000, torch.empty(40_000, 1, 32, 32)
    torch.manual_seed(0)
    operations, magnitudes = auto_augment.draw_operations(images, space, magnitude)
    table = space.magnitudes(32, 32, torch.device("cpu"))
    for operation in Operation:
        drawn = magnitudes[operations == operation]
        assert within_six_deviations(len(drawn), n, 1 / 14)
        if operation in (Operation.IDENTITY, Operation.AUTO_CONTRAST, Operation.EQUALIZE):
            continue
        expected = table[operation] if magnitude is None else table[operation, magnitude : magnitude + 1]
        values, counts = drawn.abs().unique(return_counts=True)
        assert torch.equal(values, expected.unique())
        for value, count in zip(values, counts.tolist(), strict=True) if magnitude is None else ():
            assert within_six_deviations(count, len(drawn), float((expected == value).float().mean()))
        is_signed = operation < Operation.POSTERIZE
        moved = drawn[drawn != 0]
        assert within_six_deviations(int((moved < 0).sum()), len(moved), 0.5) if is_signed else (moved >= 0).all()


@pytest.mark.slow
def test_images_after_randaugment_are_distributed_as_torchvisions():
    """The operations that a white pixel in black survives are told apart by where it is and what it became."""
    n = 6000
    image = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    image[0, :, 4, 4] = torch.tensor([200, 100, 50])
    change = v2.RandAugment(2, 9, interpolation=v2.InterpolationMode.BILINEAR)
    torch.manual_seed(0)
    ours = Augmentation(crop=0, flip=False, erasing=0.0, randaugment=9)(image.expand(n, -1, -1, -1))
    theirs = torch.stack([change(image[0]) for _ in range(n)])
    for channel in range(3):
        for row, column in ((4, 4), (4, 5), (4, 3), (3, 4), (0, 0)):
            first, second = (each[:, channel, row, column].numpy() for each in (ours, theirs))
            assert same_distribution(first, second)


def test_operations_are_drawn_independently_in_both_rounds():
    torch.manual_seed(0)
    images = torch.empty(40_000, 1, 8, 8)
    first, second = (auto_augment.draw_operations(images, RANDAUGMENT, 9)[0] for _ in range(2))
    pairs = (first * 14 + second).bincount(minlength=196)
    assert all(within_six_deviations(count, 40_000, 1 / 196) for count in pairs.tolist())
