"""A run's folder: one process claims it before anything in it changes, and writes the run's settings."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from reslab.commands.resume import refuse_begun_run
from reslab.configuration import task_overrides
from reslab.errors import Interrupted, UserError, is_mistake
from reslab.files import (
    LOCK,
    hold_logs,
    remove_empty_folders,
    require_folder,
    run_logs,
    sole_user,
    write_waiting_lines,
)
from reslab.options import Schema
from reslab.run import Run
from reslab.training.options import TRAINING_SCHEMA


@contextmanager
def own_folder(schema: Schema, run: Run, config: DictConfig) -> Iterator[None]:
    """Keep other processes out of a run's folder until the end of the block. Write the settings of a new run.

    Hydra would write them before it is known that the folder is not that of another process. A resumed run keeps its
    settings and its log as they are until it has resumed. A new run that a mistake or a signal ends before it trains
    leaves no file.

    Args:
        schema: the options of the command.
        run: the run.
        config: its composed configuration, with the interpolations as they are.

    Raises:
        UserError: another process uses the folder, or has left its run there. Nothing in the folder has changed.
        FolderMovedError: the folder was removed or renamed, and an error came of that.
    """
    resumes = bool(OmegaConf.select(config, "resume"))
    hold_logs()
    with sole_user(run.folder) as waited:
        if waited and run.has_ended:
            advice = "give the command again to continue it" if resumes else "another hydra.run.dir begins one"
            raise UserError(f"{run.folder} holds a run that another process has finished: {advice}")
        is_single = HydraConfig.get().mode == RunMode.RUN
        if not resumes and ((is_single and schema is TRAINING_SCHEMA) or waited):
            refuse_begun_run(run)
        try:
            if not resumes:
                run.write_settings(OmegaConf.to_yaml(config), task_overrides())
                write_waiting_lines()
            yield
        except (Exception, Interrupted) as error:
            require_folder(run.folder)  # a folder that has disappeared explains other errors
            if is_single and leaves_nothing(error, run, config):
                remove_settings(run, Path(str(config.outputs)))
            raise


def leaves_nothing(error: BaseException, run: Run, config: DictConfig) -> bool:
    """Return whether an error has ended a single new run before it trained, so that its folder is of no use."""
    is_new = not OmegaConf.select(config, "resume") and not run.has_begun
    return is_new and (isinstance(error, Interrupted) or is_mistake(error))


def remove_settings(run: Run, outputs: Path) -> None:
    """Remove the settings, log and curves of a run, and the folders that are then empty, below the one of all runs."""
    for run_log in run_logs():
        run_log.close()
    log_file = run.folder / f"{HydraConfig.get().job.name}.log"
    events = run.folder.glob(f"events.out.tfevents.*.{os.getpid()}.*")  # of this process
    for file in (log_file, *events, run.config_file, run.overrides_file, run.folder / LOCK):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # there are other files
        run.hydra_folder.rmdir()
    remove_empty_folders(run.folder, outputs)
