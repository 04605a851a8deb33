"""What every command shares: Hydra's entry point, one line for each error, a folder of its own for each run.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

import functools
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from reslab.errors import CONF, UserError, is_mistake, one_line, visible
from reslab.interruption import Interrupted, signals
from reslab.options import PATH, check_option, check_options, check_removals
from reslab.resuming import ENDED, is_first_process, quoted, read_result, with_resumed_settings, write_failure
from reslab.sweeps.summary import Summary, SweepStopped, jobs, print_summary

log = logging.getLogger(__name__)


def command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Run `task` on the composed configuration; exit 2 on what the user got wrong, 1 on what failed."""
    signals.listen()
    replace_unprintable()
    logging.raiseExceptions = False  # a log that cannot be written, on a full disk, is not told of in forty lines
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them

    @functools.wraps(task)
    def job(config: DictConfig) -> Any:
        try:
            check_complete(config)
            check_removals(HydraConfig.get().overrides.task, config_name)
            check_options(config, config_name)
            with job_as_command():
                return task(config)
        except (Exception, Interrupted) as error:
            hydra_config = HydraConfig.get()
            folder = Path(hydra_config.runtime.output_dir)
            in_sweep = hydra_config.mode == RunMode.MULTIRUN
            record_failure(error, config_name, folder, in_sweep)
            if isinstance(error, Interrupted):
                if config_name == "config" and not in_sweep and is_first_process():
                    print(f"interrupted ({error}): {resume(folder)} goes on from its last checkpoint", file=sys.stderr)
                raise
            if in_sweep and OmegaConf.select(config, "sweep.stop_on_failure"):
                raise SweepStopped from error
            if in_sweep or show_traceback:
                raise  # Hydra notes it and goes on with the next job
            fail(error, config_name)

    try:
        check_arguments()
        sys.argv[1:] = [quote_equals(argument) for argument in sys.argv[1:]]
        check_outputs(sys.argv[1:])
        if config_name == "config":
            sys.argv[1:] = with_resumed_settings(sys.argv[1:])
        hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(job)()
    except Interrupted as error:
        if Summary.folder is not None:
            print_summary(Summary.folder, "interrupted")
            print(f"interrupted ({error}): {resume(Summary.folder)} goes on with the sweep", file=sys.stderr)
        sys.exit(error.status)
    except SweepStopped:
        if Summary.folder is not None:
            print_summary(Summary.folder, "failed")
            print(f"stopped by a failure: {resume(Summary.folder)} goes on with the sweep", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if show_traceback:
            raise
        if Summary.folder is not None and jobs(Summary.folder):
            print_summary(Summary.folder, "failed")
        else:
            Summary.remove_unused()
            if not is_mistake(error):  # before any job: what was asked cannot be composed
                error = UserError(one_line(error, config_name))
        fail(error, config_name)
    if Summary.folder is not None and print_summary(Summary.folder):
        sys.exit(1)


def replace_unprintable() -> None:
    """Where the terminal has no ±, or a folder's name is no text."""
    if isinstance(sys.stdout, TextIOWrapper):  # not closed
        sys.stdout.reconfigure(errors="replace")


@contextmanager
def job_as_command() -> Iterator[None]:
    """Within it a job of a sweep looks like a command: Lightning starts the further processes of a run by that."""
    hydra_config = HydraConfig.get()
    arguments, environment = sys.argv[:], dict(os.environ)
    if hydra_config.mode == RunMode.MULTIRUN:
        sys.argv[1:] = hydra_config.overrides.task
        with read_write(hydra_config):  # type: ignore[arg-type]
            hydra_config.run.dir = hydra_config.runtime.output_dir
    try:
        yield
    finally:
        sys.argv[:] = arguments
        os.environ.clear()  # of what Lightning tells those processes; the next job's are not its
        os.environ.update(environment)


def resume(folder: Path) -> str:
    """As a shell takes it."""
    return shlex.quote(f"resume={folder}")


def fail(error: Exception, config_name: str) -> NoReturn:
    print(f"error: {one_line(error, config_name)}", file=sys.stderr)
    if is_mistake(error):
        sys.exit(2)
    print("HYDRA_FULL_ERROR=1 shows the traceback; the run's log has it too", file=sys.stderr)
    sys.exit(1)


def record_failure(error: BaseException, config_name: str, folder: Path, in_sweep: bool) -> None:
    """The traceback into the job's log, one line into its result.json.

    A run that has ended keeps its result, and one that a mistake kept from going on what it had; of a sweep's job the
    mistake is told in its report.
    """
    log.debug("the run failed", exc_info=error)  # the log file's level; the terminal gets the line
    if not (folder / ".hydra").is_dir():  # the command makes no folder of its own
        return
    was_run = (folder / "result.json").exists() or (folder / "checkpoints").exists()
    if read_result(folder)["status"] in ENDED or (is_mistake(error) and was_run and not in_sweep):
        return
    status = "interrupted" if isinstance(error, Interrupted) else "failed"
    with suppress(OSError):  # the disk may be what failed
        write_failure(folder, one_line(error, config_name), status)


def check_arguments() -> None:
    """Hydra's parser would print its usage."""
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}: options are name=value, without dashes")

    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args()


def check_outputs(arguments: list[str]) -> None:
    """Before a folder is made there; raises UserError."""
    outputs = [argument for argument in arguments if argument.startswith("outputs=")]
    for override in OverridesParser.create().parse_overrides(outputs):
        if override.is_sweep_override():
            raise UserError(f"{override.input_line} must be one folder; a comma in its name needs quotes")
        check_option("outputs", override.value(), PATH)


def quote_equals(argument: str) -> str:
    """`checkpoint=0_model=resnet20` (a sweep's job), `data.root=Äpfel`: in Hydra's grammar no values unless quoted."""
    name, _, value = argument.partition("=")
    if ("=" not in value and value.isascii()) or name.startswith("-") or re.search(r"['\"(\[{]", value):
        return argument
    return f"{name}={','.join(quoted(part) for part in value.split(','))}"


def check_complete(config: DictConfig) -> None:
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=…")


@functools.lru_cache
def new_folder(parent: str) -> str:
    """A fresh outputs/…/<date>_<time>, made here and now so that no two runs ever share one."""
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
    """`3_model=resnet20_seed=2`: readable, one path component, at most 120 characters."""
    return re.sub(r"[^\w=.+-]+", "_", f"{number}_{overrides}", flags=re.ASCII)[:120].rstrip("_")


def choices() -> str:
    """What --help lists: every group of conf/ with its files."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    return "\n".join(f"{g.name}: {', '.join(visible([file.stem for file in g.glob('*.yaml')]))}" for g in groups)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("new_folder", new_folder, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
