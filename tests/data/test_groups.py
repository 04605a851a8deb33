import logging
from pathlib import Path

import pytest
import torch

from reslab.data.groups import groups_by_path, numbered, report_division, strata_of, units_of
from reslab.data.splits import Split, fold_numbers, hashes, stratified_split
from reslab.errors import UserError

CLASSES, PATIENTS, IMAGES = 3, 40, 6


def images_of_patients(names, images=IMAGES):
    """Return a split in memory with some images of each patient, who has one class."""
    groups = numbered([name for name in names for _ in range(images)])
    labels = torch.tensor([hash_class(name) for name in names]).repeat_interleave(images)
    return Split(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, groups=groups)


def hash_class(name):
    return int(name.removeprefix("p")) % CLASSES


def chosen_patients(split, fraction=0.2, seed=1):
    units = units_of(split, Path(), "validation", seed)
    chosen = units.images(stratified_split(units.labels, fraction, seed, units.keys)[1])
    numbers = split.groups.of_images[chosen]
    names = {split.groups.names[number] for number in numbers.tolist()}
    assert len(chosen) == sum(int((split.groups.of_images == number).sum()) for number in numbers.unique())  # whole
    return names


def test_all_images_of_a_group_are_on_one_side_and_each_class_has_its_share():
    names = chosen_patients(images_of_patients([f"p{number}" for number in range(60)]))
    assert sorted(map(hash_class, names)) == [0] * 4 + [1] * 4 + [2] * 4  # a fifth of 20 patients of each class


def test_the_side_of_a_group_is_that_of_its_name_and_the_seed():
    patients = [f"p{number}" for number in range(60)]
    before = chosen_patients(images_of_patients(patients))
    assert chosen_patients(images_of_patients(patients[::-1])) == before
    assert chosen_patients(images_of_patients(patients), seed=2) != before


def test_an_added_image_moves_no_group_and_an_added_group_at_most_the_one_at_the_boundary():
    patients = [f"p{number}" for number in range(60)]
    before = chosen_patients(images_of_patients(patients))
    assert chosen_patients(images_of_patients(patients, images=IMAGES + 1)) == before
    for new in range(60, 90):
        after = chosen_patients(images_of_patients([*patients, f"p{new}"]))
        assert len((after ^ before) - {f"p{new}"}) <= 1


def test_the_stratum_of_a_group_is_its_most_frequent_class():
    labels = torch.tensor([0, 0, 1, 1, 1, 0, 2, 2, 0, 1])
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 4, 5])
    assert strata_of(labels, groups).tolist() == [0, 1, 2, 2, 0, 1]


def test_groups_that_are_alone_with_their_class_are_divided_together_where_others_have_it_too():
    labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 2, 0, 3])
    groups = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3])  # cameras: the last has the only images of its class
    assert strata_of(labels, groups).tolist() == [4, 4, 4, 3]


@pytest.mark.parametrize("grouped", [True, False])
def test_each_image_is_in_one_fold_and_each_fold_has_every_class_in_proportion(grouped):
    split = images_of_patients([f"p{number}" for number in range(60)])
    units = units_of(split if grouped else Split(split.images, split.labels), Path(), "fold")
    numbers = fold_numbers(units.labels, 5, units.keys)
    for fold in range(5):
        chosen = units.images((numbers == fold).nonzero().flatten())
        assert split.labels[chosen].bincount().tolist() == [24, 24, 24]


def test_small_classes_are_distributed_over_all_folds():
    numbers = fold_numbers(torch.arange(100).repeat_interleave(2), 5)
    assert numbers.bincount().min() >= 38  # of 40
    assert (numbers.view(100, 2).diff() != 0).all()


def test_rounding_gives_no_fold_of_its_own():
    """The place of an image, in float32, is 1 for the last one of a class that begins near the end."""
    assert fold_numbers(torch.full((20_000,), 987), 5).unique().tolist() == [0, 1, 2, 3, 4]


def test_an_added_image_moves_at_most_one_at_each_boundary_of_the_folds_of_its_class():
    keys = hashes([str(number).encode() for number in range(203)], "fold")
    labels = torch.arange(203) % 3
    before = fold_numbers(labels[:200], 5, keys[:200])
    for count in (201, 202, 203):
        after = fold_numbers(labels[:count], 5, keys[:count])[:200]
        moved = (after != before).nonzero().flatten()
        assert labels[moved].bincount(minlength=3).max() <= 4
        assert ((after - before).abs() <= 1).all()


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"p\d+", ["p1", "p1", "p23"]),
        (r"(p\d+)/(a|b)?", ["p1|a", "p1|", "p23|"]),
        (r"^[^/]+", ["p1", "p1", "p23"]),
    ],
)
def test_a_group_is_what_the_expression_matches(pattern, groups):
    assert groups_by_path(["p1/a.png", "p1/c.png", "p23/c.png"], pattern) == groups


def test_a_path_that_does_not_match_is_refused():
    with pytest.raises(UserError, match=r"data.group=p.d\+ does not match 1 path of 2: x.png"):
        groups_by_path(["p1.png", "x.png"], r"p\d+")


def test_one_group_cannot_be_divided():
    with pytest.raises(UserError, match="all images are in one group, p1"):
        units_of(images_of_patients(["p1"]), Path(), "test")


def test_how_near_the_groups_came_is_said(caplog):
    caplog.set_level(logging.INFO)
    labels, groups = torch.tensor([0, 0, 0, 1, 1, 1, 1]), numbered(list("aabcccd"))
    split = Split(torch.zeros(7, 1, 2, 2, dtype=torch.uint8), labels, groups=groups)
    units = units_of(split, Path(), "test")
    report_division("test", 0.25, split, units, torch.tensor([2, 6]))
    assert caplog.messages == [
        "test images: 2 of 4 groups, 28.6% of the images (asked for: 25.0%), of a class 25.0% to 33.3%"
    ]
