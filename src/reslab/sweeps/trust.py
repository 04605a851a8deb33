"""What the folder of a run or a sweep may set on the command line that continues or repeats it.

The folder may come from a stranger. Its saved overrides are therefore data: they choose files of conf/ and set options
that conf/ has, to plain values. Whatever else Hydra's grammar allows could run code or read secrets.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, OverrideType, QuotedString

from reslab.configuration import CHOICE, CONF, has_prefix, is_group, name_of, nodes, own_flags, own_folders, parsed
from reslab.errors import UserError
from reslab.machine import command
from reslab.run import SETTINGS_ERRORS, Run, read_configuration
from reslab.sweeps.folder import Sweep
from reslab.sweeps.options import PRUNING, SEARCH
from reslab.training.options import IGNORED, TRAINING_SCHEMA

# What says where a run is. The folder that the user names decides, so these saved overrides do not count. But `outputs`
# does: MLflow's database is there.
PLACES = ("resume", "trust", "from", "folder", "hydra.run.dir", "hydra.sweep.dir", "hydra.output_subdir")
WORD = r"[\w.,:+&|-]*"  # text that is no path and no command
# Saved options of Hydra that a sweep may have, besides those of conf/hydra/launcher, with the texts that they may be.
OF_A_SWEEP = {
    "hydra.mode": "MULTIRUN",
    "hydra.sweep.subdir": r"\$\{hydra\.job\.num\}([\w.-]|\$\{hydra\.job\.(num|override_dirname)\})*",
    "hydra.launcher.address": "local|auto",  # Ray runs what the head of a cluster sends
}
ADDED_TO_A_LAUNCHER = tuple(f"hydra.launcher.slurm_{name}" for name in ("constraint", "account", "qos"))


def refuse_untrusted(
    overrides: Iterable[str], source: str, arguments: Sequence[str] = (), in_sweep: bool = False
) -> None:
    """Raise UserError for the first saved override that may do more than set an option of conf/.

    Args:
        overrides: the saved overrides that the user has not given too.
        source: the argument that names their folder, e.g. `resume=outputs/…`, for messages.
        arguments: what the user has given; it may name the user's own folder of configuration.
        in_sweep: whether they are those of a sweep.
    """
    folders = [CONF, *own_folders([*sys.argv[1:], *arguments])]
    for text in overrides:
        override = parsed_option(text)
        if override is None or not is_allowed(override, folders, in_sweep):
            raise UserError(
                f"{source} would set {text}, which is refused because whoever wrote the folder could run code with it: "
                "if you trust the folder, give that option too, or trust=true"
            )


def saved_overrides(run: Run) -> list[str]:
    """Return what a run was started with, but for where it was.

    A search gives its own jobs what opens its database. A run that is resumed or repeated by itself is in no search.
    """
    return [override for override in run.overrides if not has_prefix(name_of(override), (*PLACES, PRUNING))]


def saved_arguments(sweep: Sweep) -> list[str]:
    """Return what a sweep was started with, but for where it was. Raise one of `SETTINGS_ERRORS`."""
    return [argument for argument in sweep.arguments if not has_prefix(name_of(argument), PLACES)]


def trust_of(folder: Path) -> list[str]:
    """Return `trust=true` if a run or a sweep of this process is resumed with it only, beside `own_flags`."""
    run, sweep = Run(folder), Sweep(folder)
    try:
        saved = saved_arguments(sweep) if sweep.exists else saved_overrides(run) if run.has_settings else []
        own = own_flags(same_command=True)
        refuse_untrusted([each for each in saved if each not in own], "", in_sweep=sweep.exists)
    except UserError:
        return ["trust=true"]
    except SETTINGS_ERRORS:  # the sweep cannot be resumed either way
        return []
    return []


def resuming_command(folder: Path, *options: str) -> str:
    """Return the command line that continues a run or a sweep of this process, with some options changed."""
    return command("train", *own_flags(same_command=True), f"resume={folder}", *options, *trust_of(folder))


def parsed_option(text: str) -> Override | None:
    """Return an override as Hydra reads it; None for a flag and for what its grammar refuses."""
    return parsed(text) if re.match(r"[~+\w]", text) else None


def is_allowed(override: Override, folders: Sequence[Path], in_sweep: bool) -> bool:
    """Return whether an override chooses a file of the folders or sets one of their options to a plain value."""
    name, values = override.key_or_group, [*scalars(override.value())]
    if override.package is not None or not re.fullmatch(r"\w+([./]\w+)*", name) or not all(map(is_plain, values)):
        return False
    if any(re.fullmatch("_.*_", part) for part in [*name.split("."), *keys(override.value())]):
        return False  # Hydra's own keys, e.g. _target_
    if "/" in name or is_group(name, folders):
        is_of_hydra = name.partition("/")[0] == "hydra"
        is_known = not is_of_hydra or (in_sweep and name in ("hydra/launcher", "hydra/sweeper"))
        return is_known and all(is_choice(name, value, folders) for value in values)
    if has_prefix(name, ("hydra",)):
        return in_sweep and is_option_of_a_sweep(override, name, values, folders)
    if has_prefix(name, ("logger",)) and not all(map(is_word, values)):
        return False  # it would write somewhere else
    known = options(tuple(folders))
    if name in known or (name in TRAINING_SCHEMA.kinds and name not in IGNORED):
        return True
    # A number that is added to a group can be an argument of its class, e.g. +optimizer.eps=1e-6.
    return (
        override.type != OverrideType.DEL
        and name.rpartition(".")[0] in known
        and not any(isinstance(value, str) for value in values)
    )


def is_option_of_a_sweep(override: Override, name: str, values: Sequence[Any], folders: Sequence[Path]) -> bool:
    """Return whether an override is an option of conf/hydra/sweeper or conf/hydra/launcher, without a path or a URL."""
    option = name.removeprefix("hydra.sweeper.")
    if has_prefix(option, ("params",)):  # the space of a search, one override for each
        inner = parsed_option(str(override.input_line).lstrip("+").removeprefix("hydra.sweeper.params."))
        return inner is not None and "." in option and is_allowed(inner, folders, in_sweep=True)
    if name in OF_A_SWEEP:
        return all(re.fullmatch(OF_A_SWEEP[name], str(value)) for value in values)
    known = {f"hydra.{each}" for each in options(tuple(folder / "hydra" for folder in folders))}
    known |= {*ADDED_TO_A_LAUNCHER, *(f"hydra.sweeper.{each}" for each in SEARCH), "hydra.sweeper.max_batch_size"}
    is_url = name == "hydra.sweeper.storage" and values != [None]
    return name in known and not is_url and all(map(is_word, values))


def is_word(value: Any) -> bool:
    return not isinstance(value, str) or re.fullmatch(WORD, value) is not None


def is_plain(value: Any) -> bool:
    """Return whether a value is no text that OmegaConf would compute. The value of another option is plain as well."""
    if not isinstance(value, str):
        return value is None or isinstance(value, bool | int | float)
    return not ("${" in value and ":" in value) and value != "???"


def is_choice(group: str, choice: Any, folders: Sequence[Path]) -> bool:
    """Return whether a choice of a group is the name of a file within the group's folders, and none elsewhere.

    A file that does not exist is left to Hydra, except for groups of Hydra, in which other packages may have choices.
    """
    is_name = isinstance(choice, str) and re.fullmatch(CHOICE, choice) is not None
    if not is_name or not group.startswith("hydra/"):
        return is_name
    return choice == "basic" or any(os.path.isfile(folder / group / f"{choice}.yaml") for folder in folders)


def scalars(value: Any) -> Iterator[Any]:
    """Yield the values of an override: of a sweep over choices, a list or a group each one, of a range none."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    if isinstance(value, list):
        for part in value:
            yield from scalars(part)
    elif isinstance(value, dict):
        yield from scalars([*value.values()])
    elif isinstance(value, QuotedString):
        yield value.text
    elif value is None or isinstance(value, str | bool | int | float):
        yield value


def keys(value: Any) -> Iterator[str]:
    """Yield the names in the groups of options within a value."""
    if isinstance(value, ChoiceSweep):
        value = value.list
    if isinstance(value, dict):
        yield from (str(getattr(key, "text", key)) for key in value)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(part)


@cache
def options(folders: tuple[Path, ...]) -> frozenset[str]:
    """Return the dotted names of all options and groups of options in the files of some folders of configuration."""
    known: set[str] = set()
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            content = file.read_bytes()
            group = file.parent.relative_to(folder).as_posix().replace("/", ".")
            prefix = "" if group == "." or b"@package _global_" in content else f"{group}."
            loaded = read_configuration(file, content)
            known |= {group} | {name for name, _ in nodes(loaded, prefix)} if isinstance(loaded, Mapping) else set()
    return frozenset(known)
