"""The files of a report."""

from pathlib import Path

from reslab.errors import UserError
from reslab.files import write_csv, write_text
from reslab.reports.leaderboard import Report, leaderboard, run_table

PAGE, LEADERBOARD, RUNS = FILES = ("report.html", "report.csv", "runs.csv")
COLUMNS = ("place", "n", "best run")  # of every leaderboard, also of one without a finished run


def write_report(report: Report, folder: Path) -> None:
    """Write the page, the leaderboard with one row per configuration, and a table with one row per run.

    Args:
        folder: where to write `FILES`. It is created if it does not exist; earlier reports in it are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    from reslab.reports.page import html_page  # importing Matplotlib takes 0.5 s, which only this function needs

    try:
        write_csv(folder / LEADERBOARD, leaderboard(report), COLUMNS)
        write_csv(folder / RUNS, run_table(report))
        write_text(folder / PAGE, html_page(report, folder))
    except OSError as error:
        raise UserError(f"the report cannot be written into {folder}: {error.strerror}") from error
