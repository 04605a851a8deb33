"""Images that are in a data set more than once: identical ones and near duplicates, within the splits and across."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reslab.data_checks.near import near_pairs

Positions = NDArray[np.int64]


class Leak(NamedTuple):
    """How many images of a split are in an earlier split too.

    Attributes:
        split, earlier: the numbers of the splits.
        identical: images with the same pixels as an image of the earlier split.
        near: other images that are a near duplicate of one.
    """

    split: int
    earlier: int
    identical: int
    near: int


class Copies(NamedTuple):
    """Which images are copies of others.

    Attributes:
        leaks: for each two splits that share images.
        identical: groups of images with the same pixels.
        near: groups of near duplicates, with the images that are identical to one of them: each is near to another one
            of its group.
        other_labels: how many images have another label than an identical image.
        near_other_labels: how many others have another label than a near duplicate.
        extra: how many images of each split are identical to an earlier image of the same split.
    """

    leaks: list[Leak]
    identical: list[Positions]
    near: list[Positions]
    other_labels: int
    near_other_labels: int
    extra: list[int]


def find_copies(facts: NDArray[Any], splits: Positions, labels: Positions, with_near: bool) -> Copies:
    """Find the copies among the images that can be read.

    Args:
        facts: FACTS (N,).
        splits: int64 (N,), the number of the split of each image.
        labels: int64 (N,).
        with_near: whether to look for near duplicates.
    """
    known = np.flatnonzero(facts["is_readable"])
    facts, splits, labels = facts[known], splits[known], labels[known]
    contents = np.unique(facts["pixels"], return_inverse=True)[1]
    present = presence(contents, splits)
    looks, near = looks_of(facts["near"], contents, with_near)
    beside = spread(presence(looks, splits), near, np.logical_or)
    lowest, highest = label_range(contents, labels)
    differ = (lowest < highest)[contents]
    lowest, highest = label_range(looks, labels)
    near_differ = (spread(lowest, near, np.minimum) < spread(highest, near, np.maximum))[looks]
    return Copies(
        leaks=find_leaks(present[contents], beside[looks], splits),
        identical=[known[group] for group in groups_of(contents)],
        near=[known[group] for group in near_groups(contents, joined(near, len(lowest))[looks])],
        other_labels=int(differ.sum()),
        near_other_labels=int((near_differ & ~differ).sum()),
        extra=[int((splits == split).sum() - present[:, split].sum()) for split in range(present.shape[1])],
    )


def looks_of(hashes: NDArray[np.uint64], contents: Positions, with_near: bool) -> tuple[Positions, Positions]:
    """Return the number of the look of each image, and the pairs of looks that are near.

    Images with one perceptual hash have one look, so that a thousand equal frames of a video are no million pairs. Of
    images without a hash, only identical ones have one look.
    """
    if not with_near:
        return contents, np.empty((0, 2), np.int64)
    distinct, looks = np.unique(hashes, return_inverse=True)
    flat = hashes == 0
    looks[flat] = len(distinct) + contents[flat]
    numbers, looks = np.unique(looks, return_inverse=True)
    of_look = np.zeros(len(numbers), np.uint64)
    of_look[looks] = hashes
    return looks, near_pairs(of_look)


def presence(numbers: Positions, splits: Positions) -> NDArray[np.bool_]:
    """Return which splits have an image of each number, bool (numbers, splits)."""
    present = np.zeros((int(numbers.max(initial=-1)) + 1, int(splits.max(initial=0)) + 1), bool)
    present[numbers, splits] = True
    return present


def label_range(numbers: Positions, labels: Positions) -> tuple[Positions, Positions]:
    """Return the lowest and the highest label among the images of each number."""
    lowest = np.full(int(numbers.max(initial=-1)) + 1, labels.max(initial=0))
    highest = np.zeros_like(lowest)
    np.minimum.at(lowest, numbers, labels)
    np.maximum.at(highest, numbers, labels)
    return lowest, highest


def spread(values: NDArray[Any], pairs: Positions, combine: np.ufunc) -> NDArray[Any]:
    """Return the values of numbers combined with those of the numbers with which they are a pair."""
    combined = values.copy()
    for here, there in (pairs.T, pairs.T[::-1]):
        combine.at(combined, here, values[there])
    return combined


def find_leaks(present: NDArray[np.bool_], beside: NDArray[np.bool_], splits: Positions) -> list[Leak]:
    """Return the leaks, of the last split first.

    Args:
        present: bool (N, S), whether each split has an image with the same pixels.
        beside: bool (N, S), whether each split has an identical image or a near duplicate.
        splits: int64 (N,), the split of the image itself.
    """
    leaks = []
    for split in reversed(range(present.shape[1])):
        for earlier in range(split):
            identical = present[splits == split, earlier]
            near = beside[splits == split, earlier] & ~identical
            if identical.any() or near.any():
                leaks.append(Leak(split, earlier, int(identical.sum()), int(near.sum())))
    return leaks


def joined(pairs: Positions, count: int) -> Positions:
    """Return the number of the group of each of `count` numbers; those of a pair are in one group."""
    ones = np.ones(len(pairs), bool)
    return connected_components(coo_array((ones, pairs.T), shape=(count, count)), directed=False)[1].astype(np.int64)


def near_groups(contents: Positions, groups: Positions) -> list[Positions]:
    """Return the groups with images of several contents. Those of one content are identical."""
    return [group for group in groups_of(groups) if len(set(contents[group].tolist())) > 1]


def groups_of(numbers: Positions) -> Sequence[Positions]:
    """Return the positions of each number that comes more than once, in the order of their first positions."""
    order = np.argsort(numbers, kind="stable")
    bounds = np.flatnonzero(np.diff(numbers[order])) + 1
    groups = [group for group in np.split(order, bounds) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))
