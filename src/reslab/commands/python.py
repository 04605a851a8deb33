"""Training from Python, in a script or a notebook: what `reslab.train` runs."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from reslab.commands import train as command
from reslab.commands.arguments import hydra_arguments_of, own_environment
from reslab.commands.entry import checked_task, command_line
from reslab.commands.resolvers import new_folder
from reslab.configuration import initialized_hydra, searchpath_override
from reslab.errors import Failed, Interrupted, NothingLeftToDo, UserError, is_mistake, line_before_job, one_line
from reslab.files import RunLog, held_log
from reslab.internals import asks_for_sweep, run_hydra_job
from reslab.interruption import ENDING_SIGNALS, signals
from reslab.run import Run, checked_config_dir
from reslab.sweeps.trust import trust_of
from reslab.text import LineFormatter
from reslab.training.options import TRAINING_SCHEMA

LINE = "[%(asctime)s][%(name)s][%(levelname)s] %(message)s"  # as in conf/hydra/job_logging/reslab.yaml


def train(overrides: Sequence[str], config_dir: str | Path | None) -> Run:
    """Train one run. The public `reslab.train` documents it."""
    own = checked_config_dir(config_dir)
    finished: list[Run] = []

    def task(config: DictConfig) -> None:
        with signals.deferred():  # an exception could be lost in a module that is being imported
            from reslab.training.fit import train  # torch and lightning, once the configuration is known to be right

        if config.summary or config.find_lr:
            option = "summary" if config.summary else "find_lr"
            raise UserError(f"{option}=true belongs to the command reslab train")
        run = Run(config.folder, own)
        with run_log(run.folder), held_log(resumes=bool(config.resume)):
            command.log_beginning(config)
            command.write_page(config, train(config), own)
        finished.append(run)

    def resuming_call(folder: Path) -> str:
        options = [repr(option) for option in (f"resume={folder}", *trust_of(folder))]
        return f"reslab.train({', '.join([*options, *([f'config_dir={own!r}'] if own else [])])})"

    new_folder.cache_clear()  # a process that trains twice needs two folders
    try:
        arguments = hydra_arguments_of([*checked_overrides(overrides), *own_folder(own)], TRAINING_SCHEMA)
        # Lightning starts the other processes of a distributed run with the command, not with this program.
        script = [str(command.__file__), *arguments]
        with own_signals(), command_line(script, own_environment(arguments)), initialized_hydra():
            if asks_for_sweep(TRAINING_SCHEMA.config_name, arguments):
                raise UserError("these options are a sweep; reslab.train trains one run: reslab train … starts a sweep")
            checked = checked_task(TRAINING_SCHEMA, task, resuming_call)
            run_hydra_job(TRAINING_SCHEMA.config_name, checked, arguments)
    except NothingLeftToDo as ended:
        return Run(ended.folder, own)
    except Interrupted:
        raise KeyboardInterrupt from None
    except (Failed, Exception) as raised:
        error = raised.error if isinstance(raised, Failed) else raised
        if is_mistake(error) or not isinstance(raised, Failed):  # what is no failure of the job is in its options
            given = [*overrides, *own_folder(own)]
            line = one_line if isinstance(raised, Failed) else line_before_job
            raise UserError(line(error, TRAINING_SCHEMA.config_name, given)) from error
        raise error from None
    return finished[0]


def checked_overrides(overrides: Sequence[str]) -> Sequence[str]:
    """Raise UserError for what is not an option."""
    for override in overrides:
        if not isinstance(override, str):
            raise UserError(f"reslab.train takes one string per option, e.g. 'seed=1', not {override!r}")
        if override.startswith("-"):
            raise UserError(
                f"reslab.train takes options, not flags such as {override}: config_dir=… is --config-dir, and "
                "a sweep (-m) is started with the command reslab train"
            )
    return overrides


def own_folder(config_dir: str | None) -> list[str]:
    """Return the override by which Hydra finds the user's own folder."""
    return [] if config_dir is None else [searchpath_override(config_dir)]


@contextmanager
def own_signals() -> Iterator[None]:
    """Let a signal save and end the run, and give the signals back to the program afterwards."""
    numbers = ENDING_SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    signals.caught = None
    signals.listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def run_log(folder: Path) -> Iterator[None]:
    """Write the log of ResLab into the run's folder, and its lines to standard output, as the command does."""
    logger = logging.getLogger("reslab")
    file, console = RunLog(folder / "train.log"), logging.StreamHandler(sys.stdout)
    file.setFormatter(LineFormatter(LINE))
    console.setFormatter(LineFormatter())
    console.setLevel(logging.INFO)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in (file, console):
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in (file, console):
            logger.removeHandler(handler)
        file.close()
        logger.setLevel(level)
