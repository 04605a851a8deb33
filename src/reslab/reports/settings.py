"""The settings of a run that its result depends on, and in which of them runs differ."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from reslab.configuration import has_prefix, shown
from reslab.run import identity

Settings = dict[str, Any]  # by dotted name

# The result of a run does not depend on these options, apart from the seed and the threads: see `Configuration`.
IGNORED = (
    "seed", "folder", "outputs", "resume", "objective", "test", "logger", "checkpoint", "data.num_workers",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.profiler",
    "trainer.detect_anomaly", "callbacks.tensorboard_report", "callbacks.last_checkpoint", "callbacks.pruning",
    "sweep", "threads",
)  # fmt: skip
ABSENT = "-"  # shown where a configuration does not have a setting, e.g. the momentum of Adam


def comparable_settings(config: dict[str, Any]) -> Settings:
    """Return the settings that the result of a run depends on, without those that are null.

    `model.name` and `optimizer._target_` are called `model` and `optimizer`. `data.root` is left out unless the data
    set is an image folder: only there does it choose the images. An option that is newer than the run has the value
    that does what the run did.
    """
    settings: Settings = {}
    for name, value in identity(config).items():
        group, _, option = name.rpartition(".")
        if option == "name" and group in config:
            settings[group] = value
        elif option == "_target_":
            settings.setdefault(group, value.rpartition(".")[2])
        elif option != "_partial_" and value is not None:
            settings[name] = value
    ignores_root = settings.get("data") != "imagefolder"
    return {name: value for name, value in settings.items() if not is_ignored(name, ignores_root)}


@cache
def is_ignored(name: str, ignores_root: bool) -> bool:
    return has_prefix(name, (*IGNORED, "data.root") if ignores_root else IGNORED)


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


def canonical(value: Any) -> str:
    """Return a text that is equal for equal settings. It is the same for 1 and 1.0, but not for 1 and true."""
    if value is None or isinstance(value, bool | str):
        return json.dumps(value)
    if isinstance(value, int | float):
        return json.dumps(float(value))
    return json.dumps(json.loads(json.dumps(value, default=str), parse_int=float), sort_keys=True)


def differing_settings(settings: Sequence[Settings]) -> list[str]:
    """Return the names of the settings that are not the same everywhere.

    A setting that another choice determines is left out: `model.layers` where every model has its own layers.
    """
    different = {json.dumps(each): each for each in settings}  # most runs of a sweep differ only in their seeds
    canonicals = [{name: canonical(value) for name, value in each.items()} for each in different.values()]
    names = dict.fromkeys(name for each in canonicals for name in each)
    differing = [name for name in names if len({each.get(name) for each in canonicals}) > 1]

    def is_determined_by(choice: str, name: str) -> bool:
        if not name.startswith(f"{choice}."):
            return False
        pairs = {(each.get(choice), each.get(name)) for each in canonicals}
        return len(pairs) == len({chosen for chosen, _ in pairs})

    return [name for name in differing if not any(is_determined_by(choice, name) for choice in differing)]


def setting_text(settings: Mapping[str, Any], name: str) -> str:
    """Return a setting exactly as it is written on the command line."""
    return shown(settings.get(name, ABSENT))


def rounded_text(value: Any) -> str:
    """Return a setting as people read it: a long decimal such as 0.00037960330329289693 has four digits."""
    text = shown(value)
    return f"{value:.4g}" if isinstance(value, float) and len(text) > 8 else text
