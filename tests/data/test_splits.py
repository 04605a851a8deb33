import hashlib
import logging
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import needs_fashion_mnist
from noise_images import fill_with_colors
from PIL import Image
from sklearn.datasets import load_digits

from reslab.data.splits import (
    Split,
    chosen_count,
    path_hashes,
    pixel_statistics,
    report_missing_classes,
    spread_over_classes,
    stratified_split,
)
from reslab.data.training_files import are_training_files, file_changes
from reslab.errors import UserError
from reslab.training.build import build_data
from reslab.training.classifier import Classifier
from reslab.training.fit import train

IN_MEMORY = ("data.in_memory=true", "data.augment.scale=null")


def build(composed, root, *overrides, stages=("fit", "test")):
    options = ("data.image_size=8", "data.batch_size=2", "data.num_workers=0")
    return build_data(composed("data=imagefolder", f"data.root={root}", *options, *overrides), stages)


def counts(split, num_classes):
    return split.labels[split.indices].bincount(minlength=num_classes).tolist()


def files(split):
    return {str(split.images.paths[index]) for index in split.indices.tolist()}


# how many


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [
        (0.0, [0, 0, 0, 0, 0]),
        (0.001, [1, 1, 1, 1, 0]),
        (0.1, [10, 4, 1, 1, 0]),
        (0.25, [25, 10, 2, 1, 0]),
        (0.5, [50, 20, 4, 1, 0]),
        (0.999, [99, 39, 8, 1, 0]),
    ],
)
def test_every_class_of_two_images_or_more_is_on_both_sides(fraction, expected):
    sizes = [100, 40, 9, 2, 1]
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))[torch.randperm(152)]
    assert [chosen_count(size, fraction) for size in sizes] == expected
    for keys in (None, torch.randint(-(2**63), 2**63 - 1, (152,))):
        rest, chosen = stratified_split(labels, fraction, seed=3, keys=keys)
        assert labels[chosen].bincount(minlength=5).tolist() == expected
        assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(152))  # disjoint and complete
        assert torch.equal(rest, rest.sort().values)
        assert torch.equal(chosen, chosen.sort().values)


@pytest.mark.parametrize("options", [(), IN_MEMORY])
def test_rare_classes_are_validated_and_tested(composed, tmp_path, caplog, options):
    """A validation of the first class alone would have an accuracy of 1 where the network knows nothing else."""
    fill_with_colors(tmp_path, {"a": 80, "b": 4, "c": 4, "d": 4, "e": 4})
    data = build(composed, tmp_path, *options)
    assert counts(data.splits["test"], 5) == [16, 1, 1, 1, 1]  # a fifth of 80, and a fifth of 4 is 0.8
    assert counts(data.splits["val"], 5) == [6, 1, 1, 1, 1]  # a tenth of 64, and at least one of 3
    assert counts(data.splits["train"], 5) == [58, 2, 2, 2, 2]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_class_that_a_split_lacks_is_named(composed, tmp_path, caplog):
    fill_with_colors(tmp_path, {"cat": 10, "dog": 2, "eel": 1})
    data = build(composed, tmp_path)
    sizes = {name: counts(split, 3) for name, split in data.splits.items()}
    assert sizes == {"train": [7, 1, 1], "val": [1, 0, 0], "test": [2, 1, 0]}
    assert [message for message in caplog.messages if message.startswith("no ")] == [
        "no validation images of 2 of the 3 classes: dog, eel",
        "no test images of 1 of the 3 classes: eel",
    ]


def test_many_missing_classes_are_one_short_line(caplog):
    split = Split(torch.zeros(2, 1, 1, 1), torch.tensor([3, 3]))
    report_missing_classes("train", split, [f"class {number}" for number in range(1000)])
    (line,) = caplog.messages
    assert line == "no training images of 999 of the 1000 classes: class 0, class 1, class 2 and 996 more"


def test_a_data_set_in_memory_reports_missing_classes_too(composed, caplog):
    build_data(composed("data=synthetic", "data.num_images=13", "data.batch_size=2"), ("fit", "test"))
    assert caplog.messages == ["no validation images of 7 of the 10 classes: 3, 4, 5 and 4 more"]  # 3 classes have two


@pytest.mark.parametrize("fraction", ["0.001", "0.999"])
def test_without_two_images_in_any_class_there_is_no_validation(composed, tmp_path, fraction):
    fill_with_colors(tmp_path, {"cat": 2, "dog": 2})
    with pytest.raises(UserError) as caught:
        build(composed, tmp_path, f"data.val_fraction={fraction}")
    assert str(caught.value) == (
        f"data.val_fraction={fraction}: no class has two training images, so none can be kept for validation: "
        "set data.val_fraction=0"
    )


def test_fractions_near_one_leave_one_image_of_each_class_for_training(composed, tmp_path):
    fill_with_colors(tmp_path, {"cat": 30, "dog": 20})
    data = build(composed, tmp_path, "data.test_fraction=0.9", "data.val_fraction=0.999", "data.batch_size=4")
    sizes = {name: counts(split, 2) for name, split in data.splits.items()}
    assert sizes == {"train": [1, 1], "val": [2, 1], "test": [27, 18]}
    with pytest.raises(
        UserError, match=r"^data\.batch_size=4 is more than the 2 training images: set data\.batch_size=2 or less$"
    ):
        _ = data.batches_per_epoch


# which ones: images in memory by their positions


def test_the_split_is_a_function_of_the_seed():
    labels = torch.arange(1000) % 10
    torch.manual_seed(0)
    first = stratified_split(labels, 0.1, seed=1)[1]
    torch.manual_seed(1)
    assert torch.equal(stratified_split(labels, 0.1, seed=1)[1], first)
    assert len({tuple(stratified_split(labels, 0.1, seed)[1].tolist()) for seed in range(10)}) == 10
    assert first.max() > 900  # not just the first ones


def test_data_sets_in_memory_have_the_split_that_they_always_had():
    """The hashes are of the positions that the first versions chose: a resumed run needs the same ones."""
    labels = torch.from_numpy(load_digits().target)
    training, test = stratified_split(labels, 0.2, seed=0)
    _, validation = stratified_split(labels[training], 0.1, seed=42)
    hashes = [hashlib.sha256(positions.numpy().tobytes()).hexdigest()[:16] for positions in (test, validation)]
    assert hashes == ["cb6ae1821d565aee", "f2acb39e0bb35fb3"]


# which ones: files by their paths


def expected_side(names, count, person, salt):
    """Return the `count` names with the lowest hashes."""

    def key(name):
        digest = hashlib.blake2b(name.encode(), digest_size=8, person=person, salt=salt).digest()
        return struct.unpack("<q", digest)

    return set(sorted(names, key=key)[:count])


@pytest.mark.parametrize("options", [(), IN_MEMORY])
def test_the_side_of_a_file_is_that_of_its_path_and_the_seed(composed, tmp_path, options):
    fill_with_colors(tmp_path, {"cat": 20, "dog/deep": 10})
    names = {"cat": [f"cat/{n}.png" for n in range(20)], "dog": [f"dog/deep/{n}.png" for n in range(10)]}
    test, val = set(), set()
    for group, in_test, in_val in (("cat", 4, 2), ("dog", 2, 1)):  # a fifth, and a tenth of the 16 and 8 that are left
        tested = expected_side(names[group], in_test, b"test", bytes(8))
        test |= tested
        val |= expected_side(set(names[group]) - tested, in_val, b"validation", struct.pack("<Q", 7))
    data = build(composed, tmp_path, "seed=7", *options)
    colours = {
        Image.open(path).getpixel((0, 0)): path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")
    }
    for name, expected in (("test", test), ("val", val), ("train", {*names["cat"], *names["dog"]} - test - val)):
        split = data.splits[name]
        if options:
            found = {colours[tuple(split.images[index, :, 0, 0].tolist())] for index in split.indices}
        else:
            found = {Path(path).relative_to(tmp_path).as_posix() for path in files(split)}
        assert found == expected
    assert len(test) == 6


def test_unreadable_images_do_not_change_the_side_of_others(composed, tmp_path):
    fill_with_colors(tmp_path, {"cat": 40, "dog": 40})
    for number in range(0, 40, 5):
        (tmp_path / "cat" / f"{number}.png").write_text("no image")
    disk, memory = (build(composed, tmp_path, "data.on_error=skip", *options) for options in ((), IN_MEMORY))
    for name in ("train", "val", "test"):
        split, kept = disk.splits[name], memory.splits[name]
        readable = [path for path in sorted(files(split)) if Path(path).read_bytes() != b"no image"]
        expected = sorted(Image.open(path).convert("RGB").getpixel((0, 0)) for path in readable)
        assert sorted(tuple(image[:, 0, 0].tolist()) for image in kept.images[kept.indices]) == expected
    assert torch.equal(disk.training_files(), memory.training_files())


def test_the_test_images_are_those_of_every_seed_and_the_validation_images_are_not(composed, tmp_path):
    fill_with_colors(tmp_path, {"cat": 50, "dog": 50})
    first, second = (build(composed, tmp_path, f"seed={seed}").splits for seed in (1, 2))
    assert files(first["test"]) == files(second["test"])
    assert files(first["val"]) != files(second["val"])


@pytest.mark.parametrize("layout", ["", "train"])
def test_an_added_or_removed_file_moves_at_most_the_one_at_each_boundary_of_its_class(composed, tmp_path, layout):
    fill_with_colors(tmp_path / layout, {"cat": 40, "dog": 40, "eel": 40})
    before = build(composed, tmp_path).splits
    fill_with_colors(tmp_path / layout, {"cat": 41, "dog": 41})
    (tmp_path / layout / "eel" / "3.png").unlink()
    after = build(composed, tmp_path).splits
    for name in ("test", "val") if layout == "" else ("val",):
        for group in ("cat", "dog", "eel"):
            old, new = ({path for path in files(splits[name]) if f"/{group}/" in path} for splits in (before, after))
            assert len(old - new) <= 1 + (name == "val" and layout == "")  # the test's boundary may add or take one
            assert len(new - old) <= 1 + (name == "val" and layout == "")
    old_training = files(before["train"]) | files(before["val"])
    if layout == "":
        assert len(files(after["test"]) & old_training) <= 3  # one in each class


@pytest.mark.slow
def test_the_split_does_not_depend_on_where_the_root_is_nor_on_how_it_is_given(composed, tmp_path, monkeypatch):
    fill_with_colors(tmp_path / "here", {"cat": 20, "dog": 20})
    names = []
    for root in (tmp_path / "here", f"{tmp_path}/here/", "here", ".", "../here"):
        monkeypatch.chdir(tmp_path / "here" if str(root) in (".", "../here") else tmp_path)
        data = build(composed, root)
        names.append({"/".join(path.split("/")[-2:]) for path in files(data.splits["test"])})
        names.append(set(data.training_files().tolist()))
        names.append(data.checksum())
    assert names == names[:3] * 5


def test_the_hash_of_a_path_is_that_of_its_bytes_within_the_root():
    paths = ["photos/é/a b.png", "photos/x\ny.png", Path("photos/photos/z.png"), "photos/\udcff.png"]
    names = ["é/a b.png".encode(), b"x\ny.png", b"photos/z.png", b"\xff.png"]
    salt = (3).to_bytes(8, "little")
    expected = [hashlib.blake2b(name, digest_size=8, person=b"test", salt=salt).digest() for name in names]
    assert path_hashes(paths, Path("photos"), "test", 3).tolist() == [struct.unpack("<q", each)[0] for each in expected]
    assert path_hashes(["é/a b.png"], Path(), "test", 3)[0] == path_hashes(paths, Path("photos"), "test", 3)[0]
    assert path_hashes([], Path("photos"), "test").tolist() == []


# the record of a run


@pytest.mark.parametrize("options", [(), IN_MEMORY])
def test_a_run_records_the_files_that_it_has_seen(composed, tmp_path, options):
    fill_with_colors(tmp_path / "photos", {"cat": 20, "dog": 20})
    on_disk = build(composed, tmp_path / "photos").splits
    record = build(composed, tmp_path / "photos", *options, stages=("fit",)).training_files()
    assert (record.dtype, record.shape) == (torch.int64, (32,))
    assert torch.equal(record, record.sort().values)
    fill_with_colors(tmp_path / "photos", {"cat": 21})
    moved = (tmp_path / "photos").rename(tmp_path / "elsewhere")
    paths = sorted(moved.rglob("*.png"))
    seen = {path.replace("photos", "elsewhere") for name in ("train", "val") for path in files(on_disk[name])}
    assert are_training_files(paths, moved, record).tolist() == [str(path) in seen for path in paths]
    assert len(paths) == 41


def test_what_differs_from_the_files_of_a_run_is_said(composed, tmp_path):
    fill_with_colors(tmp_path / "train", {"a": 4, "b": 4})
    fill_with_colors(tmp_path / "test", {"a": 1, "b": 1})
    data = build(composed, tmp_path)
    record = data.training_files()
    assert file_changes(data.file_splits, tmp_path, record) == ""
    assert file_changes(data.file_splits, tmp_path, None) == ""  # of an older version
    first, second, *_ = sorted(path for path in tmp_path.glob("train/a/*"))
    first.rename(first.with_name("new.png"))
    second.unlink()
    now = build(composed, tmp_path).file_splits
    assert file_changes(now, tmp_path, record) == "1 new (train/a/new.png), 2 missing"


def test_test_images_that_validate_are_not_recorded(composed, tmp_path):
    fill_with_colors(tmp_path, {"cat": 20, "dog": 20})
    data = build(composed, tmp_path, "data.validate_on_test=true")
    assert not are_training_files(list(files(data.splits["test"])), tmp_path, data.training_files()).any()
    assert len(data.training_files()) == 32


def test_data_sets_with_test_images_of_their_own_record_nothing(composed):
    assert build_data(composed("data=digits"), ("fit",)).training_files() is None


@pytest.mark.parametrize("options", [(), IN_MEMORY])
def test_the_checksum_of_what_files_hold_depends_neither_on_the_split_nor_on_the_place(composed, tmp_path, options):
    def checksum(folder, *more):
        return build(composed, tmp_path / folder, *options, *more, stages=("fit",)).files_checksum()

    fill_with_colors(tmp_path / "photos", {"cat": 20, "dog": 20})
    first = checksum("photos")
    assert [checksum("photos", "seed=2"), checksum("photos", "data.val_fraction=0.4")] == [first] * 2
    shutil.copytree(tmp_path / "photos", tmp_path / "copy")
    assert checksum("copy") == first
    trained = sorted(files(build(composed, tmp_path / "photos").splits["train"]))[0]
    own = Path(trained).read_bytes()
    other = own[:-1] + bytes([own[-1] ^ 1])  # of the same size
    Path(trained).write_bytes(other)
    assert checksum("photos") != first
    Path(trained).write_bytes(own)
    assert checksum("photos") == first
    (tmp_path / "photos" / "cat").rename(tmp_path / "photos" / "cow")
    assert checksum("photos") != first


def test_the_checksum_of_files_covers_their_paths_within_the_root(composed, tmp_path):
    """Files of the same names in folders of the same names may be others."""
    sums = []
    for folder in ("one", "two"):
        fill_with_colors(tmp_path / folder / "train" / "cat" / folder, {"x": 3})
        fill_with_colors(tmp_path / folder / "train", {"dog": 3})
        sums.append(build(composed, tmp_path / folder, "data.val_fraction=0").checksum())
    assert sums[0] != sums[1]


# a sample of every class


def test_every_beginning_of_the_order_is_spread_over_the_classes():
    labels = torch.arange(10).repeat_interleave(50)
    order = spread_over_classes(labels, seed=1)
    assert torch.equal(order.sort().values, torch.arange(500))
    assert (labels[order].view(50, 10).sort(1).values == torch.arange(10)).all()
    assert len({tuple(labels[spread_over_classes(labels, seed)][:10].tolist()) for seed in range(10)}) == 10


def test_the_order_keeps_the_proportions_of_unequal_classes():
    sizes = [800, 40, 40, 40, 40]
    labels = torch.repeat_interleave(torch.arange(5), torch.tensor(sizes))
    order = labels[spread_over_classes(labels, seed=1)]
    for length in range(1, 961):
        for label, size in enumerate(sizes):
            # A class has its share of the first t / 960 of all places to within one image, and t is not further than
            # five images, one of each class, from the length.
            assert abs(int((order[:length] == label).sum()) - length * size / 960) < 1 + 5 * size / 960


@pytest.mark.slow
@pytest.mark.parametrize("limit", ["1", "0.1"])
def test_limited_validation_and_test_see_every_class_as_often_as_it_is_there(composed, tmp_path, monkeypatch, limit):
    """The images come sorted by class, and their first batch would be of one class."""
    fill_with_colors(tmp_path / "photos", dict.fromkeys("abcde", 100))
    seen = {"val": [], "test": []}
    for name, step in (("val", "validation_step"), ("test", "test_step")):
        original = getattr(Classifier, step)
        monkeypatch.setattr(
            Classifier,
            step,
            lambda self, batch, number, name=name, original=original: (
                seen[name].append(batch[1].tolist()),
                original(self, batch, number),
            )[1],
        )
    train(
        composed(
            "data=imagefolder", f"data.root={tmp_path / 'photos'}", "data.image_size=8", "data.batch_size=10",
            "data.num_workers=0", "data.val_fraction=0.25", "model=resnet8", "model.widths=[8,8,8]", "trainer=cpu",
            "trainer.max_epochs=2", "trainer.limit_train_batches=1", f"trainer.limit_val_batches={limit}",
            f"trainer.limit_test_batches={limit}", "logger=none", f"folder={tmp_path / 'run'}",
        )
    )  # fmt: skip
    for batches, epochs in ((seen["val"], 2), (seen["test"], 1)):
        assert len(batches) == epochs
        assert [Counter(batch) for batch in batches] == [dict.fromkeys(range(5), 2)] * epochs
        assert all(batch == batches[0] for batch in batches)


# statistics


@pytest.mark.parametrize("shape", [(37, 3, 9, 8), (5, 1, 28, 28), (9000, 1, 2, 2)])
def test_pixel_statistics_equal_numpys_in_double_precision(shape):
    images = (torch.rand(shape, generator=torch.Generator().manual_seed(0)).square() * 255).byte()
    for indices in (torch.arange(shape[0]), torch.arange(0, shape[0], 3)):
        mean, std = pixel_statistics(images, indices)
        pixels = images.numpy()[indices.numpy()].astype(np.float64) / 255
        assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
        assert std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


@pytest.mark.slow
@needs_fashion_mnist
def test_the_statistics_of_fashion_mnist_are_those_of_the_images_that_train(composed, tmp_path):
    data = build_data(composed("data=fashion_mnist", f"data.root={tmp_path}", "seed=1"), ("fit",))
    pixels = data.splits["train"].images.numpy()[data.splits["train"].indices.numpy()].astype(np.float64) / 255
    assert len(pixels) == 54_000
    assert data.spec.mean == pytest.approx([pixels.mean()], rel=1e-12)
    assert data.spec.std == pytest.approx([pixels.std()], rel=1e-12)
