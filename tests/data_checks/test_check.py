import logging
import shutil

import pytest
import torch
from PIL import Image

from reslab.data_checks.check import check_data
from reslab.data_checks.result import LISTED_IMAGES
from reslab.data_checks.writing import write_check
from reslab.errors import UserError
from reslab.training.build import build_data


def test_every_planted_fault_is_found(planted_check):
    result = planted_check.result
    assert {name: split["images"] for name, split in result["splits"].items()} == {"train": 47, "test": 21}
    assert result["splits"]["train"]["classes"] == {"cat": 21, "dog": 26}
    assert result["leaks"] == [{"split": "test", "also_in": "train", "identical": 2, "near": 2}]
    assert result["labels"] == {"identical": 2, "near": 0}
    assert result["extra"] == {"train": 2, "test": 0}
    assert [(each["image"], each["reason"].partition(" (")[0]) for each in result["unreadable"]] == [
        ("train/cat/cut.jpg", "image file is truncated"),
        ("test/dog/empty.png", "not an image"),
    ]
    assert [line.partition(" (")[0] for line in result["left_out"]] == [
        f"left out 1 of the files in {result['root']}/train, which are not read as images"
    ]


def test_the_test_image_of_a_large_group_is_named(check_config, tmp_path):
    """Its group has more training images than are listed."""
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (name == "cat" and "red") or "blue").save(tmp_path / "train" / name / "0.png")
    for number in range(1, LISTED_IMAGES + 50):
        shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "train/cat" / f"{number}.png")
    (tmp_path / "test" / "cat").mkdir(parents=True)
    shutil.copy(tmp_path / "train/cat/0.png", tmp_path / "test/cat/leak.png")
    check = check_data(check_config(f"data.root={tmp_path}", "data.val_fraction=0", "near=false"))
    (group,) = check.result["identical"]
    assert (group["count"], len(group["images"])) == (LISTED_IMAGES + 51, LISTED_IMAGES)
    assert [each["image"] for each in group["images"][:3]] == [
        "train/cat/0.png",
        "test/cat/leak.png",
        "train/cat/1.png",
    ]
    assert "test/cat/leak.png" in check.result["problems"][0]["text"]
    write_check(check, tmp_path / "page")
    assert "test/cat/leak.png" in (tmp_path / "page" / "index.html").read_text()


def test_the_bytes_of_identical_images_are_compared_too(planted_check):
    files = {group["images"][0]["image"]: group["different_files"] for group in planted_check.result["identical"]}
    assert files == {"train/cat/00.png": 1, "train/cat/01.png": 2, "train/cat/04.png": 1, "train/dog/05.png": 1}


def test_the_kinds_of_the_images_are_counted(planted_check):
    kinds, sizes = planted_check.result["kinds"], planted_check.result["sizes"]
    assert kinds["formats"] == {"PNG": 62, "JPEG": 3, "BMP": 1}
    assert kinds["modes"] == {"RGB": 63, "I;16": 1, "L": 1, "RGBA": 1}
    assert [kinds[name] for name in ("grey", "transparent", "16_bits", "turned_by_exif")] == [2, 1, 1, 1]
    assert sizes["width"] == {"min": 48, "median": 64.0, "max": 128}
    assert sizes["aspect"] == {"min": 48 / 64, "median": 64 / 48, "max": 64 / 48}


def test_the_splits_are_those_of_the_training(check_config, planted, composed):
    options = [f"data.root={planted / 'train'}", "data.val_fraction=0.25", "seed=7"]
    images = check_data(check_config("near=false", *options)).images
    trained = build_data(composed("data=imagefolder", "data.on_error=skip", *options), stages=("fit", "test"))
    assert images.names == ["train", "val", "test"]
    for number, name in enumerate(images.names):
        assert images.indices[images.splits == number].tolist() == trained.splits[name].indices.tolist()


def test_the_log_says_what_was_taken_from_a_labels_file_and_what_was_not(check_config, planted, tmp_path, caplog):
    rows = [f"train/{name}/{each:02}.png,{name},{each}" for name in ("cat", "dog") for each in range(6, 16)]
    file = tmp_path / "labels.csv"
    file.write_text("\n".join(["image,class,age", *rows]))
    caplog.set_level(logging.INFO)
    result = check_data(check_config("near=false", f"data.root={planted}", f"data.labels={file}")).result
    taken = "20 rows of 2 classes; image is the path, class is the label; not used: age"
    assert caplog.messages[0] == f"{file}: {taken}"
    assert result["left_out"] == []


def test_the_statistics_are_those_that_the_training_computes(check_config, composed):
    result = check_data(check_config("data=digits", "data.val_fraction=0.3")).result
    data = build_data(composed("data=digits", "data.val_fraction=0.3"), stages=("fit",))
    torch.testing.assert_close(result["mean"], data.spec.mean, rtol=1e-12, atol=0)
    torch.testing.assert_close(result["std"], data.spec.std, rtol=1e-12, atol=0)


def test_worker_processes_see_the_same(check_config, planted, planted_check):
    options = [f"data.root={planted}", "data.val_fraction=0"]
    assert check_data(check_config(*options, "data.num_workers=2")).result == planted_check.result


def test_near_duplicates_of_tiny_images_are_looked_for_on_request(check_config):
    result = check_data(check_config("data=digits")).result
    assert (result["near_duplicates_looked_for"], result["leaks"], result["near"]) == (False, [], [])
    asked = check_data(check_config("data=digits", "near=true")).result
    assert asked["near_duplicates_looked_for"]
    assert asked["leaks"][0]["near"] > 0


def test_images_in_memory_are_compared_with_validation_on_the_test(check_config):
    result = check_data(check_config("data=synthetic", "data.num_images=50", "data.validate_on_test=true")).result
    assert {name: split["images"] for name, split in result["splits"].items()} == {"train": 50, "test": 50}
    assert result["leaks"] == []


def test_a_folder_without_a_readable_image_is_a_mistake(check_config, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_text("no image")
    with pytest.raises(UserError, match="none of the 2 images of data=imagefolder can be read: not an image"):
        check_data(check_config(f"data.root={tmp_path}", "data.val_fraction=0", "data.test_fraction=0"))
    assert logging.getLogger("reslab.data").propagate
