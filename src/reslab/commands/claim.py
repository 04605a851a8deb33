"""A run's folder: one process claims it before anything in it changes, and writes the run's settings."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from reslab.commands.resume import refuse_begun_run
from reslab.configuration import task_overrides
from reslab.errors import UserError
from reslab.files import hold_logs, require_folder, sole_user, write_waiting_lines
from reslab.options import Schema
from reslab.run import Run
from reslab.training.options import TRAINING_SCHEMA


@contextmanager
def own_folder(schema: Schema, run: Run, config: DictConfig) -> Iterator[None]:
    """Keep other processes out of a run's folder until the end of the block. Write the settings of a new run.

    Hydra would write them before it is known that the folder is not that of another process. A resumed run keeps its
    settings and its log as they are until it has resumed.

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
            raise UserError(
                f"{run.folder} holds a run that another process has finished: another hydra.run.dir begins one"
            )
        is_single_run = schema is TRAINING_SCHEMA and HydraConfig.get().mode == RunMode.RUN
        if not resumes and (is_single_run or waited):
            refuse_begun_run(run)
        if not resumes:
            run.write_settings(OmegaConf.to_yaml(config), task_overrides())
            write_waiting_lines()
        try:
            yield
        except Exception:
            require_folder(run.folder)  # a folder that has disappeared explains other errors
            raise
