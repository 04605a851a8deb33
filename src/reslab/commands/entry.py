"""What all commands share: start Hydra, turn errors into one line, and record a failed run.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

import functools
import gc
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from mimetypes import guess_type
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from reslab.commands import resolvers  # noqa: F401  # conf/ uses them
from reslab.commands.arguments import hydra_arguments_of, own_environment
from reslab.commands.claim import leaves_nothing, own_folder
from reslab.commands.help import asks_for_help, help_text, version_text
from reslab.commands.output import lasting_streams
from reslab.configuration import A_RUN, CONF, flatten, own_flags, task_overrides
from reslab.errors import (
    FULL_ERROR,
    Failed,
    Interrupted,
    NothingLeftToDo,
    RunError,
    UserError,
    disk_advice,
    is_mistake,
    is_of_machine,
    line_before_job,
    one_line,
)
from reslab.files import FolderMovedError, held_log, relative, run_logs
from reslab.interruption import signals
from reslab.machine import check_processes, is_first_process, launched_by_torchrun
from reslab.options import Schema
from reslab.processes import (
    LostProcessError,
    end_with_first_process,
    first_process,
    is_further_process,
    kill_further_processes,
    report_failure,
)
from reslab.run import Run, current_class_path
from reslab.sweeps.summary import SweepFailed
from reslab.sweeps.trust import resuming_command
from reslab.text import for_shell
from reslab.training.options import TRAINING_SCHEMA

log = logging.getLogger(__name__)

Task = Callable[[DictConfig], Any]


def command(schema: Schema, task: Task, help_of_command: str) -> None:
    """Run a task on the configuration that the command line composes, or print the help.

    The process exits with status 2 for a mistake of the user, with 1 for a failure, and with 128 + n for signal n.
    """
    end_with_first_process(sys.argv)
    logging.raiseExceptions = False  # on a full disk, logging would print a long traceback for each line
    environment = own_environment(sys.argv) | first_process(sys.argv)
    with errors_as_one_line(schema.config_name):
        signals.listen()
        with lasting_streams(), command_line(sys.argv, environment):
            if asks_for_help(sys.argv[1:]):
                print(help_text(help_of_command, sys.argv[1:]))
            elif "--version" in sys.argv[1:]:
                print(version_text())
            else:
                run_hydra(schema, task)


def run_hydra(schema: Schema, task: Task) -> None:
    """Let Hydra run the task, with the arguments of this process."""
    arguments = hydra_arguments_of(sys.argv[1:], schema)
    checked = checked_task(schema, task)
    with command_line([sys.argv[0], *arguments], {FULL_ERROR: "1"}):  # Hydra then raises errors instead of printing
        try:
            hydra.main(config_path=str(CONF), config_name=schema.config_name, version_base="1.3")(checked)()
        except Exception as error:  # errors of a job arrive as Failed, so this one is in the command line
            if is_mistake(error):
                raise
            raise UserError(line_before_job(error, schema.config_name)) from error


def checked_task(schema: Schema, task: Task, continued_by: Callable[[Path], str] = resuming_command) -> Task:
    """Return the task as Hydra runs it: with the configuration checked, and a failure recorded in the run's folder.

    Args:
        schema: the options of the command.
        task: what it does with a configuration.
        continued_by: returns what a user types to continue the run in a folder, once it is interrupted.
    """
    full_error = os.environ.get(FULL_ERROR)  # what the user has chosen

    def checked(config: DictConfig) -> Any:
        try:
            with held_log(resumes=bool(OmegaConf.select(config, "resume"))):
                use_present_names(config)
                check(config, schema, task_overrides())
                schema.expand_home(config)
                with as_own_command(full_error):
                    return task(config)
        except Exception:
            kill_further_processes()
            raise

    @functools.wraps(task)
    def run(config: DictConfig) -> Any:
        hydra_config = HydraConfig.get()
        in_sweep = hydra_config.mode == RunMode.MULTIRUN
        try:
            # evaluate and predict have no folder, and may be called in that of a run. A sweep would make one here.
            if not in_sweep and hydra_config.run.dir == ".":
                return checked(config)
            place = Run(hydra_config.runtime.output_dir)
            claim = own_folder(schema, place, config) if is_first_process() else nullcontext()
            with claim, recorded_failure(schema, place, in_sweep, config, continued_by):
                return checked(config)
        except Exception as error:
            if in_sweep and OmegaConf.select(config, "sweep.stop_on_failure"):
                raise SweepFailed("sweep.stop_on_failure=true") from error
            if in_sweep:
                forget_variables(error)
                raise  # Hydra records it and continues with the next job
            raise Failed(error) from error
        finally:
            if in_sweep:
                gc.collect()  # a job's trainer, data and network refer to each other, and may fill a GPU

    return run


def forget_variables(error: BaseException | None) -> None:
    """Free what the functions that an error has ended still refer to, such as the network and its activations.

    Hydra keeps the errors of all jobs until the sweep ends. Without this, jobs after one that was out of memory would
    be so too.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def use_present_names(config: DictConfig) -> None:
    """Rename classes that have moved, in a configuration that was recorded before and is now repeated."""
    for name, value in flatten(OmegaConf.to_container(config)).items():
        if name.endswith("_target_") and current_class_path(value) != value:
            OmegaConf.update(config, name, current_class_path(value))


def check(config: DictConfig, schema: Schema, overrides: Sequence[str]) -> None:
    """Raise UserError for an option that is missing or wrong."""
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(missing_line(config, missing))
    schema.check_removals(overrides)
    schema.check(config, overrides)
    check_processes(OmegaConf.select(config, "trainer.devices"), OmegaConf.select(config, "trainer.num_nodes"))


def missing_line(config: DictConfig, missing: Sequence[str]) -> str:
    """Say which options must be given, with an example."""
    examples = {"checkpoint": "checkpoint=latest", "images": "images=photos"}
    example = " ".join(examples.get(name, f"{name}=…") for name in missing)
    given = str(config.checkpoint) if missing == ["images"] else ""
    if (guess_type(given)[0] or "").startswith("image/"):
        image = for_shell(f"images={given}")
        return f"{given} was taken as the checkpoint, and images must be given: checkpoint=latest {image}"
    return f"{', '.join(missing)} must be given, e.g. {example}"


@contextmanager
def recorded_failure(
    schema: Schema, run: Run, in_sweep: bool, config: DictConfig, continued_by: Callable[[Path], str]
) -> Iterator[None]:
    """Record an error or a signal in the folder of the run, unless the run leaves none."""
    settings = run.settings_version
    try:
        yield
    except (Exception, Interrupted) as raised:
        resumes = bool(OmegaConf.select(config, "resume"))
        has_resumed = not resumes or run.settings_version != settings
        error: BaseException = raised
        if schema is TRAINING_SCHEMA and not in_sweep:
            in_training = has_resumed and run.has_begun
            error = with_continuation(raised, run, continued_by, in_training=in_training) or raised
        is_kept = in_sweep or not leaves_nothing(error, run, config)
        if is_kept:
            has_begun = run.has_begun and not resumes
            record_failure(error, schema.config_name, run, records_mistakes=in_sweep or has_begun)
        if isinstance(error, Interrupted) and schema is TRAINING_SCHEMA and not in_sweep:
            print_interruption(error, run, is_kept, continued_by, has_resumed=has_resumed)
        if error is raised:
            raise
        raise error from raised


def with_continuation(
    error: BaseException, run: Run, continued_by: Callable[[Path], str], *, in_training: bool
) -> UserError | RunError | None:
    """Return an error that says what continues the run, if the disk or a mistake that can be undone has ended it.

    Args:
        error: what has ended the run.
        run: the run.
        continued_by: returns the command that continues the run in a folder.
        in_training: whether the run had begun to train, or resumed.
    """
    continuation = f"{effect_of_continuing(run)}: {continued_by(relative(run.folder))}"
    named: UserError | RunError
    if isinstance(error, UserError) and in_training and can_continue(run) and not run.has_ended:
        named = UserError(f"{error}; {continuation}")
    elif not isinstance(error, UserError | RunError) and (line := disk_advice(error, continuation)):
        named = RunError(line)
    else:
        return None
    named.__cause__ = error  # for the log
    return named


def effect_of_continuing(run: Run) -> str:
    """Return what the command that follows does."""
    return "this continues the run" if can_continue(run) else "nothing was saved yet, and this starts the run again"


def can_continue(run: Run) -> bool:
    """Return whether there is a checkpoint from which a run resumes; best.ckpt is none."""
    return os.path.exists(run.last) or os.path.exists(run.previous)


def record_failure(error: BaseException, config_name: str, run: Run, records_mistakes: bool) -> None:
    """Write the traceback into the log, and one line into the result of the run.

    A run that has ended keeps its result, as long as it has not resumed. A mistake in resuming a single run leaves its
    folder as it is. A job of a sweep that has no result gets the mistake for one, because the sweep's report shows it,
    and so does a new run that has begun to train.
    """
    if is_further_process(sys.argv):
        return  # the first process of the run records it
    if isinstance(error, Interrupted) and run.has_ended:
        log.debug("%s leaves the result of the run as it is", error)
        return
    log.debug("the run failed", exc_info=error)  # the log file shows this level, the terminal does not
    if not run.hydra_folder.is_dir() or run.has_ended:  # other commands have no folder of their own
        return
    if is_mistake(error) and not records_mistakes:
        return
    is_consequence = isinstance(error, LostProcessError) or (isinstance(error, Interrupted) and launched_by_torchrun())
    if is_consequence and run.has_failed:  # another process has recorded why
        return
    with suppress(OSError, FolderMovedError):  # a full disk may be why the run failed
        run.fail(one_line(error, config_name), interrupted=isinstance(error, Interrupted))


def print_interruption(
    error: Interrupted,
    run: Run,
    is_kept: bool,
    continued_by: Callable[[Path], str],
    *,
    has_resumed: bool = True,
) -> None:
    """Print what continues a run whose folder is kept. A signal after the end of a run has interrupted nothing.

    The settings of a run that has not resumed yet lack the options that are given with `resume=`.
    """
    if is_first_process() and not is_kept:
        print(f"interrupted ({error}); nothing was saved yet", file=sys.stderr)
    elif is_first_process() and not has_resumed:
        print(f"interrupted ({error}) before the run resumed; the same command resumes it", file=sys.stderr)
    elif is_first_process() and not run.has_ended:
        line = continued_by(relative(run.folder))
        print(f"interrupted ({error}); {effect_of_continuing(run)}:\n{line}", file=sys.stderr)


# errors


@contextmanager
def errors_as_one_line(config_name: str) -> Iterator[None]:
    """Let an error end the process with one line and its exit status. A signal that comes later ends it at once."""
    try:
        yield
    except Interrupted as error:
        if config_name != TRAINING_SCHEMA.config_name and is_first_process():  # a run has said what continues it
            print(f"interrupted ({error})", file=sys.stderr)
        sys.exit(error.status)
    except NothingLeftToDo:
        sys.exit(0)
    except SweepFailed:
        sys.exit(1)
    except Failed as failed:
        fail(failed.error, config_name)
    except Exception as error:
        fail(error, config_name)
    finally:
        signals.stop_listening()


def fail(error: Exception, config_name: str) -> NoReturn:
    line = one_line(error, config_name)
    if report_failure(sys.argv, error, line, is_mistake(error)):
        sys.exit(2 if is_mistake(error) else 1)
    if os.environ.get(FULL_ERROR) == "1":
        raise error
    print(f"error: {line}", file=sys.stderr)
    if is_mistake(error):
        sys.exit(2)
    if is_of_machine(error) or isinstance(error, FolderMovedError):
        sys.exit(1)
    in_log = "; the run's log has it too" if any(os.path.exists(each.baseFilename) for each in run_logs()) else ""
    print(f"HYDRA_FULL_ERROR=1 shows the traceback{in_log}", file=sys.stderr)
    sys.exit(1)


# the command line


@contextmanager
def command_line(arguments: Sequence[str], environment: Mapping[str, str | None] | None = None) -> Iterator[None]:
    """Give this process another command line, and other values of environment variables, until the end of the block.

    Hydra reads sys.argv, and Lightning uses it to start the other processes of a distributed run. At the end both are
    as before, without what Lightning has added for these processes.

    Args:
        arguments: the script and its arguments.
        environment: values by name; None removes a variable.
    """
    before, variables = sys.argv[:], dict(os.environ)
    sys.argv[:] = arguments
    for name, value in (environment or {}).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    try:
        yield
    finally:
        sys.argv[:] = before
        os.environ.clear()
        os.environ.update(variables)


@contextmanager
def as_own_command(full_error: str | None) -> Iterator[None]:
    """Set sys.argv to a job's own command line, which Lightning uses to start the other processes of the job.

    They also get the user's own choice about tracebacks, not the one that this process makes for Hydra.
    """
    hydra_config, own_command = HydraConfig.get(), sys.argv[:]
    if hydra_config.mode == RunMode.MULTIRUN:
        with read_write(hydra_config):  # type: ignore[arg-type]
            hydra_config.run.dir = hydra_config.runtime.output_dir
        own_command[1:] = [*own_flags(same_command=True), *task_overrides(), A_RUN]
    with command_line(own_command, {FULL_ERROR: full_error}):
        yield
