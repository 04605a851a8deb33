"""Kinds of option values, and the check of a composed configuration against them.

Each package states in its own options.py of which kind each option is. An option that no package knows, e.g. one of a
user's own data set, takes values of the type of its default. Nothing here imports torch, so that a mistake is reported
at once.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reslab.configuration import CONF, as_list, composed, defaults, name_of, nodes, shown
from reslab.errors import UserError, one_line, option_line


@dataclass(frozen=True)
class Kind:
    """A set of values.

    Args:
        words: the set in words, to follow "must be".
        allows: whether a value belongs to the set.
        is_path: whether text in it is a path, so that the command line need not be in Hydra's grammar.
        problem: returns what is wrong with a value that does not belong to the set, if more is known than that.
    """

    words: str
    allows: Callable[[Any], bool]
    is_path: bool = False
    problem: Callable[[Any], str | None] = lambda value: None

    def __or__(self, other: "Kind") -> "Kind":
        return Kind(
            f"{self.words}, or be null" if other is NULL else f"{self.words} or {other.words}",
            lambda value: self.allows(value) or other.allows(value),
            self.is_path or other.is_path,
            lambda value: self.problem(value) or other.problem(value),
        )


def integer(least: int, most: int | None = None) -> Kind:
    """Integers from `least` to `most`; None stands for the largest one that fits into 32 bits."""
    words = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    limit = 2**31 - 1 if most is None else most
    return Kind(words, lambda value: type(value) is int and least <= value <= limit)


def number(within: str, fits: Callable[[float], bool]) -> Kind:
    """Finite numbers, integers included."""
    return Kind(
        f"a number {within}", lambda value: type(value) in (int, float) and math.isfinite(value) and fits(value)
    )


def between(least: float, most: float, *, or_zero: bool = False) -> Kind:
    """Numbers from `least` to `most`, and 0 where `or_zero` is set."""
    words = f"from {least:g} to {most:g}" + ", or 0" * or_zero
    return number(words, lambda value: least <= value <= most or (or_zero and value == 0))


def elsewhere(advice: str) -> Kind:
    """No value at all: the option would be ignored, and `advice` says what has its effect."""
    return Kind(f"left out: {advice}", lambda value: False)


def one_of(*values: Any) -> Kind:
    """The given values; 1 is not the same as true."""
    words = ", ".join(map(shown, values))
    return Kind(
        f"one of {words}" if len(values) > 1 else words,
        lambda given: any(type(given) is type(value) and given == value for value in values),
    )


def list_of(kind: Kind, *lengths: int) -> Kind:
    """Lists of one of these lengths, or of any length above 0 where none is given."""
    count = " or ".join(map(str, lengths)) or "one or more"

    def allows(value: Any) -> bool:
        fits = isinstance(value, list) and (len(value) in lengths if lengths else len(value) > 0)
        return fits and all(map(kind.allows, value))

    return Kind(f"a list of {count}, each {kind.words}", allows)


def one_or_list(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or a list of these", (kind | list_of(kind)).allows, kind.is_path)


NULL = one_of(None)
TRUE_OR_FALSE = Kind("true or false", lambda value: isinstance(value, bool))
NAME = Kind("text (a number in quotes: \"'7'\")", lambda value: isinstance(value, str) and value.strip() != "")
TEXT = NAME | one_of("")
PATH = Kind("a path (a number in quotes: \"'2024'\")", NAME.allows, is_path=True)
GROUP = Kind("a group of options", lambda value: isinstance(value, dict))
POSITIVE = number("above 0", lambda value: value > 0)
FRACTION = between(0, 1)
FRACTION_BELOW_1 = number("from 0 to less than 1", lambda value: 0 <= value < 1)
FRACTION_ABOVE_0 = number("above 0 and up to 1", lambda value: 0 < value <= 1)

MINUTES = between(1e-9, 1e7)  # less than any step takes, and 19 years
MAX_PROCESSORS = 1024  # more than any one machine has

LIKE_DEFAULT = {
    bool: TRUE_OR_FALSE,
    int: Kind("an integer", lambda value: type(value) is int),
    float: number("", lambda value: True),
    str: Kind("text", lambda value: isinstance(value, str)),
    list: Kind("a list", lambda value: isinstance(value, list)),
}
# Groups that no class receives as arguments. A class would refuse an unknown name itself.
CLOSED_GROUPS = ("", "checkpoint", "sweep", "benchmark", "data.augment")
# Options whose absence means something: their classes have defaults, or the run does without them.
REMOVABLE = ("callbacks.", "optimizer.", "scheduler.")
NOT_REMOVABLE = (
    "optimizer.lr",
    "optimizer._target_",
    "optimizer._partial_",
    "loss._target_",
    "loss._partial_",
    "scheduler._target_",
    "scheduler._partial_",
)


def check_option(name: str, value: Any, kind: Kind) -> None:
    """Raise UserError unless the value is of the kind."""
    if not kind.allows(value):
        problem = kind.problem(value)
        raise UserError(f"{name}={shown(value)} must be {kind.words}".rstrip() + (f": {problem}" if problem else ""))


def check_made(group: str, made: object, kind: type) -> None:
    """Raise UserError unless what a group's `_target_` has made is of a kind."""
    if not isinstance(made, kind):
        raise UserError(f"{group}._target_ must make an object of {kind.__name__}, not of {type(made).__name__}")


def require_package(name: str, option: str, extra: str) -> None:
    """Raise UserError unless the package that an option needs is installed."""
    if find_spec(name) is None:
        raise UserError(f"{option} needs the package {name}: pip install -e '.[{extra}]'")


def plain_value(value: Any) -> Any:
    """Return what the command line would give for a path, a tuple or one of Hydra's containers."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


@dataclass(frozen=True)
class Schema:
    """The options of one command.

    Args:
        config_name: the command's file in conf/, without its ending.
        kinds: the kind of each option, by the option's dotted name.
        check_together: raises UserError for values that are wrong only in combination.
        unnamed: the options that arguments without a name are for, in their order; the last one takes all others too
            if it may be a list.
    """

    config_name: str
    kinds: Mapping[str, Kind]
    check_together: Callable[[dict[str, Any]], None] = lambda values: None
    unnamed: tuple[str, ...] = ()

    def compose(
        self, given: Mapping[str, Any], choices: Sequence[str] = (), config_dir: str | Path | None = None
    ) -> DictConfig:
        """Return the configuration that the command would have with some options.

        Args:
            given: values of options by their dotted names.
            choices: files of conf/ or of the user's own folder, e.g. `data=mnist`.
            config_dir: the user's own folder of configuration.

        Raises:
            UserError: an option is wrong.
        """
        own = [] if config_dir is None else [f"--config-dir={config_dir}"]
        try:
            config = OmegaConf.create(composed(self.config_name, choices, own))
            for name, value in given.items():
                OmegaConf.update(config, name, plain_value(value))
            self.check(config)
            self.expand_home(config)
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(one_line(error, self.config_name, choices)) from error
        return config

    def expand_home(self, config: DictConfig) -> None:
        """Replace `~` by the home folder in the paths of a composed configuration: files in conf/ may have it too."""
        for name in (name for name, kind in self.kinds.items() if kind.is_path):
            value = OmegaConf.select(config, name)
            expanded = [os.path.expanduser(str(path)) for path in as_list(value)]
            if any(str(path).startswith("~") for path in as_list(value)):
                OmegaConf.update(config, name, expanded if isinstance(value, ListConfig) else expanded[0])

    def check(self, config: DictConfig, overrides: Sequence[str] = ()) -> None:
        """Raise UserError for the first option that is wrong, alone or in combination."""
        self.check_together(self.check_each(config, overrides))

    def check_each(self, config: DictConfig, overrides: Sequence[str] = ()) -> dict[str, Any]:
        """Raise UserError for the first option that is wrong by itself.

        Args:
            config: a composed configuration.
            overrides: the command line that it was composed with.

        Returns:
            Every option and every group by its dotted name.
        """
        values = dict(nodes(OmegaConf.to_container(config, resolve=True)))
        kinds = {group: GROUP for name in self.kinds for group in ancestors(name)} | dict(self.kinds)
        for name in kinds:
            if "." not in name and name not in values:
                raise UserError(f"{name} must be given{choices_of(name)}")
        for name, kind in kinds.items():
            if name in values:
                check_option(name, values[name], kind)
        self.check_own_options({name: value for name, value in values.items() if name not in kinds}, overrides)
        return values

    def check_own_options(self, values: dict[str, Any], overrides: Sequence[str]) -> None:
        """Check what no table knows, the options of a user's own classes, against the defaults in conf/."""
        given = {name_of(override).lstrip("+") for override in overrides}
        closed = {name for name in values if name.rpartition(".")[0] in CLOSED_GROUPS}
        if not closed and not given & values.keys():
            return
        known = defaults(self.config_name, overrides)
        for name in values:
            if name in known and (kind := LIKE_DEFAULT.get(type(known[name]))):
                check_option(name, values[name], kind)
            elif name in closed and name not in known:
                raise UserError(option_line(name, {*self.kinds, *known}))

    def check_removals(self, overrides: Sequence[str]) -> None:
        """Raise UserError for `~option`, unless the option may be absent."""
        for override in overrides:
            name = name_of(override.removeprefix("~"))
            known = any(option == name or option.startswith(f"{name}.") for option in self.kinds)
            needed = not name.startswith(REMOVABLE) or name in NOT_REMOVABLE
            if override.startswith("~") and ((known and needed) or name in NOT_REMOVABLE):
                raise UserError(f"~{name}: this option cannot be removed, only set")


def ancestors(name: str) -> list[str]:
    """Return `callbacks` and `callbacks.ema` for `callbacks.ema.decay`."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def choices_of(group: str) -> str:
    files = sorted((CONF / group).glob("[!_]*.yaml"))
    return f": {group}= takes {', '.join(file.stem for file in files)}" if files else ""
