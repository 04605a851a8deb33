"""The numbers of a look at a data set, as check.json has them, and in sentences what is wrong, the worst first."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reslab.data.splits import SPLIT_WORDS
from reslab.data_checks.copies import Copies, Positions
from reslab.data_checks.facts import Seen
from reslab.data_checks.images import Images
from reslab.text import counted

Result = dict[str, Any]

LISTED_IMAGES = 100  # of a group; the number of all of them is beside it
MOST_IMBALANCE = 10  # the largest class has so many times the images of the smallest: training favours it clearly
SIGNS = {"identical": "=", "near": "\N{ALMOST EQUAL TO}"}


def result_of(images: Images, seen: Seen, copies: Copies, with_near: bool, warnings: Sequence[str]) -> Result:
    """Return everything that was found, as values of JSON.

    Args:
        images: the images.
        seen: what is known of each.
        copies: which of them are copies.
        with_near: whether near duplicates were looked for.
        warnings: what the data set has said while it was read.
    """
    result: Result = {
        "data": images.data.name,
        "root": str(images.data.root) if images.are_files else None,
        "seed": images.data.seed,
        "images": len(images),
        "splits": split_counts(images),
        "imbalance": imbalance(images),
        "sizes": sizes(seen.facts[seen.facts["is_readable"]]),
        "kinds": kinds(seen.facts[seen.facts["is_readable"]], images.are_files),
        "unreadable": [
            {**describe(images, position), "reason": reason} for position, reason in sorted(seen.unreadable.items())
        ],
        "left_out": list(warnings),
        "near_duplicates_looked_for": with_near,
        "leaks": [
            {"split": images.names[leak.split], "also_in": images.names[leak.earlier]}
            | {"identical": leak.identical, "near": leak.near}
            for leak in copies.leaks
        ],
        "labels": {"identical": copies.other_labels, "near": copies.near_other_labels},
        "extra": dict(zip(images.names, copies.extra, strict=False)),
        **{
            name: [group_of(images, seen.facts, group) for group in by_importance(images, groups)]
            for name, groups in {"identical": copies.identical, "near": copies.near}.items()
        },
        **statistics(images, seen),
    }
    return {"problems": problems(result), **result}


# numbers


def split_counts(images: Images) -> Result:
    """Return the number of images of each split, and of each class in it."""
    counts: Result = {}
    for number, name in enumerate(images.names):
        of_class = np.bincount(images.labels[images.splits == number], minlength=len(images.data.classes))
        classes = dict(zip(images.data.classes, of_class.tolist(), strict=True))
        counts[name] = {"images": int(of_class.sum()), "classes": classes}
    return counts


def imbalance(images: Images) -> Result:
    """Return the classes with the most and the fewest training images, and the ratio of the two."""
    counts = split_counts(images)["train"]["classes"]
    smallest, largest = min(counts, key=counts.get), max(counts, key=counts.get)
    ratio = counts[largest] / counts[smallest] if counts[smallest] else None
    return {
        "largest": {"class": largest, "images": counts[largest]},
        "smallest": {"class": smallest, "images": counts[smallest]},
        "ratio": ratio,
    }


def sizes(facts: NDArray[Any]) -> Result:
    """Return the smallest, the median and the largest of the widths, heights, shapes and sizes of files."""
    values = {
        "width": facts["width"],
        "height": facts["height"],
        "aspect": facts["width"] / facts["height"],
        "bytes": facts["bytes"][facts["bytes"] > 0],
    }
    return {
        name: {"min": value.min().item(), "median": float(np.median(value)), "max": value.max().item()}
        for name, value in values.items()
        if len(value)
    }


def kinds(facts: NDArray[Any], are_files: bool) -> Result:
    """Return how many images have each format and mode of Pillow, and how many some properties."""
    formats = Counter(name.decode() for name in facts["format"].tolist())
    return {
        "formats": dict(formats.most_common()) if are_files else {},
        "modes": dict(Counter(name.decode() for name in facts["mode"].tolist()).most_common()),
        "grey": int(np.isin(facts["mode"], [b"1", b"L", b"LA", b"I", b"I;16", b"I;16B"]).sum()),
        "transparent": int(facts["is_transparent"].sum()),
        "16_bits": int(facts["has_16_bits"].sum()),
        "turned_by_exif": int(facts["is_turned"].sum()),
    }


def statistics(images: Images, seen: Seen) -> Result:
    """Return the mean and the standard deviation of each channel of the training images, where each counts the same."""
    used = int((seen.facts["is_readable"] & (images.splits == 0)).sum())
    if not used:
        return {"mean": None, "std": None}
    levels, shares = np.arange(256) / 255, seen.levels / used
    mean = shares @ levels
    std = np.sqrt(np.maximum(shares @ levels**2 - mean**2, 0))
    return {"mean": mean.tolist(), "std": std.tolist()}


# images and groups of them


def describe(images: Images, position: int) -> dict[str, str]:
    split, label = images.names[images.splits[position]], images.data.classes[images.labels[position]]
    return {"image": images.name(position), "split": split, "class": label}


def by_importance(images: Images, groups: Sequence[Positions]) -> list[Positions]:
    """Return groups across splits first, then those of several classes, then the others, the largest of each first.

    The images of a group are in the order in which some of them stand for all: see `in_turn`.
    """

    def rank(group: Positions) -> tuple[int, int, int]:
        return -len(set(images.splits[group])), -len(set(images.labels[group])), -len(group)

    return [in_turn(images, group) for group in sorted(groups, key=rank)]


def in_turn(images: Images, group: Positions) -> Positions:
    """Return the images of a group, the first of each split and class, then the second of each, and so on."""
    kinds = images.splits[group].astype(np.int64) * len(images.data.classes) + images.labels[group]
    _, starts, counts = np.unique(np.sort(kinds), return_index=True, return_counts=True)
    places = np.empty(len(group), np.int64)  # of each image among those of its kind
    places[np.argsort(kinds, kind="stable")] = np.arange(len(group)) - np.repeat(starts, counts)
    return group[np.lexsort((kinds, places))]


def group_of(images: Images, facts: NDArray[Any], group: Positions) -> Result:
    listed = [describe(images, int(position)) for position in group[:LISTED_IMAGES]]
    return {
        "count": len(group),
        "different_files": len(np.unique(facts["file"][group])) if images.are_files else None,
        "splits": [images.names[number] for number in sorted(set(images.splits[group].tolist()))],
        "classes": [images.data.classes[label] for label in sorted(set(images.labels[group].tolist()))],
        "images": listed,
    }


# sentences


def problems(result: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return what is wrong in sentences, each with its kind, the worst first."""
    found = [*leak_sentences(result), *label_sentences(result), *file_sentences(result), *copy_sentences(result)]
    smallest, largest, ratio = (result["imbalance"][name] for name in ("smallest", "largest", "ratio"))
    if ratio is None or ratio >= MOST_IMBALANCE:
        counts = f"{largest['class']} has {largest['images']:,} training images, {smallest['class']}"
        found.append(("imbalance", f"{counts} {smallest['images']:,}"))
    return [{"kind": kind, "text": text} for kind, text in found]


def leak_sentences(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for leak in result["leaks"]:
        total = result["splits"][leak["split"]]["images"]
        earlier, pair = SPLIT_WORDS[leak["also_in"]], (leak["also_in"], leak["split"])
        for kind, what in {"identical": "identical to", "near": "nearly identical to"}.items():
            if count := leak[kind]:
                of = f"{count:,} of the {total:,} {SPLIT_WORDS[leak['split']]} images {are(count)}"
                yield "leak", f"{of} {what} {earlier} images{example_of(result, kind, pair)}"


def label_sentences(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for kind, words in {"identical": "an identical image", "near": "a near duplicate"}.items():
        if count := result["labels"][kind]:
            images = f"{counted(count, 'image')} {'has' if count == 1 else 'have'}"
            yield "labels", f"{images} another class than {words}{example_of_classes(result, kind)}"


def file_sentences(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if broken := result["unreadable"]:
        more = f" and {len(broken) - 1:,} more" if len(broken) > 1 else ""
        example = f"{broken[0]['image']} ({broken[0]['reason']}){more}"
        yield "broken", f"{len(broken):,} of the {result['images']:,} images cannot be read: {example}"
    yield from (("note", line) for line in result["left_out"])


def copy_sentences(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for split, count in result["extra"].items():
        if count:
            images = f"{counted(count, f'{SPLIT_WORDS[split]} image')} {are(count)}"
            yield "copies", f"{images} identical to another one{example_of(result, 'identical', (split, split))}"
    if near := [group for group in result["near"] if len(group["splits"]) == 1]:
        images = f"{sum(group['count'] for group in near):,} images in {counted(len(near), 'group')}"
        example = example_of({"near": near}, "near", (near[0]["splits"][0],) * 2)
        yield "copies", f"near duplicates within one split: {images}{example}"


def are(count: int) -> str:
    return "is" if count == 1 else "are"


def example_of(result: Mapping[str, Any], kind: str, splits: tuple[str, str]) -> str:
    """Return an image of each of two splits that are in one group, or two of the same split."""
    for group in result[kind]:
        first, second = ([each["image"] for each in group["images"] if each["split"] == split] for split in splits)
        names = [*first[:1], *(name for name in second if name not in first[:1])]
        if first and len(names) > 1:
            return example(kind, names)
    return ""


def example_of_classes(result: Mapping[str, Any], kind: str) -> str:
    """Return an image of each of two classes that are in one group."""
    groups = ({each["class"]: each["image"] for each in reversed(group["images"])} for group in result[kind])
    return next((example(kind, [*of_class.values()][::-1]) for of_class in groups if len(of_class) > 1), "")


def example(kind: str, names: Sequence[str]) -> str:
    return f": {names[0]} {SIGNS[kind]} {names[1]}"


# facts


def fact_lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the facts by name, as lines."""
    for name, spread in result["sizes"].items():
        unit = {"bytes": "file size"}.get(name, name)
        low, middle, high = (size_text(name, spread[each]) for each in ("min", "median", "max"))
        yield unit, low if low == high else f"{low} to {high}, median {middle}"
    kinds = result["kinds"]
    for name in ("formats", "modes"):
        if kinds[name]:
            yield name, ", ".join(f"{count:,} {kind}" for kind, count in kinds[name].items())
    named = {"grey": "grey", "transparent": "transparent", "16_bits": "of 16 bits", "turned_by_exif": "turned by EXIF"}
    if some := [f"{kinds[name]:,} {words}" for name, words in named.items() if kinds[name]]:
        yield "among them", ", ".join(some)
    if result["mean"]:
        yield "training", f"data.mean={short_list(result['mean'])} data.std={short_list(result['std'])}"
    if not result["near_duplicates_looked_for"]:
        yield "near", "near duplicates were not looked for: near=true does"


def size_text(name: str, value: float) -> str:
    if name == "aspect":
        return f"{value:.2f}"
    if name == "bytes":
        return f"{value / 1000:,.1f} kB" if value < 1e6 else f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f}"


def short_list(values: list[float]) -> str:
    """Return numbers as the command line takes them."""
    return f"[{','.join(f'{value:.4f}' for value in values)}]"
