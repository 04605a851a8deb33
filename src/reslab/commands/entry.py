"""The entry point that all commands share: Hydra composes and starts, errors become one line, a run gets its folder.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from reslab.commands.resume import with_resumed_settings
from reslab.configuration import CONF, flatten, quoted
from reslab.errors import Failed, Interrupted, UserError, is_mistake, one_line, visible
from reslab.internals import hydra_argument_parser
from reslab.options import PATH, Schema, check_option
from reslab.processes import is_first_process
from reslab.run import Run, resume_argument, today
from reslab.sweeps.summary import SweepFailed
from reslab.training.interruption import signals
from reslab.training.options import SCHEMA as TRAINING_SCHEMA

log = logging.getLogger(__name__)

FULL_ERROR = "HYDRA_FULL_ERROR"  # the environment variable with which a user asks for tracebacks

Task = Callable[[DictConfig], Any]


def command(schema: Schema, task: Task) -> None:
    """Run a task on the configuration that the command line composes.

    The process exits with status 2 for a mistake of the user, with 1 for a failure, and with 128 + n for signal n.
    """
    signals.listen()
    replace_unprintable_characters()
    logging.raiseExceptions = False  # on a full disk, logging would print a long traceback for each line
    with errors_as_one_line(schema.config_name):
        check_flags()
        arguments = prepared(sys.argv[1:], schema)
        with command_line(
            [sys.argv[0], *arguments], {FULL_ERROR: "1"}
        ):  # Hydra then raises its errors instead of printing them
            try:
                run = hydra.main(config_path=str(CONF), config_name=schema.config_name, version_base="1.3")
                run(job(schema, task))()
            except Exception as error:  # a job raises Failed, so this concerns what was asked for
                if is_mistake(error):
                    raise
                raise UserError(one_line(error, schema.config_name)) from error


def job(schema: Schema, task: Task) -> Task:
    """Return the task as Hydra runs it: with the configuration checked, and a failure recorded in the run's folder."""

    @functools.wraps(task)
    def run(config: DictConfig) -> Any:
        try:
            use_present_names(config)
            check(config, schema, list(HydraConfig.get().overrides.task))
            with as_own_command():
                return task(config)
        except (Exception, Interrupted) as error:
            hydra_config = HydraConfig.get()
            in_sweep = hydra_config.mode == RunMode.MULTIRUN
            folder = Path(hydra_config.runtime.output_dir)
            record_failure(error, schema.config_name, Run(folder), in_sweep)
            if isinstance(error, Interrupted):
                if schema is TRAINING_SCHEMA and not in_sweep and is_first_process():
                    print(f"interrupted ({error}): {resume_argument(folder)} continues the run", file=sys.stderr)
                raise
            if in_sweep and OmegaConf.select(config, "sweep.stop_on_failure"):
                raise SweepFailed("sweep.stop_on_failure=true") from error
            if in_sweep:
                raise  # Hydra records it and continues with the next job
            raise Failed(error) from error

    return run


def use_present_names(config: DictConfig) -> None:
    """Rename classes that have moved, in a configuration that was recorded before and is now repeated."""
    for name, value in flatten(OmegaConf.to_container(config)).items():
        if name.endswith("_target_") and today(value) != value:
            OmegaConf.update(config, name, today(value))


def check(config: DictConfig, schema: Schema, overrides: Sequence[str]) -> None:
    """Raise UserError for an option that is missing or wrong."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=…")
    schema.check_removals(overrides)
    schema.check(config, overrides)


def record_failure(error: BaseException, config_name: str, run: Run, in_sweep: bool) -> None:
    """Write the traceback into the log, and one line into the result of the run.

    A run that has ended keeps its result. A run that could not be resumed because of a mistake keeps what it had, but a
    job of a sweep does not: the sweep's report shows the mistake.
    """
    log.debug("the run failed", exc_info=error)  # the log file shows this level, the terminal does not
    if not run.settings.is_dir() or run.has_ended:  # other commands have no folder of their own
        return
    if is_mistake(error) and run.has_begun and not in_sweep:
        return
    with suppress(OSError):  # a full disk may be why the run failed
        run.fail(one_line(error, config_name), interrupted=isinstance(error, Interrupted))


# errors


@contextmanager
def errors_as_one_line(config_name: str) -> Iterator[None]:
    """Let an error end the process with one line and its exit status."""
    try:
        yield
    except Interrupted as error:
        sys.exit(error.status)
    except SweepFailed:
        sys.exit(1)
    except Failed as failed:
        fail(failed.error, config_name)
    except Exception as error:
        fail(error, config_name)


def fail(error: Exception, config_name: str) -> NoReturn:
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    print(f"error: {one_line(error, config_name)}", file=sys.stderr)
    if is_mistake(error):
        sys.exit(2)
    print("HYDRA_FULL_ERROR=1 shows the traceback; the run's log has it too", file=sys.stderr)
    sys.exit(1)


def replace_unprintable_characters() -> None:
    """Print a question mark where the terminal has no ± or where a folder's name is not valid text."""
    if isinstance(sys.stdout, TextIOWrapper):  # it may be closed
        sys.stdout.reconfigure(errors="replace")


# the command line


@contextmanager
def command_line(arguments: Sequence[str], environment: Mapping[str, str] = {}) -> Iterator[None]:
    """Give this process another command line, script included, and more environment variables.

    Hydra reads sys.argv, and Lightning starts the further processes of a run with it. At the end of the block both are
    as before, without what Lightning has added for these processes.
    """
    before, variables = sys.argv[:], dict(os.environ)
    sys.argv[:] = arguments
    os.environ.update(environment)
    try:
        yield
    finally:
        sys.argv[:] = before
        os.environ.clear()
        os.environ.update(variables)


@contextmanager
def as_own_command() -> Iterator[None]:
    """Let a job of a sweep look like a command of its own, with which Lightning starts its further processes."""
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    if in_sweep:
        with read_write(hydra_config):  # type: ignore[arg-type]
            hydra_config.run.dir = hydra_config.runtime.output_dir
    with command_line([sys.argv[0], *hydra_config.overrides.task] if in_sweep else sys.argv[:]):
        yield


def prepared(arguments: Sequence[str], schema: Schema) -> list[str]:
    """Return the arguments as Hydra takes them, with the settings of a run that is resumed."""
    quoted_arguments = [quote_equals(argument) for argument in arguments]
    check_outputs(quoted_arguments)
    return with_resumed_settings(quoted_arguments) if schema is TRAINING_SCHEMA else quoted_arguments


def check_flags() -> None:
    """Raise UserError for a flag that Hydra does not have. Its parser would print its usage and exit."""
    parser = hydra_argument_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}: options are name=value, without dashes")

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args()


def check_outputs(arguments: Sequence[str]) -> None:
    """Raise UserError before a folder is made in a wrong place."""
    outputs = [argument for argument in arguments if argument.startswith("outputs=")]
    for override in OverridesParser.create().parse_overrides(outputs):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} must be one folder; a comma in its name needs quotes")
        check_option("outputs", override.value(), PATH)


def quote_equals(argument: str) -> str:
    """Quote a value that Hydra's grammar would refuse, e.g. `checkpoint=0_model=resnet20` or `data.root=Äpfel`."""
    name, _, value = argument.partition("=")
    if ("=" not in value and value.isascii()) or name.startswith("-") or re.search(r"['\"(\[{]", value):
        return argument
    return f"{name}={','.join(quoted(part) for part in value.split(','))}"


# what conf/ asks for with ${…}


@functools.lru_cache
def new_folder(parent: str) -> str:
    """Make and return a new folder `<parent>/<date>_<time>`. Two runs never share one."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{number}" for number in range(2, 1000))):
        folder = Path(parent) / (stamp + suffix)
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{parent} cannot be made ({error.strerror}): outputs=<folder> is another place") from error
    raise UserError(f"{parent} holds a thousand runs of this second")


def job_folder(number: Any, overrides: str) -> str:
    """Return the folder's name of a job, e.g. `3_model=resnet20_seed=2`: one path component, up to 120 characters."""
    return re.sub(r"[^\w=.+-]+", "_", f"{number}_{overrides}", flags=re.ASCII)[:120].rstrip("_")


def choices() -> str:
    """Return every group of conf/ with its files, for `--help`."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    return "\n".join(f"{g.name}: {', '.join(visible([file.stem for file in g.glob('*.yaml')]))}" for g in groups)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("new_folder", new_folder, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
