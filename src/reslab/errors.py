"""What a user can get wrong, and how it becomes one line that says what is wrong and what to do."""

import difflib
import errno
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reslab.interruption import Interrupted

CONF = Path(__file__).parents[2] / "conf"


class UserError(Exception):
    """Shown as one line, exit status 2, without a traceback."""


class RunError(Exception):
    """What failed while running, as one line that says all there is to say, exit status 1."""


USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def is_mistake(error: BaseException) -> bool:
    """Of the user, who can mend it; Lightning is not imported to know its name for one."""
    return isinstance(error, USER_ERRORS) or type(error).__name__ == "MisconfigurationException"


def one_line(error: BaseException, config_name: str) -> str:
    """What is wrong and the nearest right name."""
    if isinstance(error, InstantiationException | OmegaConfBaseException) and (mistake := user_error_within(error)):
        error = mistake
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return (
            f"{group}={name} does not exist{suggest(name, error.options, 'all: ' + ', '.join(visible(error.options)))}"
        )
    if not isinstance(error, UserError | RunError) and (advice := disk_advice(error)):
        return advice
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and str(cause.full_key).startswith(
        ("hydra.launcher.", "hydra.sweeper.")
    ):
        group, _, option = str(cause.full_key).rpartition(".")
        return f"there is no option {option} of this {group}: {group.replace('.', '/')}=… chooses another"
    if isinstance(cause, OmegaConfBaseException) and "is not in struct" in str(cause):
        return unknown_option(str(cause.full_key), config_name)
    if isinstance(cause, OmegaConfBaseException):
        return f"{cause.full_key}: {str(cause).splitlines()[0]}" if cause.full_key else str(cause).splitlines()[0]
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):  # torch's, wherever the run was
        died = str(error).splitlines()[0].rstrip(". ")
        return (
            f"a process that reads images died ({died}): too little memory is the usual reason; "
            "data.num_workers=0 reads without them"
        )
    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    return text if is_mistake(error) or isinstance(error, RunError | Interrupted) else f"{type(error).__name__}: {text}"


def user_error_within(error: BaseException | None) -> UserError | None:
    """What Hydra's or OmegaConf's own error was raised for."""
    if error is None or isinstance(error, UserError):
        return error
    return user_error_within(error.__cause__ or error.__context__)


def disk_advice(error: BaseException | None) -> str | None:
    """If it began with the disk; torch and OmegaConf hide that behind errors of their own."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: free some space and go on with resume=<the run's folder>; its checkpoints are whole"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES):
        return f"{error.filename} cannot be written ({error.strerror}): hydra.run.dir=<folder> chooses another place"
    return disk_advice(error.__cause__ or error.__context__)


def suggest(name: str, known: Sequence[str], otherwise: str) -> str:
    close = difflib.get_close_matches(name, visible(known), n=3)
    return f": did you mean {' or '.join(close)}?" if close else f"; {otherwise}"


def visible(options: Sequence[str]) -> list[str]:
    return sorted(option for option in options if not option.startswith("_"))


def unknown_option(key: str, config_name: str) -> str:
    """Compares with the options that the command line's choices (model=…, data=…) compose to."""
    arguments = [argument for argument in sys.argv[1:] if re.match(r"[\w/]+=[\w/]+$", argument)]
    choices = [argument for argument in arguments if (CONF / argument.split("=")[0]).is_dir()]
    running, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = hydra.compose(config_name, overrides=choices)
    finally:
        GlobalHydra.instance().hydra = running  # a sweep has jobs to come
    known = dotted_keys(OmegaConf.to_container(config))
    if key in known:
        return f"{key} is needed: it can be set, not removed"
    return f"there is no option {key}{suggest(key, known, '--cfg job shows all options')}"


def dotted_keys(node: Any) -> list[str]:
    return [name for name, _ in nodes(node)]


def nodes(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every option and group of options of a configuration, by its dotted name."""
    for name, value in node.items() if isinstance(node, dict) else ():
        yield prefix + name, value
        yield from nodes(value, f"{prefix}{name}.")
