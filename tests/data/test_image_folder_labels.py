"""Image folders whose labels, splits and groups are in a file."""

import csv
import logging

import pytest
import torch
from conftest import FP32, equal, last_weights
from noise_images import build, counts, fill, pixels_and_labels

from reslab.data.folders import find_splits
from reslab.errors import UserError
from reslab.training.fit import train

SPLITS = ("Training", "Training", "valid", "test")


@pytest.fixture
def photos(tmp_path):
    """A folder of 3 x 12 images in one folder, and the rows of its labels file."""
    root = tmp_path / "photos"
    written = fill(root, {"images": 36})
    rows = [(f"images/{path.name}", str(number // 12 + 8), SPLITS[number % 4]) for number, path in enumerate(written)]
    write_rows(root / "labels.csv", rows)
    return root, written, rows


def write_rows(file, rows, header=("path", "label", "split")):
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])


def test_a_labels_file_says_the_classes_and_the_splits(composed, photos, caplog):
    root, written, rows = photos
    caplog.set_level(logging.INFO)
    data = build(composed, root, "data.labels=labels.csv")
    assert data.spec.classes == ["8", "9", "10"]  # as numbers
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [6, 6, 6], "val": [3, 3, 3], "test": [3, 3, 3],
    }  # fmt: skip
    images, labels = pixels_and_labels(data.test_dataloader())
    expected = [(pixels, row[1]) for pixels, row in zip(written.values(), rows, strict=True) if row[2] == "test"]
    assert torch.equal(images, torch.stack([pixels for pixels, _ in expected]))
    assert [data.classes[label] for label in labels] == [name for _, name in expected]
    line = "labels.csv: Training is train (18 images), valid is val (9 images), test is test (9 images)"
    assert caplog.messages.count(line) == 1


def test_without_splits_the_images_are_divided_as_class_folders_are(composed, tmp_path):
    fill(tmp_path / "photos", {"cat": 20, "dog": 10})
    paths = sorted(path.relative_to(tmp_path / "photos") for path in (tmp_path / "photos").rglob("*.png"))
    (tmp_path / "labels.txt").write_text("".join(f"{path} {path.parent}\n" for path in reversed(paths)))
    folders = build(composed, tmp_path / "photos")
    labelled = build(composed, tmp_path / "photos", f"data.labels={tmp_path}/labels.txt")
    assert labelled.checksum() == folders.checksum()
    assert torch.equal(labelled.training_files(), folders.training_files())
    assert labelled.splits["test"].indices.tolist() == folders.splits["test"].indices.tolist()


def test_a_file_gives_the_splits_of_class_folders(composed, tmp_path, caplog):
    written = fill(tmp_path, {"cat": 4, "dog": 4})
    rows = [
        (path.relative_to(tmp_path), ("train", "train", "val", "test")[number % 4])
        for number, path in enumerate(written)
    ]
    write_rows(tmp_path / "splits.csv", rows, ("path", "split"))
    caplog.set_level(logging.INFO)
    data = build(composed, tmp_path, "data.labels=splits.csv")
    assert data.classes == ["cat", "dog"]
    assert {name: counts(split) for name, split in data.splits.items()} == {
        "train": [2, 2],
        "val": [1, 1],
        "test": [1, 1],
    }
    assert "the class folder is the label" in caplog.text


def test_one_labels_file_per_split(composed, photos):
    root, _, rows = photos
    for split in ("train", "valid", "test"):
        chosen = [row[:2] for row in rows if row[2].lower().startswith(split)]
        (root / f"{split}.txt").write_text("".join(f"{path} {label}\n" for path, label in chosen))
    whole = build(composed, root, "data.labels=labels.csv")
    apart = build(composed, root, "data.labels=[train.txt,valid.txt,test.txt]")
    assert apart.checksum() == whole.checksum()


def test_a_labels_file_whose_column_contradicts_its_name_is_one_line(composed, photos):
    """Otherwise the test images would be trained on."""
    root, _, rows = photos
    header = ("path", "label", "subset")
    write_rows(root / "train.csv", [row for row in rows if row[2] == "Training"], header)
    write_rows(root / "test.csv", [(*row[:2], "Training") for row in rows if row[2] == "test"], header)
    line = (
        r"test\.csv is the split test by its name, and its column subset says Training of images/003\.png: correct or "
        "remove the column, or give the file another name$"
    )
    with pytest.raises(UserError, match=line):
        build(composed, root, "data.labels=[train.csv,test.csv]")
    write_rows(root / "test.csv", [row for row in rows if row[2] == "test"], header)
    assert counts(build(composed, root, "data.labels=[train.csv,test.csv]").splits["test"]) == [3, 3, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("images/000.png", "a", "test")], "labels.csv has test and no train: give some images the split train"),
        ([("images/000.png", "a", "train")], "labels.csv has only the class a: at least two are needed"),
        (
            [("images/000.png", "a", "train"), ("images/001.png", "b", "train"), ("images/002.png", "c", "test")],
            "labels.csv has test images of classes without training images: c",
        ),
    ],
)
def test_a_labels_file_that_cannot_be_trained_on_is_one_line(composed, photos, rows, message):
    root = photos[0]
    write_rows(root / "labels.csv", rows)
    with pytest.raises(UserError) as error:
        build(composed, root, "data.labels=labels.csv", "data.val_fraction=0")
    assert str(error.value) == message


def test_a_column_per_class_is_no_column_of_labels(composed, photos):
    root = photos[0]
    (root / "onehot.csv").write_text("image,apple,brick\nimages/000.png,1,0\nimages/001.png,0,1\n")
    with pytest.raises(UserError) as error:
        build(composed, root, "data.labels=onehot.csv")
    assert str(error.value) == (
        f"{root}/onehot.csv has no column that is known as the label (its columns: image, apple, brick), and the "
        "images are in only one class folder, images: add a column label with the name of the class of each image"
    )


@pytest.mark.slow
def test_a_run_is_not_resumed_with_another_label(composed, photos, tmp_path):
    root, _, rows = photos
    options = (
        "model=resnet8", "data=imagefolder", f"data.root={root}", "data.labels=labels.csv", "data.image_size=16",
        "data.batch_size=6", "data.num_workers=0", "trainer=cpu", "logger=none", "test=false", FP32,
    )  # fmt: skip
    train(composed(*options, "trainer.max_epochs=2"))
    weights = last_weights(tmp_path)
    (tmp_path / "result.json").unlink()
    write_rows(root / "labels.csv", [*rows[:-4], (rows[-4][0], "8", "Training"), *rows[-3:]])
    again = (*options, f"resume={tmp_path}", "trainer.max_epochs=3")
    with pytest.raises(UserError, match="began with: the files are the same, but not their labels or their division;"):
        train(composed(*again))
    write_rows(root / "labels.csv", rows)
    replaced, kept = root / rows[0][0], (root / rows[0][0]).read_bytes()
    replaced.write_bytes((root / rows[1][0]).read_bytes())
    with pytest.raises(UserError, match="began with: files of the same names have other contents; start a new run"):
        train(composed(*again))
    replaced.write_bytes(kept)
    assert equal(last_weights(tmp_path), weights)
    write_rows(root / "labels.csv", list(reversed(rows)))  # the order of the rows does not count
    assert train(composed(*again))["epochs"] == 3


def test_folders_of_splits_with_other_names_are_said_in_one_line(composed, tmp_path, caplog):
    for name, number in (("Training", 3), ("valid", 2), ("TESTING", 1)):
        fill(tmp_path / name, {"cat": number, "dog": number})
    caplog.set_level(logging.INFO)
    build(composed, tmp_path)
    line = f"{tmp_path}: Training/ is train (6 images), valid/ is val (4 images), TESTING/ is test (2 images)"
    assert caplog.messages.count(line) == 1
    assert list(find_splits(tmp_path)) == ["train", "val", "test"]
