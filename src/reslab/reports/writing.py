"""The files of a report."""

from pathlib import Path

from reslab.errors import UserError
from reslab.files import write_csv, write_text
from reslab.reports.leaderboard import Report, leaderboard, value_of
from reslab.reports.page import page
from reslab.reports.runs import rank


def write_report(report: Report, output: Path) -> None:
    """report.html; report.csv, a row a configuration; runs.csv, a row a run."""
    rows = leaderboard(report)
    runs = [
        {name: value_of(run, name) for name in report.parameters}
        | {"seed": run.seed}
        | {name: value for name, value in run.result.items() if not isinstance(value, dict)}
        | {"folder": run.folder}
        for run in sorted(report.runs, key=lambda run: rank(run.result), reverse=True)
    ]
    try:
        for name, table in (("report", rows), ("runs", runs)):
            write_csv(output / f"{name}.csv", table, dict.fromkeys(key for row in table for key in row))
        write_text(output / "report.html", page(report))
    except OSError as error:
        raise UserError(f"the report cannot be written into {output}: {error.strerror}") from error
