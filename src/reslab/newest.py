"""The run that a path stands for: a folder of runs stands for the newest of them, and `latest` for that of outputs."""

import logging
import os
from pathlib import Path

from reslab.run import SWEEP_FILE, Run

log = logging.getLogger(__name__)

LATEST = "latest"  # in place of a folder: the newest run


def find_checkpoint(path: str | Path) -> Path | None:
    """Return the checkpoint that a path stands for; None where there is none.

    A file is one itself. The folder of a run stands for its best checkpoint, and a folder of runs for that of the
    newest run in it, which the log names.
    """
    if os.path.isfile(path):
        return Path(path)
    run = Run(path)
    if not run.has_checkpoint:
        newest = newest_run(path)
        if newest is None:
            return None
        log.info("%s: the newest run is %s", path, newest.folder)
        run = newest
    return run.checkpoint()


def newest_run(folder: str | Path) -> Run | None:
    """Return the newest run with a checkpoint below a folder, a sweep's jobs included; None where there is none.

    `latest` stands for the folder outputs.
    """
    folder = folder_of_runs(folder)
    if not os.path.isdir(folder):
        return None
    files = [file for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/.hydra/config.yaml")]
    runs = (Run(file.parents[1]) for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True))
    return next((run for run in runs if run.has_checkpoint), None)


def folder_of_runs(folder: str | Path, outputs: str = "outputs") -> Path:
    """Return the folder of all runs for `latest`, unless there is a folder of this name, and otherwise the folder."""
    return Path(outputs) if str(folder) == LATEST and not os.path.lexists(LATEST) else Path(folder)


def newest_first(outputs: Path) -> list[Path]:
    """Return the folders of the runs and sweeps in a folder or one level below, without the jobs of sweeps."""
    started = {}
    for folder in (folder for depth in ("*", "*/*") for folder in outputs.glob(depth)):
        if (folder.parent / SWEEP_FILE).is_file():
            continue
        for file in (Run(folder).config_file, folder / SWEEP_FILE):
            if file.is_file():
                started[folder] = file.stat().st_mtime
    return sorted(started, key=lambda folder: started[folder], reverse=True)
