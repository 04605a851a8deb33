"""Cross-validation: `data.folds` and `data.fold`."""

import re

import pytest
import torch
from hydra.errors import InstantiationException
from noise_images import build, counts, fill

from reslab.errors import UserError, one_line
from reslab.training.build import build_data


def digits(composed, *overrides):
    return build_data(composed("data=digits", *overrides), ("fit", "test"))


@pytest.mark.slow
def test_every_image_of_a_data_set_without_test_images_is_tested_once(composed):
    tests = [digits(composed, "data.folds=5", f"data.fold={fold}").splits for fold in range(5)]
    assert [len(splits["test"]) for splits in tests] == pytest.approx([359] * 5, abs=2)
    pixels = torch.cat([splits["test"].images for splits in tests]).flatten(1)
    assert len(pixels) == 1797
    everything = digits(composed).splits
    whole = torch.cat([everything["train"].images, everything["test"].images]).flatten(1)
    assert torch.equal(pixels.double().sort(0)[0], whole.double().sort(0)[0])
    for splits in tests:
        sizes = [len(splits[name]) for name in ("train", "val")]
        assert sum(sizes) + len(splits["test"]) == 1797
        assert sizes[1] == pytest.approx(0.1 * sum(sizes), abs=5)


def test_the_folds_are_the_same_for_every_seed(composed):
    first, second = (digits(composed, "data.folds=5", "data.fold=2", f"seed={seed}").splits for seed in (1, 2))
    assert torch.equal(first["test"].images, second["test"].images)
    assert not torch.equal(first["val"].indices, second["val"].indices)


@pytest.mark.parametrize(
    ("overrides", "split"),
    [
        (("data=digits", "data.folds=5", "data.fold=0"), "test"),
        (("data=mnist", "data.folds=5", "data.fold=0"), "val"),
        (("data=digits",), None),
    ],
)
def test_the_fold_is_the_test_set_where_there_is_no_other(composed, overrides, split):
    assert build_data(composed(*overrides), ()).fold_split == split


@pytest.mark.slow
@pytest.mark.parametrize("folders", [("",), ("train",)])
def test_the_fold_is_the_test_set_of_folders_without_one(composed, tmp_path, folders):
    fill(tmp_path / folders[0], {"cat": 20, "dog": 10})
    tested = []
    for fold in range(5):
        data = build(composed, tmp_path, "data.folds=5", f"data.fold={fold}")
        assert {name: counts(split) for name, split in data.splits.items()} == {
            "train": [14, 7], "val": [2, 1], "test": [4, 2],
        }  # fmt: skip
        test = data.splits["test"]
        tested += [test.images.paths[index] for index in test.indices.tolist()]
    assert sorted(tested) == sorted(map(str, tmp_path.rglob("*.png")))


@pytest.mark.slow
def test_the_fold_is_the_validation_split_where_test_images_exist(composed, tmp_path):
    fill(tmp_path / "train", {"cat": 20, "dog": 10})
    fill(tmp_path / "test", {"cat": 1, "dog": 2})
    validated = []
    for fold in range(5):
        data = build(composed, tmp_path, "data.folds=5", f"data.fold={fold}", "data.val_fraction=0")
        assert {name: counts(split) for name, split in data.splits.items()} == {
            "train": [16, 8], "val": [4, 2], "test": [1, 2],
        }  # fmt: skip
        val = data.splits["val"]
        validated += [val.images.paths[index] for index in val.indices.tolist()]
    assert sorted(validated) == sorted(map(str, (tmp_path / "train").rglob("*.png")))


@pytest.mark.slow
def test_a_fold_has_whole_groups(composed, tmp_path):
    for patient in range(10):
        fill(tmp_path / ("cat", "dog")[patient % 2], {f"p{patient}": 3})
    found = []
    for fold in range(5):
        data = build(composed, tmp_path, "data.folds=5", f"data.fold={fold}", r"data.group='p\d+'")
        names = {name: {split.groups.names[number] for number in split.groups.of_images[split.indices]}
                 for name, split in data.splits.items()}  # fmt: skip
        assert [len(names[name]) for name in ("train", "val", "test")] == [6, 2, 2]
        assert len(set.union(*names.values())) == 10
        found += names["test"]
    assert len(set(found)) == 10


def test_groups_that_folders_share_are_said(composed, tmp_path, caplog):
    fill(tmp_path / "train", {"cat/p1": 2, "cat/p2": 2, "dog/p3": 2})
    fill(tmp_path / "test", {"cat/p2": 2, "dog/p4": 2})
    build(composed, tmp_path, r"data.group='p\d+'", "data.val_fraction=0")
    assert "train and test images share 1 group: p2" in caplog.messages


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.folds=5"], r"data.folds=5 needs data.fold: -m 'data.fold=range\(5\)'"),
        (["data.fold=0"], "data.fold=0 needs data.folds"),
        (["data.folds=5", "data.fold=5"], "the folds of data.folds=5 have the numbers 0 to 4"),
        (["data.folds=50", "data.fold=2"], "data.folds=50: 42 folds have no images: lower data.folds"),
        (["data.group=patient"], "data.group=patient is no column of data.labels"),
        (["data.group='(cat|dog)'"], "no class has images in two groups, so none can be kept for the test"),
        (["data.group='.*/'"], "no class has images in two groups"),
        (["data.group='^'"], "all images are in one group"),
    ],
)
def test_folds_and_groups_that_cannot_be_are_one_line(composed, tmp_path, overrides, message):
    fill(tmp_path, {"cat": 4, "dog": 4})
    with pytest.raises((UserError, InstantiationException)) as error:
        build(composed, tmp_path, *overrides)
    assert re.search(message, one_line(error.value, "config"))


@pytest.mark.slow
def test_folds_and_other_ways_to_validate_are_refused_together(composed, tmp_path):
    for name in ("train", "val"):
        fill(tmp_path / name, {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match="and there are validation images too"):
        build(composed, tmp_path, "data.folds=2", "data.fold=0")
    fill(tmp_path / "test", {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match=r"data.validate_on_test=true leaves nothing to do for data.fold"):
        build(composed, tmp_path, "data.folds=2", "data.fold=0", "data.validate_on_test=true")
