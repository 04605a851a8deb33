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
    _, first, contents = np.unique(facts["pixels"], return_index=True, return_inverse=True)
    pairs = near_pairs(facts["near"][first]) if with_near else np.empty((0, 2), np.int64)  # of contents
    present = np.zeros((len(first), int(splits.max(initial=0)) + 1), bool)  # which contents each split has
    present[contents, splits] = True
    beside = np.zeros_like(present)  # which splits have a near duplicate of each content
    np.logical_or.at(beside, pairs[:, 0], present[pairs[:, 1]])
    np.logical_or.at(beside, pairs[:, 1], present[pairs[:, 0]])
    differ, near_differ = images_of_other_labels(contents, labels, pairs)
    return Copies(
        leaks=find_leaks(present[contents], beside[contents], splits),
        identical=[known[group] for group in groups_of(contents)],
        near=[known[group] for group in groups_of(joined(pairs, len(first))[contents], touched(pairs, contents))],
        other_labels=int(differ.sum()),
        near_other_labels=int((near_differ & ~differ).sum()),
        extra=[
            int((splits == split).sum() - present[:, split].sum()) for split in range(present.shape[1])
        ],
    )  # fmt: skip


def find_leaks(present: NDArray[np.bool_], beside: NDArray[np.bool_], splits: Positions) -> list[Leak]:
    """Return the leaks, of the last split first.

    Args:
        present: bool (N, S), whether each split has an image with the same pixels.
        beside: bool (N, S), whether each split has a near duplicate.
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


def images_of_other_labels(
    contents: Positions, labels: Positions, pairs: Positions
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which images have another label than an image of the same content, and than a near duplicate."""
    lowest, highest = np.full((2, contents.max(initial=0) + 1), 0)
    lowest[:] = labels.max(initial=0)
    np.minimum.at(lowest, contents, labels)
    np.maximum.at(highest, contents, labels)
    disagree = (lowest[pairs[:, 0]] != lowest[pairs[:, 1]]) | (highest[pairs[:, 0]] != highest[pairs[:, 1]])
    beside = np.zeros(len(lowest), bool)
    beside[pairs[disagree].flatten()] = True
    return (lowest < highest)[contents], beside[contents]


def joined(pairs: Positions, count: int) -> Positions:
    """Return the number of the group of each content; those of a pair are in one group."""
    ones = np.ones(len(pairs), bool)
    return connected_components(coo_array((ones, pairs.T), shape=(count, count)), directed=False)[1].astype(np.int64)


def touched(pairs: Positions, contents: Positions) -> NDArray[np.bool_]:
    """Return which images have a near duplicate."""
    return np.isin(contents, pairs)


def groups_of(numbers: Positions, chosen: NDArray[np.bool_] | None = None) -> Sequence[Positions]:
    """Return the positions of each number that comes more than once, in the order of their first positions.

    Args:
        numbers: int64 (N,).
        chosen: bool (N,), the positions that count; None for all.
    """
    positions = np.arange(len(numbers)) if chosen is None else np.flatnonzero(chosen)
    order = positions[np.argsort(numbers[positions], kind="stable")]
    bounds = np.flatnonzero(np.diff(numbers[order])) + 1
    groups = [group for group in np.split(order, bounds) if len(group) > 1]
    return sorted(groups, key=lambda group: int(group[0]))
