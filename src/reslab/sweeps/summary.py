"""The end of a sweep: its report on the terminal and in its folder."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from reslab.errors import UserError
from reslab.run import Run
from reslab.sweeps.folder import Sweep
from reslab.text import for_shell, printable

log = logging.getLogger(__name__)


class SweepFailed(BaseException):
    """The end of a sweep in which jobs failed. After an Exception, Hydra would continue with the next job."""


def print_summary(sweep: Sweep, planned: int, status: str = "finished", unrecorded: int = 0, lost: int = 0) -> int:
    """Print and write the report of a sweep, and write how it ended.

    Args:
        sweep: the sweep; without any job that has begun, nothing is printed or written.
        planned: how many jobs it has in all.
        status: finished, failed or interrupted.
        unrecorded: how many jobs failed and could not write it.
        lost: how many trials of a search have ended whose folders were removed.

    Returns:
        How many jobs failed.
    """
    if not (jobs := sweep.jobs):
        return unrecorded
    begun, failed = len(jobs), sum(not has_ended(run) for run in jobs)
    report = None
    with printed_errors(sweep):
        from reslab.reports.leaderboard import read_report
        from reslab.reports.terminal import print_report

        report = read_report([sweep.folder])
        begun, failed = len(report.entries), len(report.not_finished)
        print_report(report)
    if lost:
        print(f"the folder{'s' * (lost > 1)} of {lost} finished trial{'s are' if lost > 1 else ' is'} missing")
    print_not_begun(planned - begun - unrecorded - lost, planned)
    with printed_errors(sweep):
        from reslab.reports.writing import FILES, write_report

        if report is not None:
            write_report(report, sweep.folder)
            print(f"sweep:  {for_shell(str(sweep.folder))} ({', '.join(FILES)})")
    print(f"curves: tensorboard --logdir {for_shell(str(sweep.folder))}")
    failed += unrecorded
    with suppress(OSError):  # a full disk may be why jobs failed
        sweep.write_result("failed" if failed and status == "finished" else status, begun, failed)
    return failed


def print_not_begun(missing: int, planned: int) -> None:
    """Print how many of the planned jobs have not begun, if there are any."""
    if missing > 0:
        print(f"{missing} of {planned} jobs {'has' if missing == 1 else 'have'} not begun")


@contextmanager
def printed_errors(sweep: Sweep) -> Iterator[None]:
    """Print an error of the report in one line. No job failed for it, and it must not hide how the sweep ended."""
    try:
        yield
    except UserError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
    except Exception as error:
        log.debug("the report failed", exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"error: a part of the report of {printable(sweep.folder)} failed ({printable(reason)})", file=sys.stderr)


def has_ended(run: Run) -> bool:
    """Return whether a job is finished or pruned; not if its result cannot be read."""
    try:
        return run.has_ended
    except OSError:
        return False
