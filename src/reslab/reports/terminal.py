"""A report on the terminal."""

import re
from collections.abc import Sequence
from itertools import product

from rich.console import Console
from rich.table import Table

from reslab.reports.configurations import Configuration, mean_and_interval, seconds_text
from reslab.reports.leaderboard import Report, failure_lines, notes_on_means
from reslab.reports.settings import ABSENT, differing_settings, rounded_text
from reslab.reports.writing import PAGE

DATE = re.compile(r"(\d{4}-\d\d-\d\d_)")  # the name of a run's folder may be broken after it
SETTING_WIDTHS = (20, 12)  # characters of a column of settings; the second one where the first does not fit


def print_report(report: Report) -> None:
    """Print the leaderboard, which runs it does not count, and why runs did not finish."""
    console = Console(markup=False, emoji=False)  # names are shown as they are
    for part in report.parts if report.configurations else ():
        print_leaderboard(part, console)
    if report.has_several_seeds:
        console.print(f"accuracy: {report.legend}", soft_wrap=True)
    for line in notes_on_means(report):
        console.print(line, soft_wrap=True)
    for line in failure_lines(report):
        console.print(line, soft_wrap=True, highlight=False)


def print_leaderboard(report: Report, console: Console) -> None:
    """Print the table with as many of the settings in which its rows differ as the terminal has room for."""
    unlimited = console.options.update(width=10_000)
    differing = differing_settings([configuration.settings for configuration in report.configurations])
    for number, setting_width in product(range(len(differing), -1, -1), SETTING_WIDTHS):
        table = leaderboard_table(report, differing[:number], setting_width)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    console.print(f"{report.subject}: {report.title} {report.ranking}", style="italic", soft_wrap=True, highlight=False)
    console.print(table)
    if left_out := differing[number:]:
        console.print(f"settings that differ too, shown in {PAGE}: {', '.join(left_out)}", soft_wrap=True)


def leaderboard_table(report: Report, settings: Sequence[str], setting_width: int) -> Table:
    table = Table(collapse_padding=True, pad_edge=False)
    table.add_column("best\nrun" if report.has_several_seeds else "run", overflow="fold")
    for name in settings:
        table.add_column(name.replace(".", ".\n"), overflow="fold", max_width=setting_width)
    for name in (*(["n"] if report.has_several_seeds else []), *report.metric_names, "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for configuration in report.configurations:
        table.add_row(*leaderboard_row(report, configuration, settings))
    return table


def leaderboard_row(report: Report, configuration: Configuration, settings: Sequence[str]) -> list[str]:
    name = report.display_name(configuration.best)
    seconds = configuration.statistics("train/seconds")
    return [
        DATE.sub(r"\1\n", name) if report.has_several_seeds else name,
        *(rounded_text(configuration.settings.get(setting, ABSENT)) for setting in settings),
        *([configuration.size.replace(" x ", "\nx ")] if report.has_several_seeds else []),
        *(mean_and_interval(configuration, metric).replace(" [", "\n[") for metric in report.metric_names),
        seconds_text(seconds.mean) if seconds else "",
    ]
