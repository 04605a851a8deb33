"""The places of conf/ and of the zoo, and small functions on composed configurations and command-line overrides.

Nothing here imports torch.
"""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import ListConfig, OmegaConf

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Override

PACKAGE = Path(__file__).parent
# An installed wheel carries conf/ and docs/zoo/ inside the package; a checkout has them next to src/.
CONF = next((path for path in (PACKAGE / "conf", PACKAGE.parents[1] / "conf") if path.is_dir()), PACKAGE / "conf")
ZOO = CONF.parent / ("zoo" if CONF.parent == PACKAGE else "docs/zoo")

CONFIG_DIR = ("--config-dir", "-cd")  # the flags of Hydra that name a folder of the user's own
SEARCHPATH, FILE = "hydra.searchpath", "file://"  # Hydra's option for more such folders, and how each begins there
A_RUN = "hydra.mode=RUN"  # makes a job of a sweep that an experiment asks for a single run
CHOICE = r"[\w+-][\w.+-]*(/[\w+-][\w.+-]*)*"  # the name of a file that an override may choose


# values


def nodes(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every option and every group of options of a configuration with its dotted name."""
    for name, value in node.items() if isinstance(node, dict) else ():
        yield f"{prefix}{name}", value
        yield from nodes(value, f"{prefix}{name}.")


def flatten(config: Any) -> dict[str, Any]:
    """Return every option by its dotted name, without the groups."""
    return {name: value for name, value in nodes(config) if not isinstance(value, dict)}


def to_dict(config: Any, *, resolve: bool = False) -> dict[str, Any]:
    """Return a group of OmegaConf as dictionaries and lists, with its interpolations as they are or resolved."""
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(name): value for name, value in container.items()}


def as_list(value: Any) -> list[Any]:
    """Return the values of an option that is one value or a list."""
    return list(value) if isinstance(value, list | ListConfig) else [value]


def shown(value: Any) -> str:
    """Return a value as it is written on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# overrides: `optimizer.lr=0.1`, `+trainer.max_time=…`, `~callbacks.ema`


def name_of(override: str) -> str:
    return override.partition("=")[0]


def has_prefix(name: str, groups: tuple[str, ...]) -> bool:
    """Return whether an option is one of `groups` or belongs to one of them; a leading plus does not count."""
    name = name.lstrip("+")
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def quoted(value: object) -> str:
    """Quote a value for Hydra's grammar, which does not accept the folder of a job, `0_seed=1`, without quotes.

    In that grammar a backslash stands for itself, except before a quote.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), str(value)) + "'"


def unquoted(value: str) -> str:
    """Undo `quoted`. The further processes of a run receive its command line in quotes."""
    if not re.fullmatch("'.*'|\".*\"", value, re.DOTALL):
        return value
    quote = value[0]
    return re.sub(rf"(\\*)({quote}|\Z)", lambda found: found[1][: len(found[1]) // 2] + found[2], value[1:-1])


@cache
def override_parser() -> "OverridesParser":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create()


def parsed(override: str) -> "Override | None":
    """Return an override as Hydra reads it; None if its grammar refuses it."""
    from hydra.errors import HydraException

    try:
        return override_parser().parse_override(override)
    except HydraException:
        return None


def task_overrides() -> list[str]:
    """Return the overrides of the job that Hydra runs, as they were given: an interpolation in one stays as it is."""
    from hydra.core.hydra_config import HydraConfig

    return [str(override) for override in OmegaConf.to_container(HydraConfig.get().overrides.task)]  # type: ignore[union-attr]


# defaults


def defaults(config_name: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Return every option and group with its value in conf/, for the choices (`model=…`) of a command line.

    The other overrides do not count. The user's own folders of configuration do.
    """
    return dict(nodes(composed(config_name, chosen(overrides), overrides)))


def without_plus(config_name: str, overrides: Sequence[str]) -> list[str]:
    """Return overrides without the `+` of options that conf/ has. Those of an older version may need it no longer."""
    if not any(re.match(r"\+[^+]", override) for override in overrides):
        return list(overrides)
    known = defaults(config_name, overrides)
    return [
        override.lstrip("+") if name_of(override).lstrip("+") in known and not override.startswith("++") else override
        for override in overrides
    ]


def chosen(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that choose a file of conf/ or of the user's own folders, e.g. `model=resnet18`."""
    folders = [CONF, *own_folders([*sys.argv[1:], *overrides])]
    simple = [each for each in overrides if re.fullmatch(rf"[\w/]+=({CHOICE}|\[{CHOICE}(, *{CHOICE})*\])", each)]
    return [choice for choice in simple if is_group(name_of(choice), folders)]


def is_group(name: str, folders: Sequence[Path]) -> bool:
    """Return whether a name is that of a group: a folder in one of the folders of configuration."""
    return any(os.path.isdir(each / name) for each in folders)


def composed(config_name: str, overrides: Sequence[str], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the configuration that overrides give, with its interpolations as they are.

    Args:
        config_name: the command's file in conf/, without its ending.
        overrides: what the configuration is composed with.
        arguments: a command line that may name the user's own folders of configuration, as that of this process may.
    """
    from hydra import compose

    own = own_folders([*sys.argv[1:], *arguments])
    with initialized_hydra():
        return to_dict(compose(config_name, overrides=[*overrides, *([searchpath_override(*own)] if own else [])]))


def own_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the user's own folders of configuration: those of `--config-dir` and of `hydra.searchpath`."""
    folders = []
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        name, _, value = argument.partition("=")
        if name in CONFIG_DIR:
            folders.append(os.path.expanduser(value or following))
        elif name == SEARCHPATH:
            places = filter(is_folder, searched_places(value))
            folders += [place_in_home(place).removeprefix(FILE) for place in places]
    return [Path(folder) for folder in dict.fromkeys(folders)]


def own_flags(*, same_command: bool = False) -> list[str]:
    """Return the arguments of this process that say where the user's own configuration is.

    Args:
        same_command: whether they are for a process with the same main file as this one, which `--config-path` and
            `--config-name` choose; other commands have their own.
    """
    from reslab.internals import hydra_arguments

    given = vars(hydra_arguments())
    names = ("config_path", "config_name", "config_dir") if same_command else ("config_dir",)
    flags = [f"--{name.replace('_', '-')}={given[name]}" for name in names if given[name]]
    return [*flags, *(each for each in given["overrides"] if name_of(each) == SEARCHPATH)]


def searched_places(searchpath: str) -> list[str]:
    """Return the places in the value of `hydra.searchpath=`; none where Hydra will refuse it."""
    override = parsed(f"x={searchpath}")
    return [str(place) for place in as_list(override.value() if override else []) if place is not None]


def is_folder(place: str) -> bool:
    """Return whether a place of `hydra.searchpath=` is a folder, which may begin with `file://`, or in a package."""
    return place.startswith(FILE) or "://" not in place


def place_in_home(place: str) -> str:
    """Expand `~` in a place of `hydra.searchpath=`."""
    is_marked = place.startswith(FILE)
    return FILE * is_marked + os.path.expanduser(place.removeprefix(FILE)) if is_folder(place) else place


def searchpath_override(*folders: str | Path) -> str:
    """Return the override by which Hydra finds the user's own folders of configuration."""
    return searchpath_of(f"{FILE}{Path(folder).absolute()}" for folder in folders)


def searchpath_of(places: Iterable[str]) -> str:
    return f"{SEARCHPATH}=[{','.join(map(quoted, places))}]"


def with_home(arguments: Sequence[str]) -> list[str]:
    """Expand `~` where arguments name the user's own folders of configuration, as in `--config-dir=~/mine`.

    Shells leave it as it is there, and Hydra would take it literally.
    """
    return [
        os.path.expanduser(argument) if before in CONFIG_DIR else argument_with_home(argument)
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]


def argument_with_home(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if equals and name in CONFIG_DIR:
        return f"{name}={os.path.expanduser(value)}"
    places = searched_places(value) if name == SEARCHPATH else []
    expanded = [*map(place_in_home, places)]
    return argument if expanded == places else searchpath_of(expanded)


@contextmanager
def initialized_hydra() -> Iterator[None]:
    """Initialize Hydra with conf/ until the end of the block.

    A Hydra that was running before is running again afterwards: a sweep needs its own for the jobs to come.
    """
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(str(CONF), job_name="train", version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = running
