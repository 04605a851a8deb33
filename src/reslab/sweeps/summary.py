"""The end of a sweep: its report on the terminal and in its folder."""

import shlex
import sys
from contextlib import suppress

from reslab.errors import UserError
from reslab.sweeps.folder import Sweep


class SweepFailed(BaseException):
    """The end of a sweep in which jobs failed. After an Exception, Hydra would continue with the next job."""


def print_summary(sweep: Sweep, planned: int, status: str = "finished", unrecorded: int = 0) -> int:
    """Print and write the report of a sweep, and write how it ended.

    Args:
        sweep: the sweep; without any job that has begun, nothing is printed or written.
        planned: how many jobs it has in all.
        status: finished, failed or interrupted.
        unrecorded: how many jobs failed and could not write it.

    Returns:
        How many jobs failed.
    """
    if not sweep.jobs:
        return unrecorded
    from reslab.reports.leaderboard import read_report
    from reslab.reports.terminal import print_report
    from reslab.reports.writing import FILES, write_report

    report = read_report([sweep.folder])
    print_report(report)
    if (begun := len(report.entries)) < planned:
        print(f"{planned - begun} of {planned} jobs have not begun")
    try:
        write_report(report, sweep.folder)
        print(f"sweep:  {sweep.folder} ({', '.join(FILES)})")
    except UserError as error:  # no job failed for it
        print(f"error: {error}", file=sys.stderr)
    print(f"curves: tensorboard --logdir {shlex.quote(str(sweep.folder))}")
    failed = len(report.not_finished) + unrecorded
    with suppress(OSError):  # a full disk may be why jobs failed
        sweep.write_result("failed" if failed and status == "finished" else status, len(report.entries), failed)
    return failed
