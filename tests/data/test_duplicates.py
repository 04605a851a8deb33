import shutil

import torch
from torchvision.io import write_png

from reslab.data import duplicates
from reslab.data.batches import FolderImages
from reslab.data.duplicates import Shared, affordable, pixel_digests, shared_images
from reslab.data.splits import Split


def memory_split(images, indices=None):
    return Split(images, torch.zeros(len(images), dtype=torch.int64), indices)


def folder_split(paths):
    labels = torch.zeros(len(paths), dtype=torch.int64)
    return Split(FolderImages([str(path) for path in paths], labels, lambda path, seed: None, "stop"), labels)


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_test_images_in_the_training_or_the_validation_are_counted():
    images = noise(20, 3, 8, 8)
    test = torch.cat([images[[3, 15, 15]], 255 - images[:4]])
    rest, chosen = torch.arange(10), torch.arange(10, 18)  # 18 and 19 are in neither
    splits = {"train": memory_split(images, rest), "val": memory_split(images, chosen), "test": memory_split(test)}
    assert shared_images(splits) == Shared(3, 7, False)
    splits["test"] = memory_split(torch.cat([images[[18]], test]))
    assert shared_images(splits) == Shared(3, 8, False)


def test_validation_on_the_test_images_is_no_copy_of_them():
    images = noise(20, 1, 8, 8)
    test = memory_split(images, torch.arange(10, 20))
    assert shared_images({"train": memory_split(images[:10]), "val": test, "test": test}) == Shared(0, 10, False)


def test_without_a_test_nothing_is_compared():
    train = memory_split(noise(4, 1, 8, 8))
    assert shared_images({"train": train, "val": None}) is None
    assert shared_images({"train": train, "val": None, "test": None}) is None


def test_the_digest_is_of_the_pixels_and_not_of_their_place_in_memory():
    images = noise(2, 8, 8, 3)
    channels_last = images.permute(0, 3, 1, 2)
    both = torch.arange(2)
    assert list(pixel_digests(channels_last, both)) == list(pixel_digests(channels_last.contiguous(), both))
    assert list(pixel_digests(channels_last, both)) != list(pixel_digests(images, both))


def image_files(folder, images):
    folder.mkdir()
    files = [folder / f"{number}.png" for number in range(len(images))]
    for file, image in zip(files, images, strict=True):
        write_png(image, str(file))
    return files


def test_files_are_compared_by_their_bytes(tmp_path):
    seen, tests = (
        image_files(tmp_path / "train", noise(6, 3, 8, 8)),
        image_files(tmp_path / "test", 255 - noise(4, 3, 8, 8)),
    )
    assert len({file.stat().st_size for file in [*seen, *tests]}) < 10  # else there would be nothing to compare
    splits = {"train": folder_split(seen), "val": None, "test": folder_split(tests)}
    assert shared_images(splits) == Shared(0, 4, False)
    shutil.copy(seen[2], tests[1])
    assert shared_images(splits) == Shared(1, 4, False)
    tests[3].unlink()  # a file that is gone is no copy, and no error here
    seen[5].write_bytes(b"")
    tests[0].write_bytes(b"")
    assert shared_images(splits) == Shared(1, 4, False)


def test_of_many_files_those_of_some_sizes_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_READ", 8)
    seen = [tmp_path / f"train{number}" for number in range(40)]
    for number, file in enumerate(seen):
        file.write_bytes(bytes([number]) * (1 + number // 2))  # two files of each size
    tests = [shutil.copy(file, tmp_path / f"test{number}") for number, file in enumerate(seen)]
    splits = {"train": folder_split(seen), "val": None, "test": folder_split(tests)}
    assert shared_images(splits) == Shared(8, 40, True)  # each copy of a file that was read is found


def test_few_bytes_are_read(monkeypatch):
    monkeypatch.setattr(duplicates, "MOST_BYTES", 100)
    sizes = {f"{number}.png": 30 for number in range(10)}
    assert affordable(list(sizes), sizes) == ["0.png", "1.png", "2.png"]
