"""Groups: images that belong together, e.g. those of one patient or video, are in one split."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from reslab.data.images import first_few
from reslab.data.splits import Groups, Split, file_keys, hashes
from reslab.errors import UserError
from reslab.text import counted

log = logging.getLogger(__name__)


class Units(NamedTuple):
    """What a split takes as a whole: groups, or single images.

    Attributes:
        labels: int64 (N,), the class of each; of a group the most frequent one.
        keys: int64 (N,), those of `stratified_split`.
        of_images: int64, the number of the unit of each image in the split; None: each image is its own.
    """

    labels: Tensor
    keys: Tensor | None
    of_images: Tensor | None = None

    def images(self, chosen: Tensor) -> Tensor:
        """Return the positions of the images of some units, ascending."""
        return chosen if self.of_images is None else torch.isin(self.of_images, chosen).nonzero().flatten()


def units_of(split: Split, root: Path, purpose: str, seed: int = 0) -> Units:
    """Return what is to be divided. The key of a group is the hash of its name, that of a file of its path."""
    labels = split.labels[split.indices]
    if split.groups is None:
        return Units(labels, file_keys(split, root, purpose, seed))
    numbers, of_images = split.groups.of_images[split.indices].unique(return_inverse=True)
    names = [split.groups.names[number].encode("utf-8", "surrogateescape") for number in numbers.tolist()]
    if len(names) < 2:
        raise UserError(f"all images are in one group, {split.groups.names[0]}: data.group must make at least two")
    return Units(strata_of(labels, of_images), hashes(names, purpose, seed), of_images)


def strata_of(labels: Tensor, groups: Tensor) -> Tensor:
    """Return the class of each group that most of its images have, int64 (number of groups,).

    Groups that are alone with theirs are one stratum together, unless their class is in no other group.

    Args:
        labels: int64 (N,), of the images.
        groups: int64 (N,), the number of the group of each image, from 0 without a gap.
    """
    classes = int(labels.max()) + 1
    pairs, counts = (groups * classes + labels).unique(return_counts=True)
    by_count = counts.argsort(descending=True, stable=True)
    order = by_count[(pairs[by_count] // classes).argsort(stable=True)]  # by group, and then by count
    first = torch.cat([torch.tensor([True]), (pairs[order] // classes).diff() > 0])
    strata = pairs[order[first]] % classes
    is_alone = strata.bincount(minlength=classes)[strata] == 1
    is_elsewhere = (pairs % classes).bincount(minlength=classes)[strata] > 1
    return strata.masked_fill(is_alone & is_elsewhere, classes)


def groups_by_path(names: Sequence[str], pattern: str) -> list[str]:
    """Return the group of each path: what the groups of a regular expression match, or else all that it matches."""
    expression = re.compile(pattern)
    found = [expression.search(name) for name in names]
    if unmatched := [name for name, match in zip(names, found, strict=True) if match is None]:
        raise UserError(
            f"data.group={pattern} does not match {counted(len(unmatched), 'path')} of {len(names):,}: "
            f"{first_few(unmatched)}"
        )
    return ["|".join(part or "" for part in match.groups()) or match.group() for match in found if match]


def numbered(names: Sequence[str]) -> Groups:
    """Return the groups of some images, given the name of the group of each."""
    number_of = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Groups(list(number_of), torch.tensor([number_of[name] for name in names]))


def report_division(what: str, fraction: float, split: Split, units: Units, chosen: Tensor) -> None:
    """Say in the log how near the images of whole groups came to a fraction of each class.

    Args:
        what: the images that were chosen.
        fraction: the one that was asked for.
        split: the images that were divided.
        units: their groups.
        chosen: the positions of the images that were chosen.
    """
    if units.of_images is None or not fraction:
        return
    labels = split.labels[split.indices]
    in_class = labels.bincount()
    shares = (labels[chosen].bincount(minlength=len(in_class)) / in_class)[in_class > 0]
    log.info(
        "%s images: %d of %s, %.1f%% of the images (asked for: %.1f%%), of a class %.1f%% to %.1f%%",
        what, len(units.of_images[chosen].unique()), counted(len(units.labels), "group"),
        100 * len(chosen) / len(labels), 100 * fraction, 100 * float(shares.min()), 100 * float(shares.max()),
    )  # fmt: skip


def names_of_groups(split: Split) -> set[str]:
    if split.groups is None:
        return set()
    return {split.groups.names[number] for number in split.groups.of_images[split.indices].unique().tolist()}


def report_shared_groups(first: str, second: str, shared: set[str]) -> None:
    if shared:
        log.warning(
            "%s and %s images share %s: %s", first, second, counted(len(shared), "group"), first_few(sorted(shared))
        )
