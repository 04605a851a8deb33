"""The settings of a run that its result depends on, and in which of them runs differ."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import takewhile
from typing import Any

from reslab.configuration import CONF, has_prefix, shown
from reslab.run import COUNT_BATCHES, WITHOUT_EFFECT, canonical, identity, read_yaml

Settings = dict[str, Any]  # by dotted name

IGNORED = (*WITHOUT_EFFECT, "seed", "data.fold", "threads")  # the last three are told apart: see `Configuration`
# Options of all data sets that say on which images a run is tested. `data.root` is a setting of an image folder alone.
CHOOSE_IMAGES = ("root", "group", "folds")
PACKAGES = ("reslab", "torch", "lightning")  # of the classes in conf/, whose own names tell them apart
ABSENT = "-"  # shown where a configuration does not have a setting, e.g. the momentum of Adam


def comparable_settings(config: dict[str, Any]) -> Settings:
    """Return the settings that the result of a run depends on, without those that are null.

    `model.name` and `optimizer._target_` are called `model` and `optimizer`, and a class has its own name only. But a
    class of the user's own has its whole name, also beside the name of its model or data set. `data.root` is left out
    unless the data set is an image folder: only there does it choose the images. An option that is newer than the run
    has the value that does what the run did.
    """
    settings: Settings = {}
    options = identity(config)
    for name, value in options.items():
        group, _, option = name.rpartition(".")
        if option == "name" and group in config:
            settings[group] = value
        elif option == "_target_" and value.partition(".")[0] not in PACKAGES:
            settings[name if f"{group}.name" in options else group] = value
        elif option == "_target_":
            settings.setdefault(group, value.rpartition(".")[2])
        elif option != "_partial_" and value is not None:
            settings[name] = value
    ignores_root = settings.get("data") != "imagefolder"
    return {name: value for name, value in settings.items() if not is_ignored(name, ignores_root)}


@cache
def is_ignored(name: str, ignores_root: bool) -> bool:
    return has_prefix(name, (*IGNORED, "data.root") if ignores_root else IGNORED)


def data_set(settings: Settings) -> str:
    """Return which images a run was tested on: the data set and its own options, e.g. `imagefolder root=/photos`.

    The options that all data sets have say how images are used, not which there are, apart from `CHOOSE_IMAGES`.
    """
    own = {name for name in settings if name.startswith("data.") and not has_prefix(name, shared_data_options())}
    if settings.get("data.folds"):
        own.discard("data.test_fraction")  # the folds say which images are tested
    options = (f"{name.removeprefix('data.')}={shown(settings[name])}" for name in sorted(own))
    return " ".join([str(settings.get("data", "no data set")), *options])


@cache
def shared_data_options() -> tuple[str, ...]:
    """Return the options of every data set that do not choose images."""
    files = (CONF / "data" / name for name in ("_data.yaml", "_class_folders.yaml"))
    return tuple(f"data.{option}" for file in files for option in read_yaml(file) if option not in CHOOSE_IMAGES)


def requested_text(requested: Sequence[Mapping[str, Any]]) -> str:
    """Return how long a run was asked to train that was resumed with another length.

    Example:
        >>> requested_text([{"step": 0, "trainer.max_epochs": 2}, {"step": 40, "trainer.max_epochs": 4}])
        'max_epochs=2, from step 40 max_epochs=4'
    """
    parts = []
    for each in requested:
        limits = {name.rpartition(".")[2]: value for name, value in each.items() if name != "step"}
        text = " ".join(f"{name}={value}" for name, value in limits.items() if value not in (None, -1))
        parts.append(f"from step {each['step']} {text}" if each["step"] else text)
    return ", ".join(parts)


def differing_settings(settings: Sequence[Settings]) -> list[str]:
    """Return the names of the settings that are not the same everywhere, those that tell most first.

    The model is the first one. The others follow by their number of different values, and with equal numbers a setting
    that few configurations change is later. A setting that another choice determines is left out: `model.layers` where
    every model has its own layers.
    """
    different = {json.dumps(each): each for each in settings}  # most runs of a sweep differ only in their seeds
    canonicals = [{name: canonical(value, name) for name, value in each.items()} for each in different.values()]
    names = dict.fromkeys(name for each in canonicals for name in each)
    differing = [name for name in names if len({each.get(name) for each in canonicals}) > 1]

    def is_determined_by(choice: str, name: str) -> bool:
        if not name.startswith(f"{choice}."):
            return False
        pairs = {(each.get(choice), each.get(name)) for each in canonicals}
        return len(pairs) == len({chosen for chosen, _ in pairs})

    def order(name: str) -> tuple[bool, int, int]:
        counts = Counter(each.get(name) for each in canonicals)
        return name != "model", -len(counts), max(counts.values())

    own = [name for name in differing if not any(is_determined_by(choice, name) for choice in differing)]
    return sorted(own, key=order)


def distinct_labels(settings: Sequence[Settings], names: Sequence[str]) -> list[str]:
    """Return short texts that distinguish some settings, e.g. `model=resnet8, lr=0.1`.

    Args:
        settings: those of one configuration each.
        names: the settings to name, without those that are the same for all.
    """
    differing = [name for name in names if len({setting_text(each, name) for each in settings}) > 1]
    columns = [
        [f"{short}={value}" for value in distinct_texts(settings, name)] for name, short in short_names(differing)
    ]
    rows = zip(*columns, strict=True) if columns else [()] * len(settings)
    return [", ".join(row) or str(each.get("model", "all runs")) for row, each in zip(rows, settings, strict=True)]


def short_names(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with its last part, or with the name itself where another name has the same last part."""
    ends = [name.rpartition(".")[2] for name in names]
    for name, end in zip(names, ends, strict=True):
        yield name, end if ends.count(end) == 1 else name


def distinct_texts(settings: Sequence[Settings], name: str) -> list[str]:
    """Return the values of one setting, paths without the folders that all of them are in."""
    texts = [rounded_text(each.get(name, ABSENT)) for each in settings]
    levels = zip(*(text.split("/")[:-1] for text in texts), strict=False)
    common = sum(len(level[0]) + 1 for level in takewhile(lambda level: len(set(level)) == 1, levels))
    return [f"…/{text[common:]}" for text in texts] if common else texts


def setting_text(settings: Mapping[str, Any], name: str) -> str:
    """Return a setting exactly as it is written on the command line."""
    return shown(settings.get(name, ABSENT))


def axis_value(settings: Mapping[str, Any], name: str) -> Any:
    """Return a setting for an axis: a number, or text where the same number can have two meanings."""
    return setting_text(settings, name) if name in COUNT_BATCHES else settings.get(name, ABSENT)


def rounded_text(value: Any) -> str:
    """Return a setting as people read it: a long decimal such as 0.00037960330329289693 has four digits."""
    text = shown(value)
    return f"{value:.4g}" if isinstance(value, float) and len(text) > 8 else text
