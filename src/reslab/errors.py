"""The errors that a user sees, each as one line that says what is wrong and what to do."""

import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object
from omegaconf.errors import OmegaConfBaseException

from reslab.configuration import CONF, defaults, is_group, nodes
from reslab.other_tools import OF_A_SWEEP, meaning
from reslab.text import for_shell, printable


class UserError(Exception):
    """A mistake that the user can fix. The command prints one line without a traceback and exits with status 2."""


class RefusedCallError(UserError):
    """What a group's class says of its arguments; its own error is the cause."""

    def __init__(self, group: str, target: Any, error: Exception) -> None:
        super().__init__(f"{group}: {error}")
        self.group, self.target = group, target


class RunError(Exception):
    """A failure while running, described in one line. The command exits with status 1."""


class Interrupted(BaseException):
    """A signal that ended the run.

    It is not an Exception, because a sweep continues with its next job after an Exception.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # 130 for Ctrl-C, 143 for SIGTERM


class NothingLeftToDo(BaseException):
    """Ends a command, with exit status 0, whose run or sweep has ended already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


class Failed(BaseException):
    """Carries an error past Hydra, which would print lines of its own for an Exception."""

    def __init__(self, error: Exception) -> None:
        self.error = error


FULL_ERROR = "HYDRA_FULL_ERROR"  # the environment variable with which a user asks for tracebacks
SHARED_MEMORY = "/dev/shm"
ALL_OPTIONS = "--cfg job shows all options"
USER_ERRORS = (UserError, HydraException, OmegaConfBaseException)


def is_mistake(error: BaseException) -> bool:
    """Return whether the user can fix it.

    Lightning's error is recognised by its name, without importing Lightning, and Hydra's for a class that does not
    exist by its text.
    """
    if not isinstance(error, UserError) and memory_line(error):
        return False
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, AttributeError | NameError):
        return False  # the code of a class is wrong, whatever its options
    names_no_class = isinstance(error, ImportError) and str(error).startswith("Error loading '")
    return isinstance(error, USER_ERRORS) or type(error).__name__ == "MisconfigurationException" or names_no_class


def one_line(error: BaseException, config_name: str, overrides: Sequence[str] | None = None) -> str:
    """Describe an error in one printable line.

    Args:
        error: what was raised.
        config_name: the command's file in conf/, without its ending.
        overrides: the command line, with which a mistyped option is compared; None for this process's own.

    Returns:
        What is wrong, and where a name is wrong the nearest right ones.
    """
    return printable(description(error, config_name, sys.argv[1:] if overrides is None else overrides))


@contextmanager
def mistakes_as_user_errors() -> Iterator[None]:
    """Raise UserError for what else the user can fix, as the commands print it. Python programs then know one error."""
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or not is_mistake(error):
            raise
        raise UserError(one_line(error, "config", ())) from error


def line_before_job(error: BaseException, config_name: str, overrides: Sequence[str] | None = None) -> str:
    """Describe an error that came before the job began: see `one_line`. Until then, only its folder was made."""
    if isinstance(error, FileNotFoundError) and error.filename:  # e.g. below /proc, which accepts no folder
        reason = f"{error.filename} cannot be made ({error.strerror})"
        return printable(f"{reason}: hydra.run.dir=<folder> is another place")
    return one_line(error, config_name, overrides)


def description(error: BaseException, config_name: str, overrides: Sequence[str]) -> str:
    if isinstance(error, InstantiationException | OmegaConfBaseException) and (mistake := user_error_within(error)):
        error = mistake
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, name = group_and_choice(error.missing_cfg_file)
        return choice_line(group, name, error.options)
    if not isinstance(error, UserError | RunError) and (advice := disk_advice(error) or memory_line(error)):
        return advice
    # Hydra's errors have OmegaConf's as their cause. OmegaConf's own cause, if it has one, does not know the option.
    cause = error if isinstance(error, OmegaConfBaseException) and error.full_key else error.__cause__ or error
    if isinstance(cause, OmegaConfBaseException):
        return configuration_line(cause, config_name, overrides)
    if str(error).startswith("Caught ") and "in DataLoader worker process" in str(error):
        return with_own_options(worker_line(str(error)), config_name)
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker"):
        reported = str(error).splitlines()[0].rstrip(". ")
        died = (
            f"a process that reads images died ({reported}): too little memory is the usual reason; "
            "data.num_workers=0 reads without such processes"
        )
        return with_own_options(died, config_name)
    located = error.__cause__ if isinstance(error, InstantiationException) else error
    if isinstance(located, ImportError) and (path := re.match(r"Error loading '(.*?)':", str(located))):
        return location_line(path[1], located)
    if (refusal := refused_call(error)) is not None:
        return call_line(*refusal, config_name, overrides)
    if isinstance(error, ConfigCompositionException) and (line := composition_line(str(error), config_name, overrides)):
        return line
    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    return text if is_mistake(error) or isinstance(error, RunError | Interrupted) else f"{type(error).__name__}: {text}"


def with_own_options(line: str, config_name: str) -> str:
    """Name the options about the loading of images as a command calls them: one without a data set has no group."""
    known = defaults(config_name, ())
    return re.sub(r"data\.(\w+)", lambda found: found[1] if found[1] in known else found[0], line)


def refused_call(error: BaseException) -> tuple[str, Any, BaseException] | None:
    """Return the group whose class cannot be called, its class, and the error that the call raised."""
    if isinstance(error, RefusedCallError) and error.__cause__ is not None:
        return error.group, error.target, error.__cause__
    called = re.match("Error in call to target '([^']+)'", str(error))
    if not isinstance(error, InstantiationException) or called is None or error.__cause__ is None:
        return None
    group = re.search(r"^full_key: (\S+)$", str(error), re.MULTILINE)
    return group[1] if group else "", get_object(called[1]), error.__cause__


def location_line(path: str, error: ImportError) -> str:
    """Say why there is no class or function of a name.

    Args:
        path: the name, e.g. `package.module.Class`.
        error: Hydra's error, which says what it has found of the name; its cause is the error of Python.
    """
    begin, reason = f"Error locating target '{path}'", error.__cause__
    asked = re.search(r"Are you sure that '(.+)' is (?:importable from module|an attribute of) '(.+)'\?$", str(error))
    if asked and (isinstance(reason, AttributeError) or getattr(reason, "name", None) == f"{asked[2]}.{asked[1]}"):
        known = {name.lower(): name for name in visible(dir(get_object(asked[2])))}
        close = [known[name] for name in nearest(asked[1].lower(), [*known])]
        meant = f": did you mean {' or '.join(close)}?" if close else ""
        return f"{begin}: {asked[2]} has no {asked[1]}{meant}"
    if isinstance(reason, ModuleNotFoundError) and reason.name == path.partition(".")[0]:
        return f"{begin}: {reason!r}; PYTHONPATH must contain the folder of your own module"
    return f"{begin}: to import its module raises {reason!r}"


def call_line(group: str, target: Any, error: BaseException, config_name: str, overrides: Sequence[str]) -> str:
    """Say which option a class does not know or lacks, or else what the class says itself.

    An error in the body of the user's own class names arguments that are not options.
    """
    prefix, text = f"{group}." if group else "", "; ".join(str(error).split("\n"))
    if unexpected := re.search(r"got an unexpected keyword argument '(\w+)'", text):
        name = prefix + unexpected[1]
        known = defaults(config_name, overrides)
        if name in known or name in {override.partition("=")[0].lstrip("+") for override in overrides}:
            return option_line(name, known.keys() - {name})
    missing = re.search(r"(\w+)(?:\.__init__)?\(\) missing .* arguments?: (.+)", text)
    if missing and missing[1] in {each.__name__ for each in getattr(target, "__mro__", (target,))}:
        names = [prefix + each for each in re.findall(r"'(\w+)'", missing[2])]
        return f"{' and '.join(names)} must be given: {missing[1]} needs {'it' if len(names) == 1 else 'them'}"
    is_plain = isinstance(error, TypeError | ValueError) or is_mistake(error)
    words = text if is_plain and text else f"{type(error).__name__}: {text}"
    return f"{group}: {words}" if group else words


def choice_line(group: str, name: str, options: Sequence[str] | None = None) -> str:
    """Say that a group has no choice of a name.

    Args:
        group: the group's folder in conf/.
        name: the choice.
        options: the choices that there are; None for those in conf/.
    """
    if group == "data" and os.path.isdir(name):
        return f"data={name} is a folder: data=imagefolder {for_shell(f'data.root={name}')} reads the images in it"
    if group == "data" and "/" in name:
        return f"data={name}: there is no such folder; data=imagefolder data.root=… reads the images in one"
    names = visible([file.stem for file in (CONF / group).glob("*.yaml")] if options is None else options)
    words = meaning(f"{group}={name}", [group])
    advice = f": {words}" if words else suggest(name.rpartition("/")[2], names, "all: " + ", ".join(names))
    return f"{group}={name} does not exist{advice}"


def option_line(name: str, known: Collection[str]) -> str:
    """Say that a command has no option of a name, and what may be meant.

    Args:
        name: what was given, e.g. `lr`.
        known: the command's options and groups.
    """
    if same := [each for each in known if plain_name(each) == plain_name(name)]:  # Model=, as no other tool has it
        return f"there is no option {name}{suggest(name, same, ALL_OPTIONS)}"
    if elsewhere := choices_with(name):
        words = f"{' and '.join(elsewhere)} {'has' if len(elsewhere) == 1 else 'have'} it"
    else:
        words = meaning(name, {*known, *(OF_A_SWEEP if "sweep" in known else ())}) or ""
    return f"there is no option {name}" + (f": {words}" if words else suggest(name, [*known], ALL_OPTIONS))


def choices_with(name: str) -> list[str]:
    """Return the choices of a group whose files have an option, e.g. `optimizer=adam` for `optimizer.betas`."""
    group, _, option = name.partition(".")
    files = sorted((CONF / group).glob("[!_]*.yaml")) if re.fullmatch(r"\w+", group) and option else []
    contents = ((file.stem, yaml.safe_load(file.read_bytes())) for file in files)
    return [f"{group}={choice}" for choice, content in contents if option in dict(nodes(content))]


def composition_line(text: str, config_name: str, overrides: Sequence[str]) -> str | None:
    """Describe what Hydra says of a group that it does not have, of one choice in a list, or of several values."""
    if choice := re.search(r"Could not load '(.+)'\.", text):
        return choice_line(*group_and_choice(choice[1]))
    if (group := re.match(r"Could not override '([^']+)'\.", text)) and "hydra" not in group[1]:
        return option_line(group[1], defaults(config_name, overrides))
    if removed := re.match(r"Could not delete.*'(\S+)' (does not exist|in the defaults list)", text):
        return option_line(removed[1], defaults(config_name, overrides))
    if ambiguous := re.match(r"Ambiguous value for argument '(.+)'", text):
        name, _, value = ambiguous[1].partition("=")
        known = defaults(config_name, overrides)
        if (option := name.lstrip("+")) not in known and name == option and "hydra" not in name:
            return option_line(name, known)
        may_be_integer = option in known and isinstance(known[option], int | None)
        if may_be_integer and re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+", value):
            plain = f"{name}={value.replace(',', '')}"
            return f"{ambiguous[1]}: an integer has no separators, {plain}; -m trains a run for each of several values"
        if isinstance(known.get(option), float) and re.fullmatch(r"-?\d+,\d+", value):
            return f"{ambiguous[1]}: a decimal number has a point, {name}={value.replace(',', '.')}; -m trains two runs"
        return f"{ambiguous[1]} has several values: -m trains a run for each, and {name}=[{value}] is a list"
    return None


def group_and_choice(path: str) -> tuple[str, str]:
    """Divide `data//tmp/photos` and `hydra/launcher/slurm` after the longest folder that conf/ has."""
    prefixes = [path[: found.start()] for found in re.finditer("/", path)]
    groups = [prefix for prefix in prefixes if re.fullmatch(r"\w+(/\w+)*", prefix) and is_group(prefix, [CONF])]
    group = groups[-1] if groups else path.rpartition("/")[0]
    return group, path[len(group) + 1 :]


def configuration_line(error: OmegaConfBaseException, config_name: str, overrides: Sequence[str]) -> str:
    key, text = str(error.full_key or ""), str(error).splitlines()[0]
    if key.startswith(("hydra.launcher.", "hydra.sweeper.")):
        group, _, option = key.rpartition(".")
        advice = meaning(option, OF_A_SWEEP) or f"{group.replace('.', '/')}=… chooses another"
        return f"there is no option {option} of this {group}: {advice}"
    if lacking := re.search(r"Interpolation key '(\w+)\.name' not found", text):
        group = lacking[1]
        return (
            f"the file of {group}= has no name: add a line `name: …`, after which its runs and their folders are called"
        )
    if "is not in struct" not in str(error):
        return f"{key}: {text}" if key else text
    known = defaults(config_name, overrides)
    if key in known:
        return f"{key} is needed: it can be set, not removed"
    return option_line(key, known)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, the one that it was raised for, and so on.

    A thread's error that is raised again later, as TensorBoard does, can have itself among its causes.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def memory_line(raised: BaseException) -> str | None:
    """Return a line if too little memory is the cause. NumPy, torch and the system have errors of their own for it."""
    for error in causes(raised):
        is_system = isinstance(error, OSError) and error.errno == errno.ENOMEM
        is_torch = isinstance(error, RuntimeError) and re.search("can't allocate memory|out of memory", str(error))
        if isinstance(error, MemoryError) or is_system or is_torch:
            asked = re.search(r"(\d+) bytes|(\S+ .iB)", str(error))
            amount = asked and (f"{int(asked[1]) / 1e9:,.1f} GB" if asked[1] else asked[2])
            size = f" ({amount} were asked for at once)" if amount else ""
            return f"out of memory{size}: smaller batches, smaller images, fewer images or a smaller network need less"
    return None


def user_error_within(error: BaseException) -> UserError | None:
    """Return the UserError that an error of Hydra or OmegaConf was raised for."""
    return next((cause for cause in causes(error) if isinstance(cause, UserError)), None)


def disk_advice(raised: BaseException, continuation: str = "") -> str | None:
    """Return advice if the disk is the cause; torch and OmegaConf raise errors of their own for it.

    Args:
        raised: the error.
        continuation: how to continue the run that it has ended; "" where there is no run.
    """
    more = f"; {continuation}" if continuation else ""
    for error in causes(raised):
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the disk is full: free some space" + more
        if isinstance(error, OSError) and error.errno == errno.EIO:
            place = f" at {error.filename}" if error.filename else ""
            return f"the disk fails{place} ({error.strerror}){more}"
        if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES):
            if os.path.exists(error.filename or "") and not os.access(error.filename, os.R_OK):
                return f"{error.filename} cannot be read ({error.strerror}): change its permissions"
            return (
                f"{error.filename} cannot be written ({error.strerror}): hydra.run.dir=<folder> chooses another place"
            )
    return None


def is_of_machine(error: BaseException) -> bool:
    """Return whether the disk or too little memory is the cause, about which a traceback says no more than the line."""
    of_worker = "in DataLoader worker process" in str(error) and worker_line(str(error)).startswith(SHARED_MEMORY)
    return of_worker or disk_advice(error) is not None or memory_line(error) is not None


def worker_line(text: str) -> str:
    """Describe an error of a process that reads images. Its text has that process's traceback before the reason."""
    lines = text.splitlines()
    traceback_end = max((number for number, line in enumerate(lines) if line.startswith(" ")), default=0)
    reason = "; ".join(line.strip() for line in lines[traceback_end + 1 :] if line.strip())
    if "No space left" in reason and "/torch_" in reason:
        return (
            f"{SHARED_MEMORY}, the memory that processes share, is full: data.num_workers=0 needs none, a smaller "
            "data.batch_size needs less"
        )
    return reason.removeprefix("reslab.errors.UserError: ")


def suggest(name: str, known: Sequence[str], otherwise: str) -> str:
    """Return the nearest known names as a question, or `otherwise` where none is near."""
    close = nearest(name, visible(known))
    return f": did you mean {' or '.join(close)}?" if close else f"; {otherwise}"


def nearest(name: str, known: Sequence[str]) -> list[str]:
    """Return known names that differ only in case, `-` and `_`, or else in the group, in how they end, or a little.

    Example:
        >>> nearest("CIFAR-10", ["cifar10", "cifar100"]), nearest("max_epochs", ["trainer.max_epochs", "trainer"])
        (['cifar10'], ['trainer.max_epochs'])
    """
    plain = {each: plain_name(each) for each in known}
    same = [each for each in known if plain[each] == plain_name(name)]
    elsewhere = [each for each in known if plain[each].rpartition(".")[2] == plain_name(name).rpartition(".")[2]]
    beginning = [each for each in known if len(name) > 3 and plain[each].startswith(plain_name(name))]
    close = difflib.get_close_matches(name.lower(), known, n=3)
    if "." not in name:  # optimiser means no option of the group
        close = [each for each in close if not any(each.startswith(f"{other}.") for other in close)]
    return same or elsewhere[:3] or beginning[:3] or close


def plain_name(name: str) -> str:
    return re.sub("[-_ ]", "", name).lower()


def visible(options: Sequence[str]) -> list[str]:
    """Return the options that a user may choose, sorted; a leading underscore marks the others."""
    return sorted(option for option in options if not option.rpartition(".")[2].startswith("_"))
