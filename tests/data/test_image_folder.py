import ctypes
import multiprocessing
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bad_images import write_bad
from conftest import SHARED_DATA, names, needs_shared_data
from hydra.utils import get_class
from noise_images import SIZE, build, counts, fill, pixels_and_labels, save_noise
from PIL import Image
from torchvision import datasets
from torchvision.transforms import v2

from reslab.data.batches import FolderImages
from reslab.data.datasets import CIFAR10
from reslab.data.fitting import Fitting
from reslab.data.image_folder import ClassFolders, decode_all
from reslab.data.images import header_error, list_images
from reslab.data.readers import ReadRandomCrop, ReadSquare
from reslab.errors import UserError, one_line
from reslab.training.fit import train

# layouts


def test_the_folders_train_val_and_test_become_the_splits(composed, tmp_path):
    written = {}
    for split, number in (("train", 3), ("val", 2), ("test", 1)):
        written |= fill(tmp_path / split, {"cat": number, "dog": number + 1})
    data = build(composed, tmp_path)
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [3, 4], "val": [2, 3], "test": [1, 2],
    }  # fmt: skip
    assert (data.spec.classes, data.spec.channels, data.spec.image_size) == (["cat", "dog"], 3, SIZE)
    for split, loader in (("val", data.val_dataloader()), ("test", data.test_dataloader())):
        images, labels = pixels_and_labels(loader)
        expected = [(pixels, path.parent.name) for path, pixels in written.items() if split in path.parts]
        assert torch.equal(images, torch.stack([pixels for pixels, _ in expected]))
        assert [data.classes[label] for label in labels] == [name for _, name in expected]


@pytest.mark.slow
def test_other_names_of_the_splits_are_used(composed, tmp_path):
    for split, number in (("Training", 3), ("Validation", 2), ("Testing", 1)):
        fill(tmp_path / split, {"cat": number, "dog": number + 1})
    data = build(composed, tmp_path)
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [3, 4], "val": [2, 3], "test": [1, 2],
    }  # fmt: skip
    assert data.classes == ["cat", "dog"]


IN_MEMORY = ("data.in_memory=true", "data.augment.scale=null")


@pytest.mark.parametrize("overrides", [(), IN_MEMORY])
def test_no_link_brings_an_image_into_two_splits(composed, tmp_path, overrides):
    for split, number in (("train", 4), ("val", 3), ("test", 2)):
        fill(tmp_path / split, {"cat": number, "dog": number})
    for link, target in (("val/cat/x.png", "train/cat/000.png"), ("test/cat/x.png", "train/cat/001.png"),
                         ("test/dog/x.png", "val/dog/000.png"), ("train/dog/x.png", "test/dog/001.png")):  # fmt: skip
        (tmp_path / link).symlink_to(tmp_path / target)
    data = build(composed, tmp_path, *overrides)
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [4, 5], "val": [3, 3], "test": [2, 1],
    }  # fmt: skip


def test_the_test_of_a_trained_network_leaves_out_the_same_images(composed, tmp_path, caplog):
    for split in ("train", "test"):
        fill(tmp_path / split, {"cat": 3, "dog": 3})
    (tmp_path / "test" / "cat" / "x.png").symlink_to(tmp_path / "train" / "cat" / "000.png")
    assert counts(build(composed, tmp_path, stages=("test",)).splits["test"]) == [3, 3]
    assert caplog.messages == [
        f"left out 1 of the images in {tmp_path}/test, which are also in {tmp_path}/train, by links: cat/x.png"
    ]


@pytest.mark.parametrize(("link", "target"), [("val", "train"), ("test", "train"), ("test", "val")])
def test_a_split_that_is_a_link_to_another_is_refused(composed, tmp_path, link, target):
    for split in {"train", target}:
        fill(tmp_path / split, {"cat": 3, "dog": 3})
    (tmp_path / link).symlink_to(target)
    with pytest.raises(UserError, match=f"^the images in {tmp_path}/{link} are those in {tmp_path}/{target}, by links"):
        build(composed, tmp_path)


def test_validation_on_the_test_images_does_not_use_val(composed, tmp_path):
    for split in ("train", "val"):
        fill(tmp_path / split, {"cat": 3, "dog": 3})
    (tmp_path / "test").symlink_to("val")
    assert counts(build(composed, tmp_path, "data.validate_on_test=true").splits["test"]) == [3, 3]


def test_a_split_of_imagenet_that_is_a_dead_link_is_refused(composed, tmp_path):
    fill(tmp_path / "train", {"n01": 3, "n02": 3})
    (tmp_path / "val").symlink_to("/nothing/there")
    with pytest.raises(UserError, match="whose targets are not there: val: "):
        build(composed, tmp_path, "data=imagenet")


def test_a_class_may_be_named_train(composed, tmp_path):
    fill(tmp_path, {"car": 10, "train": 20})
    data = build(composed, tmp_path)
    assert data.classes == ["car", "train"]
    assert counts(data.splits["test"]) == [2, 4]


def test_imagenet_takes_no_other_names(composed, tmp_path):
    """Its folders are known, and its val/ is the test set."""
    for name in ("train", "val", "valid", "test"):
        fill(tmp_path / name, {"n01": 10, "n02": 10})
    data = build(composed, tmp_path, "data=imagenet", "data.val_fraction=0")
    for split, name in (("train", "train"), ("test", "val")):
        assert {Path(path).parts[-3] for path in data.splits[split].images.paths} == {name}
    assert data.splits["val"] is None


def test_copies_in_a_hidden_folder_of_a_class_do_not_count(composed, tmp_path):
    fill(tmp_path / "train", {"cat": 4, "dog": 4, "cat/.ipynb_checkpoints": 4, "__MACOSX/cat": 4})
    data = build(composed, tmp_path, "data.val_fraction=0")
    assert (data.classes, counts(data.splits["train"])) == (["cat", "dog"], [4, 4])


def test_each_folder_is_listed_and_reported_once(composed, tmp_path, caplog):
    fill(tmp_path, {"cat": 5, "dog": 5})
    (tmp_path / "cat" / "x.heic").touch()
    build(composed, tmp_path)
    assert len([line for line in caplog.messages if "1 .heic" in line]) == 1


@pytest.mark.parametrize("splits", [("",), ("train", "val", "test")])
def test_the_names_of_the_classes_are_reported_once(composed, tmp_path, caplog, splits):
    for split in splits:
        for name in ("set1", "set2"):
            fill(tmp_path / split / name, {"cat": 5, "dog": 5, "eel": 5, "owl": 5})
    build(composed, tmp_path)
    (line,) = [line for line in caplog.messages if "subfolders of the same names (cat, dog, eel, owl)" in line]
    assert line.startswith(f"the classes of {tmp_path / splits[0]} are set1, set2")


def test_the_test_of_a_trained_network_needs_no_training_images(composed, tmp_path):
    fill(tmp_path / "test", {"cat": 3, "dog": 4})
    data = build(composed, tmp_path, stages=())
    data.tests_all = True
    data.setup("test")
    assert (data.classes, counts(data.splits["test"])) == (["cat", "dog"], [3, 4])


def test_train_alone_gives_validation_images_and_no_test(composed, tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 20})
    data = build(composed, tmp_path)
    assert (counts(data.splits["train"]), counts(data.splits["val"])) == ([9, 18], [1, 2])
    assert data.splits["test"] is None


def test_class_folders_alone_are_split_in_three(composed, tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 20, "eel": 30})
    data = build(composed, tmp_path, "data.val_fraction=0.25")
    assert counts(data.splits["test"]) == [2, 4, 6]  # data.test_fraction is 0.2
    assert counts(data.splits["val"]) == [2, 4, 6]  # of the 8, 16 and 24 left
    assert counts(data.splits["train"]) == [6, 12, 18]
    taken = Counter(split.images.paths[index] for split in data.splits.values() for index in split.indices)
    assert taken == Counter(list_images(tmp_path).paths)
    other = build(composed, tmp_path, "seed=1").splits["test"]
    assert torch.equal(other.indices, data.splits["test"].indices)


def test_without_a_test_fraction_there_is_no_test(composed, tmp_path):
    fill(tmp_path, {"cat": 10, "dog": 10})
    data = build(composed, tmp_path, "data.test_fraction=0")
    assert data.splits["test"] is None
    assert len(data.splits["train"]) == 18
    with pytest.raises(UserError, match="no test images"):
        build(composed, tmp_path, "data.test_fraction=0", "data.validate_on_test=true")


def test_subfolders_and_all_suffixes_are_read_and_other_files_are_not(composed, tmp_path):
    fill(tmp_path / "train", {"cat/deep/er": 2, "dog": 2})
    save_noise(tmp_path / "train" / "cat" / "x.JPEG")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    data = build(composed, tmp_path, "data.val_fraction=0")
    assert (data.classes, counts(data.splits["train"])) == (["cat", "dog"], [3, 2])


def test_an_imagenet_folder_uses_its_val_as_the_test_set(composed, tmp_path):
    fill(tmp_path / "train", {"n01": 100, "n02": 50})
    written = fill(tmp_path / "val", {"n01": 2, "n02": 1})
    data = build(composed, tmp_path, "data=imagenet")
    assert data.classes == ["n01", "n02"]
    sizes = {name: counts(split) for name, split in data.splits.items()}
    assert sizes == {"train": [98, 49], "val": [2, 1], "test": [2, 1]}
    images, labels = pixels_and_labels(data.test_dataloader())
    assert torch.equal(images, torch.stack(list(written.values())))
    assert labels.tolist() == [0, 0, 1]


@pytest.mark.parametrize(("size", "folder"), [("160px", "imagenette2-160"), ("full", "imagenette2")])
def test_imagenette_has_names_for_its_folders(composed, tmp_path, size, folder):
    wnids = datasets.Imagenette._WNID_TO_CLASS
    fill(tmp_path / folder / "train", dict.fromkeys(wnids, 10))
    fill(tmp_path / folder / "val", dict.fromkeys(wnids, 1))
    data = build(composed, tmp_path, "data=imagenette", f"data.imagenette_size={size}")
    assert data.spec.classes == [
        "tench", "English springer", "cassette player", "chain saw", "church",
        "French horn", "garbage truck", "gas pump", "golf ball", "parachute",
    ]  # fmt: skip
    sizes = {name: counts(split) for name, split in data.splits.items()}
    assert sizes == {"train": [9] * 10, "val": [1] * 10, "test": [1] * 10}


# wrong folders and options


def missing_root(root):
    return root / "absent"


def one_class(root):
    fill(root, {"cat": 3})
    return root


def unknown_class(root):
    fill(root / "train", {"cat": 3, "dog": 3})
    fill(root / "val", {"cat": 1, "eel": 1})
    return root


def empty_class(root):
    fill(root / "train", {"cat": 3})
    (root / "train" / "dog").mkdir()
    return root


def hidden_class(root):
    fill(root, {"cat": 3, ".ipynb_checkpoints": 3})
    return root


def no_training(root):
    fill(root / "val", {"cat": 3, "dog": 3})
    fill(root / "Testing", {"cat": 3, "dog": 3})
    return root


def unsorted_splits(root):
    for name in ("test", "val"):
        save_noise(root / name / "000.png")
    return root


def nothing(root):
    return root


def a_file(root):
    save_noise(root / "photo.png")
    return root / "photo.png"


def no_images(root):
    for name in ("cat", "dog"):
        (root / "train" / name).mkdir(parents=True)
        (root / "train" / name / "notes.txt").write_text("no image")
    return root


def empty_test(root):
    (root / "test").mkdir()
    return root


def empty_training(root):
    (root / "train").mkdir()
    fill(root / "val", {"cat": 1, "dog": 1})
    return root


def a_class(root):
    save_noise(root / "000.png")
    return root


def unsorted_validation(root):
    fill(root / "train", {"cat": 3, "dog": 3})
    save_noise(root / "val" / "000.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "overrides", "message"),
    [
        (missing_root, (), "data=imagefolder: there is no folder {root}/absent: set data.root"),
        (missing_root, ("data=imagenet",), "data=imagenet: there is no {root}/absent/train: ImageNet needs an account"),
        (a_file, (), "data=imagefolder: {root}/photo.png is a file, not a folder: set data.root"),
        (a_file, ("data=imagenet",), "data=imagenet: there is no {root}/photo.png/train: ImageNet needs an account"),
        (a_file, ("data=imagenette",), "data=imagenette: data.root={root}/photo.png is a file, not a folder"),
        (nothing, (), "{root} holds no class folders: at least two are needed, one for each class"),
        (empty_training, (), "{root}/train holds no class folders: at least two are needed, one for each class"),
        (hidden_class, (), "{root} holds only the class folder cat: at least two are needed, one for each class"),
        (no_images, (), "{root}/train/cat holds no images (.bmp, "),
        (one_class, (), "{root} holds only the class folder cat: at least two are needed, one for each class"),
        (a_class, (), "{root} holds images and no class folders: give the folder that holds a folder for each class"),
        (unknown_class, (), "{root}/val has classes that {root}/train has not: eel"),
        (empty_class, (), "{root}/train/dog holds no images (.bmp, "),
        (no_training, (), "{root} has val, test and no train: put the class folders into train/"),
        (unsorted_splits, (), "{root} has val, test and no train: put the class folders into train/"),
        (unsorted_validation, (), "{root}/val holds no images in class folders: fill it or remove it"),
    ],
)
def test_a_wrong_folder_is_named_and_not_changed(composed, tmp_path, prepare, overrides, message):
    root = prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        build(composed, root, *overrides)
    assert one_line(caught.value, "config").startswith(message.format(root=tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (nothing, "{root} holds no class folders: at least two are needed, one for each class"),
        (a_class, "{root} holds images and no class folders: give the folder that holds a folder for each class"),
        (empty_test, "{root}/test holds no class folders: at least two are needed, one for each class"),
    ],
)
def test_the_test_of_a_trained_network_names_a_folder_without_classes(composed, tmp_path, prepare, message):
    data = build(composed, prepare(tmp_path), stages=())
    data.tests_all = True
    with pytest.raises(UserError) as caught:
        data.setup("test")
    assert str(caught.value) == message.format(root=tmp_path)


def test_statistics_and_sizes_that_cannot_be_computed_must_be_given(composed, tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 10})
    with pytest.raises(UserError, match=r"data\.mean and data\.std must be given"):
        _ = build(composed, tmp_path, "data.mean=null").spec
    with pytest.raises(UserError, match=r"data\.image_size must be given"):
        build(composed, tmp_path, "data.image_size=null")


# in memory


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("layout", ["train and test", "class folders"])
def test_images_in_memory_are_those_on_disk(composed, tmp_path, layout, num_workers):
    fill(tmp_path / "train" if layout == "train and test" else tmp_path, {"cat": 12, "dog": 10}, size=(20, 31))
    if layout == "train and test":
        fill(tmp_path / "test", {"cat": 2, "dog": 2}, size=(31, 20))
    options = ("data.augment.scale=null", f"data.num_workers={num_workers}")
    disk, memory = (build(composed, tmp_path, f"data.in_memory={flag}", *options) for flag in ("false", "true"))
    for name in ("train", "val", "test"):
        (images, labels), (expected, expected_labels) = (
            pixels_and_labels(getattr(data, f"{name}_dataloader")()) for data in (memory, disk)
        )
        assert (images.dtype, images.shape[1:]) == (torch.uint8, (3, SIZE, SIZE))
        assert torch.equal(images, expected)
        assert torch.equal(labels, expected_labels)


def test_statistics_in_memory_are_those_of_the_training_images(composed, tmp_path):
    written = fill(tmp_path, {"cat": 10, "dog": 10})
    options = ("data.in_memory=true", "data.augment.scale=null", "data.mean=null", "data.std=null")
    data = build(composed, tmp_path, *options)
    others = {
        image.numpy().tobytes()
        for name in ("val", "test")
        for image in pixels_and_labels(data._loader(name, shuffle=False))[0]
    }
    train = torch.stack([image for image in written.values() if image.contiguous().numpy().tobytes() not in others])
    assert len(train) == 14
    assert data.spec.mean == pytest.approx((train.double() / 255).mean((0, 2, 3)).tolist(), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", ["data.augment.scale=0.3", "data.augment.randaugment=9", "data.augment.trivial_augment=true"]
)
def test_what_is_read_from_disk_augmented_is_augmented_by_the_batch_in_memory(composed, tmp_path, options):
    fill(tmp_path, {"cat": 10, "dog": 10}, size=(24, 32))
    off = ("data.augment={scale: null, flip: false}",)
    disk, memory, plain = (build(composed, tmp_path, *more) for more in (
        (*off, options), (*off, options, "data.in_memory=true"), (*off, "data.in_memory=true")
    ))  # fmt: skip
    pixels = {name: train_images(data) for name, data in (("disk", disk), ("memory", memory), ("plain", plain))}
    assert torch.equal(pixels["memory"], pixels["plain"])  # decoded once, without a change
    assert not torch.equal(pixels["disk"], pixels["plain"])
    torch.manual_seed(0)
    assert disk.augmentation()(pixels["plain"]) is pixels["plain"]
    assert not torch.equal(memory.augmentation()(pixels["plain"]), pixels["plain"])


# transparency


@pytest.mark.parametrize("in_memory", ["true", "false"])
@pytest.mark.parametrize(("background", "ground"), [(None, [255, 255, 255]), ("[10,200,30]", [10, 200, 30])])
def test_transparent_images_are_laid_over_the_background_in_every_split(
    composed, tmp_path, background, ground, in_memory
):
    """Black shapes on a transparent ground: without a background, every pixel would be 0."""
    for split in ("train", "val", "test"):
        for name in ("circle", "cross"):
            shape = np.zeros((SIZE, SIZE), dtype=np.uint8)
            shape[4:8, 2 : 14 if name == "cross" else 6] = 255
            image = Image.new("RGB", (SIZE, SIZE))
            image.putalpha(Image.fromarray(shape))
            (tmp_path / split / name).mkdir(parents=True)
            image.save(tmp_path / split / name / "1.png")
    given = () if background is None else (f"data.background={background}",)
    data = build(composed, tmp_path, "data.augment=null", f"data.in_memory={in_memory}", *given)
    assert data.spec.background == ground
    for split in ("train", "val", "test"):
        images, labels = pixels_and_labels(getattr(data, f"{split}_dataloader")())
        for image, label in zip(images, labels.tolist(), strict=True):
            drawn = torch.zeros(SIZE, SIZE, dtype=torch.bool)
            drawn[4:8, 2 : (6, 14)[label]] = True
            expected = torch.tensor(ground, dtype=torch.uint8)[:, None, None] * ~drawn
            assert torch.equal(image, expected)


def test_without_a_background_transparency_is_dropped_as_in_older_runs(composed, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGBA", (SIZE, SIZE), (1, 2, 3, 0)).save(tmp_path / "train" / name / f"{number}.png")
    data = build(composed, tmp_path, "data.background=null", "data.val_fraction=0")
    assert data.spec.background is None
    images, _ = pixels_and_labels(data.train_dataloader())
    assert torch.equal(images, torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None].expand(4, 3, SIZE, SIZE))


@pytest.mark.parametrize("value", ["white", "[0,0]", "[0,0,256]", "[0,0,-1]", "[0.5,0,0]", "255"])
def test_a_wrong_background_is_one_line(composed, tmp_path, value):
    fill(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(Exception, match="background") as caught:
        build(composed, tmp_path, f"data.background={value}")
    assert "must be a list of 3, each an integer from 0 to 255, or be null" in one_line(caught.value, "config")


# images that cannot be read


@pytest.fixture
def mixed(tmp_path):
    """Return the root, the pixels of each good image, and the bad files: one of each kind among 20 training images."""
    root = tmp_path / "photos"
    good = fill(root / "train", {"cat": 10, "dog": 10}) | fill(root / "test", {"cat": 2, "dog": 3})
    bad = list(write_bad(root / "train" / "dog").values())
    return root, good, bad


@pytest.mark.parametrize("in_memory", ["true", "false"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_that_cannot_be_read_are_named_in_one_line(composed, mixed, num_workers, in_memory):
    root, _, bad = mixed
    if in_memory == "false":  # those whose headers show it are found before there are batches
        for path in filter(header_error, bad):
            path.unlink()
        bad = [path for path in bad if path.exists()]
    options = (f"data.num_workers={num_workers}", f"data.in_memory={in_memory}", "data.augment.scale=null")

    def load():
        data = build(composed, root, "data.val_fraction=0", f"data.batch_size={20 + len(bad)}", *options)
        list(data.train_dataloader())

    with pytest.raises(UserError) as caught:
        load()
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith(f" and {len(bad) - 3} more: remove them, or set data.on_error=skip to leave them out")
    named = [path for path in bad if f"{path} (" in line]
    assert len(named) == 3
    assert in_memory == "false" or named == bad[:3]  # a shuffled batch reads them in its own order


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_broken_file_in_any_split_is_found_before_training(composed, tmp_path, split):
    root = tmp_path / "photos"
    for name in ("train", "val", "test"):
        fill(root / name, {"cat": 2, "dog": 2})
    (broken := root / split / "dog" / "broken.jpg").write_text("no image")
    with pytest.raises(UserError, match=f"cannot read {broken} .not an image.: remove it"):
        build(composed, root)
    build(composed, root, "data.on_error=skip")


def kept(data, name, good):
    """Return the good images of an epoch, each as the path that it was written to."""
    images, labels = pixels_and_labels(getattr(data, f"{name}_dataloader")())
    paths = {pixels.numpy().tobytes(): path for path, pixels in good.items()}
    found = [paths[image.numpy().tobytes()] for image in images]
    assert [path.parent.name for path in found] == [data.classes[label] for label in labels]
    return found


SKIP = ("data.on_error=skip", "data.augment.scale=null", "data.val_fraction=0")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_are_left_out_of_the_memory_and_counted(composed, mixed, caplog, num_workers):
    root, good, bad = mixed
    data = build(composed, root, *SKIP, "data.in_memory=true", f"data.num_workers={num_workers}")
    assert counts(data.splits["train"]) == [10, 10]
    assert sorted(kept(data, "train", good)) == sorted(path for path in good if "train" in path.parts)
    (line,) = [message for message in caplog.messages if "left out" in message]
    assert line.startswith(f"left out {len(bad)} of {20 + len(bad)} images, which cannot be read: {bad[0]} (")


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_a_result_says_how_many_images_could_not_be_read(composed, tmp_path, in_memory):
    for split in ("train", "val", "test"):
        fill(tmp_path / split, {"cat": 6, "dog": 6})
    for split in ("val", "test"):
        (tmp_path / split / "cat" / "bad.png").write_bytes(b"not an image")
    options = ("data=imagefolder", f"data.root={tmp_path}", "data.image_size=8", "data.batch_size=4")
    options += ("data.augment.scale=null", "data.on_error=skip", f"data.in_memory={in_memory}", "data.num_workers=0")
    result = train(composed(*options, "model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none"))
    expected = {"images": 12, "images_available": 13, "images_unreadable": 1}
    for split in ("val", "test"):
        assert {name: result[f"{split}/{name}"] for name in expected} == expected


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unreadable_images_on_disk_are_left_out_of_their_batches(composed, mixed, caplog, num_workers):
    """The other images stay where the order of the epoch has put them."""
    root, good, bad = mixed
    data = build(composed, root, *SKIP, f"data.num_workers={num_workers}", "data.batch_size=8")
    loader, images = data.train_dataloader(), data.splits["train"].images
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        order = [[Path(images.paths[index]) for index in batch] for batch in loader.sampler]
        loader.sampler.set_epoch(epoch)
        batches = [pixels for pixels, _ in loader]
        assert len(batches) == len(order) == len(loader) == 5
        for pixels, paths in zip(batches, order, strict=True):
            assert torch.equal(pixels, torch.stack([good[path] for path in paths if path not in bad]))
    lines = [message for message in caplog.messages if "left out" in message]
    counts_left_out = [int(line.split()[2]) for line in lines]
    assert sum(counts_left_out) == len(loader.left_out) <= len(bad)  # each is reported once
    assert lines[0].startswith(f"left out {counts_left_out[0]} of 40 images, which cannot be read: ")
    resumed = data.train_dataloader()
    resumed.load_state_dict({"epoch": 1, "given": 3})
    resumed.sampler.set_epoch(1)
    assert all(torch.equal(pixels, other) for (pixels, _), other in zip(resumed, batches[3:], strict=True))


def test_unreadable_images_are_left_out_of_a_test_set(composed, tmp_path):
    good = fill(tmp_path / "train", {"cat": 4, "dog": 4}) | fill(tmp_path / "test", {"cat": 1, "dog": 3})
    for path in list(good)[-2:]:  # all of the last batch
        path.write_text("no image")
    data = build(composed, tmp_path, *SKIP)
    assert kept(data, "test", good) == list(good)[-4:-2]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_without_a_readable_image_has_as_many_test_batches_as_the_others(composed, tmp_path, rank):
    """In each of them, they wait for its forward pass."""
    good = fill(tmp_path / "train", {"cat": 4, "dog": 4}) | fill(tmp_path / "test", {"cat": 4, "dog": 4})
    for path in list(good)[8:12:2]:  # the share of rank 0 in the first batch
        path.write_text("no image")
    data = build(composed, tmp_path, *SKIP, "data.batch_size=4")
    data.trainer = SimpleNamespace(world_size=2, global_rank=rank, limit_test_batches=1.0)
    batches = list(data.test_dataloader())
    assert [len(images) for images, _, _ in batches] == [len(labels) for _, labels, _ in batches] == [2 * rank, 2]


@pytest.mark.slow
@pytest.mark.parametrize(("options", "count"), [(("data.in_memory=true",), 6), ((), 6), (("data.batch_size=4",), 4)])
def test_a_split_without_any_readable_image_is_an_error(composed, tmp_path, options, count):
    name = "train" if options else "val"
    for split in ("train", "val"):
        for path in fill(tmp_path / split, {"cat": 3, "dog": 3}):
            if split == name:
                path.write_text("no image")

    def load():
        data = build(composed, tmp_path, *SKIP, *options)
        list(data._loader(name, shuffle=name == "train"))

    more = ", .*" if count == 4 else f" and {count - 3} more"
    with pytest.raises(UserError, match=rf"^none of {count} images can be read: .*, .*{more}$"):
        load()


def test_an_unshuffled_training_batch_without_any_readable_image_is_an_error_too(composed, tmp_path):
    """trainer.overfit_batches trains on such batches, and the schedule counts on each."""
    fill(tmp_path / "train", {"cat": 6, "dog": 6})
    loader = build(composed, tmp_path, *SKIP, "data.batch_size=4", "data.num_workers=0")._loader("train", shuffle=False)
    for index in loader.sampler.order()[4:8]:
        Path(loader.loader.dataset.paths[index]).write_text("no image")
    batches = iter(loader)
    assert len(next(batches)[0]) == 4
    with pytest.raises(UserError, match=r"^none of 4 images can be read: "):
        next(batches)


# folders without permission


def without_rights(function, *arguments):
    """Call `function` in a process without root's rights. Return its result or the line of its error."""

    def run(connection):
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        try:
            connection.send(function(*arguments))
        except Exception as error:
            connection.send(f"{type(error).__name__}: {one_line(error, 'config')}")

    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=run, args=(there,))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


@pytest.fixture
def open_folder(tmp_path_factory):
    """A folder that everybody may read and enter."""
    folder = Path(tempfile.mkdtemp(prefix="reslab-test-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    shutil.rmtree(folder)


def sizes(data):
    return {name: counts(split) for name, split in data.splits.items() if split is not None}


@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_a_read_only_folder_is_enough(composed, open_folder, in_memory):
    fill(open_folder / "train", {"cat": 3, "dog": 3})
    for path in [*open_folder.rglob("*"), open_folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = sorted(open_folder.rglob("*"))
    options = (f"data.in_memory={in_memory}", "data.augment.scale=null", "data.val_fraction=0")
    assert without_rights(lambda: sizes(build(composed, open_folder, *options))) == {"train": [3, 3]}
    assert sorted(open_folder.rglob("*")) == before


@pytest.mark.parametrize("closed", ["", "train", "train/dog", "train/dog/deep"])
def test_a_folder_without_permission_is_reported_in_one_line(composed, open_folder, closed):
    fill(open_folder / "train", {"cat": 3, "dog": 3, "dog/deep": 1})
    (open_folder / closed).chmod(0)
    line = without_rights(lambda: sizes(build(composed, open_folder)))
    assert line == f"UserError: data=imagefolder: [Errno 13] Permission denied: '{open_folder / closed}'"


@pytest.mark.slow
def test_a_file_without_permission_counts_as_unreadable(composed, open_folder):
    (closed, *_) = fill(open_folder / "train", {"cat": 3, "dog": 3})
    closed.chmod(0)
    options = ("data.in_memory=true", "data.augment.scale=null")
    line = without_rights(lambda: sizes(build(composed, open_folder, *options)))
    assert line.startswith(f"UserError: cannot read {closed} (Permission denied): remove it, or set data.on_error=skip")
    assert without_rights(lambda: sizes(build(composed, open_folder, *options, *SKIP))) == {"train": [2, 3]}


# the readers of a data set


def test_training_crops_at_random_and_validation_does_not(composed, tmp_path):
    fill(tmp_path / "train", {"cat": 10, "dog": 10}, size=(24, 32))
    data = build(composed, tmp_path)
    assert isinstance(data.splits["train"].images.read, ReadRandomCrop)
    assert isinstance(data.splits["val"].images, FolderImages)
    expected = [
        ReadSquare(Fitting(SIZE))(data.splits["val"].images.paths[index], 0) for index in data.splits["val"].indices
    ]
    assert torch.equal(pixels_and_labels(data.val_dataloader())[0], torch.stack(expected))
    assert isinstance(build(composed, tmp_path, "data.augment=null").splits["train"].images.read, ReadSquare)


def train_images(data):
    return pixels_and_labels(data.train_dataloader())[0]


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["null", "0.3"])
def test_only_training_images_are_augmented_for_any_number_of_workers(composed, tmp_path, scale):
    fill(tmp_path, {"cat": 10, "dog": 10}, size=(24, 32))
    options = (f"data.augment.scale={scale}", "data.augment.randaugment=9")
    data, others, off = (
        build(composed, tmp_path, *more) for more in (options, (*options, "data.num_workers=2"), options[:1])
    )
    augmented = train_images(data)
    assert torch.equal(augmented, train_images(others))
    assert not torch.equal(augmented, train_images(off))
    for loader in ("val_dataloader", "test_dataloader"):
        assert torch.equal(*(pixels_and_labels(getattr(each, loader)())[0] for each in (data, off)))


@pytest.mark.slow
@pytest.mark.parametrize("name", names("data"))
def test_the_readers_of_every_data_set_in_class_folders(composed, tmp_path, name):
    if not issubclass(get_class(composed(f"data={name}").data._target_), ClassFolders):
        return
    data = build(composed, tmp_path, f"data={name}", stages=())
    assert isinstance(data.reader("train"), ReadRandomCrop)
    options = ("data.augment.randaugment=30", "data.augment.trivial_augment=true", "data.augment.scale_aspect=[1,2]")
    data = build(composed, tmp_path, f"data={name}", *options, stages=())
    read = data.reader("train")
    assert isinstance(read.change, v2.TrivialAugmentWide)
    assert isinstance(read.read.change, v2.RandAugment)
    assert read.read.read.crop.ratio == (1, 2)
    assert (read.number, read.read.number) == (2, 1)  # of their seeds
    assert isinstance(data.reader("val"), ReadSquare)
    data.augmentation()  # accepts the options that the readers use


@pytest.mark.parametrize("in_memory", ["false", "true"])
@pytest.mark.parametrize("folders", [("",), ("train", "val", "test")])
def test_each_split_is_read_at_its_size(composed, tmp_path, in_memory, folders):
    for folder in folders:
        fill(tmp_path / folder, {"cat": 10, "dog": 10}, size=(40, 60))
    sizes = ("data.eval_size=24", "data.resize=28", "data.augment.scale=null", f"data.in_memory={in_memory}")
    data = build(composed, tmp_path, *sizes)
    assert train_images(data).shape[2:] == (SIZE, SIZE)
    path = data.root / folders[-1] / "cat" / "000.png" if len(folders) > 1 else None
    for loader in (data.val_dataloader(), data.test_dataloader()):
        images, _ = pixels_and_labels(loader)
        assert images.shape[2:] == (24, 24)
    if path:
        resized = Image.open(path).resize((42, 28), Image.Resampling.BILINEAR).crop((9, 2, 33, 26))
        assert torch.equal(images[0], torch.from_numpy(np.array(resized)).permute(2, 0, 1))


class ReadAndHang:
    """The second batch hangs as a decoder may, which keeps Python's lock, and then the first one fails."""

    def __init__(self):
        self.has_begun = multiprocessing.Event()

    def __call__(self, path, seed):
        if int(path) >= 256:
            hang = ctypes.PyDLL(None).sleep  # before the test may end it: this takes a moment on a busy machine
            self.has_begun.set()
            hang(100)
        assert self.has_begun.wait(60)
        return torch.zeros(3, 8 + int(path) % 2, 8, dtype=torch.uint8)


def test_a_worker_that_hangs_does_not_outlive_the_decoding(monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # seconds
    labels, before = torch.zeros(512, dtype=torch.int64), set(multiprocessing.active_children())
    files = FolderImages([str(number) for number in range(512)], labels, ReadAndHang(), "stop")
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        decode_all(files, torch.arange(512), num_workers=2)
    for worker in set(multiprocessing.active_children()) - before:
        worker.join(20)
    assert set(multiprocessing.active_children()) <= before


def test_borders_of_the_mean_need_one(composed, tmp_path):
    options = ("data.fit=pad", "data.background=null", "data.mean=null", "data.in_memory=true")
    fill(tmp_path, {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match=r"data\.fit=pad adds borders of data\.background or else of data\.mean"):
        build(composed, tmp_path, *options, "data.augment.scale=null")


@pytest.mark.parametrize("magnitude", ["-1", "31", "9.5", "true", "strong"])
def test_a_wrong_magnitude_is_reported_in_one_line(composed, tmp_path, magnitude):
    fill(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(
        UserError, match=rf"(?i)^data\.augment\.randaugment={magnitude} must be an integer from 0 to 30$"
    ):
        build(composed, tmp_path, f"data.augment.randaugment={magnitude}")


@pytest.mark.slow
def test_the_weights_do_not_depend_on_the_number_of_workers(composed, tmp_path):
    fill(tmp_path / "photos", {"cat": 10, "dog": 10}, size=(24, 32))
    weights = []
    for workers in (0, 1, 2):
        options = (f"data.root={tmp_path / 'photos'}", f"data.image_size={SIZE}", f"data.num_workers={workers}")
        more = ("data.batch_size=4", "data.augment.randaugment=9", "data.augment.crop=2", "trainer.max_epochs=1")
        model = ("model=resnet8", "model.widths=[8,8,8]", "trainer=cpu", "test=false", "logger=none")
        config = composed("data=imagefolder", *options, *more, *model, f"folder={tmp_path / str(workers)}")
        before = set(multiprocessing.active_children())  # processes of an earlier test may end meanwhile
        train(config)
        assert set(multiprocessing.active_children()) <= before  # the next job of a sweep would wait for them
        checkpoint = tmp_path / str(workers) / "checkpoints" / "last.ckpt"
        weights.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert any(value.is_floating_point() for value in weights[0].values())
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0, atol=0)


@pytest.mark.slow
@needs_shared_data
def test_cifar10_as_an_image_folder(composed, tmp_path):
    with tarfile.open(Path(SHARED_DATA) / "cifar10-jpeg.tar.xz") as archive:
        first_20 = (member for member in archive if member.isfile() and Path(member.name).stem < "0020")
        archive.extractall(tmp_path, first_20, filter="data")
    data = build(composed, tmp_path, "data.image_size=32", "data.augment.scale=null")
    assert data.spec.classes == CIFAR10.classes
    assert counts(data.splits["train"]) == [18] * 10
    assert counts(data.splits["test"]) == [20] * 10
    assert Image.open(data.splits["train"].images.paths[0]).size == (32, 32)
    images, labels = pixels_and_labels(data.test_dataloader())
    assert (images.shape, images.dtype) == ((200, 3, 32, 32), torch.uint8)
    # 0.473 is the mean of all images, 0.05 are 6 standard errors.
    assert float(images.float().mean() / 255) == pytest.approx(0.473, abs=0.05)
    assert labels.tolist() == [label for label in range(10) for _ in range(20)]
