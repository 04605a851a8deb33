"""The end of a sweep: its report, and which jobs failed and why."""

import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from reslab.errors import UserError
from reslab.files import LOCK, write_json
from reslab.resuming import SWEEP_FILE


class SweepStopped(BaseException):
    """By a job that failed; not an Exception, after which a sweep goes on."""


class Summary(Callback):
    """Remembers a sweep's folder; Hydra calls it in the process that runs the sweep."""

    folder: Path | None = None
    is_new = False
    planned = 0  # jobs, once they are known

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with suppress(OmegaConfBaseException):  # it cannot be made, which the sweeper will meet too
            Summary.folder = Path(config.hydra.sweep.dir)
            Summary.is_new = not (Summary.folder / SWEEP_FILE).exists()

    @staticmethod
    def remove_unused() -> None:
        """The folder of a sweep that was a mistake, before any job."""
        if Summary.folder is not None and Summary.is_new:
            for name in (SWEEP_FILE, LOCK):
                (Summary.folder / name).unlink(missing_ok=True)
            with suppress(OSError):  # it holds more, which is not the sweep's
                Summary.folder.rmdir()


def print_summary(folder: Path, status: str = "finished") -> int:
    """The number of jobs that did not finish; the sweep's result.json tells `resume=auto` whether all did."""
    if not jobs(folder):
        return 0
    from reslab.reports.leaderboard import print_report, read_report

    report = read_report([folder])
    print_report(report)
    if (begun := len(report.runs)) < Summary.planned:
        print(f"{Summary.planned - begun} of {Summary.planned} jobs have not begun")
    try:
        from reslab.reports.writing import write_report  # matplotlib, half a second after the table is on the terminal

        write_report(report, folder)
        print(f"sweep:  {folder} (report.html, report.csv, runs.csv)")
    except UserError as error:  # told, but no failure of a job
        print(f"error: {error}", file=sys.stderr)
    print(f"curves: tensorboard --logdir {shlex.quote(str(folder))}")
    failed = len(report.failures)
    with suppress(OSError):  # the disk may be what failed
        status = "failed" if failed and status == "finished" else status
        write_json(folder / "result.json", {"status": status, "jobs": len(report.runs), "failed": failed})
    return failed


def jobs(folder: Path) -> list[Path]:
    """Job folders: `<number>_<overrides>`, or `0` where nothing was overridden."""
    return [path for path in folder.glob("[0-9]*") if (path / ".hydra").is_dir()]
