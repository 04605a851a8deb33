"""Two groups of runs: what differs in their settings and results, and whether the seeds' spread explains it."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reslab.errors import UserError
from reslab.options import TEST, VALIDATION
from reslab.reports.leaderboard import ABSENT, Report, count, failures, notes, read_report, spread, value_of
from reslab.reports.runs import ACCURACIES, Configuration, Summary, by_number, differing, identity, welch

SIGNIFICANT = 0.05
METRICS = (*VALIDATION, *TEST, "train/accuracy", "train/loss", "train/seconds")


def read_side(name: str, folders: Sequence[Path]) -> Report:
    """Raises UserError where the finished runs are not those of one configuration."""
    report = read_report(folders)
    found = report.configurations
    if not found:
        raise UserError(f"{name}: no run of {', '.join(map(str, folders))} has finished")
    if len(found) > 1:
        parameters = ", ".join(differing([configuration.settings for configuration in found]))
        raise UserError(f"{name} is {len(found)} configurations, which differ in {parameters}: name the runs of one")
    return report


def print_comparison(*reports: Report) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    first, second = sides = [report.configurations[0] for report in reports]
    for name, side, report in zip("AB", sides, reports, strict=True):
        seeds = ", ".join(sorted((str(run.seed) for run in side.runs), key=by_number))
        runs = count(side.runs, "run")
        console.print(f"{name}: {runs} (seed {seeds}), the best one {side.best.folder}", soft_wrap=True)
        for line in (*notes(report), *failures(report)):
            console.print(f"{name}: {line}", soft_wrap=True)
    different = settings_table(first, second)
    console.print(different if different.row_count else "nothing differs beside the seeds")
    console.print(results_table(first, second))
    for metric in ACCURACIES:
        a, b = first.summary(metric), second.summary(metric)
        if a and b:
            console.print(f"{metric}: {verdict(a, b)}", soft_wrap=True)


def settings_table(first: Configuration, second: Configuration) -> Table:
    table = Table("setting", title="what differs beside the seeds", title_justify="left")
    for name in "AB":
        table.add_column(name, overflow="fold")
    for name in dict.fromkeys((*first.settings, *second.settings)):
        if identity(first.settings.get(name)) != identity(second.settings.get(name)):
            table.add_row(name, value_of(first, name), value_of(second, name))
    origins = first.origins(), second.origins()
    for name in dict.fromkeys((*origins[0], *origins[1])):
        values = ", ".join(origins[0].get(name, [ABSENT])), ", ".join(origins[1].get(name, [ABSENT]))
        if values[0] != values[1]:
            table.add_row(name, *values)
    return table


def results_table(first: Configuration, second: Configuration) -> Table:
    table = Table(title="mean ± standard deviation; p of Welch's t-test", collapse_padding=True, title_justify="left")
    for name in ("metric", "A", "B", "B - A", "p"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for metric in METRICS:
        a, b = first.summary(metric), second.summary(metric)
        if a and b:
            spreads, tested = [spread(side, metric) for side in (first, second)], welch(a, b)
            table.add_row(metric, *spreads, f"{b.mean - a.mean:+.4f}", f"{tested.p:.2g}" if tested else "")
    return table


def verdict(first: Summary, second: Summary) -> str:
    difference = second.mean - first.mean
    shown = f"B - A = {difference:+.4f}"
    if first.deviation is None or second.deviation is None:
        return f"{shown}: one run cannot tell whether that is more than the seeds' spread; repeat with -m seed=1,2,3"
    tested = welch(first, second)
    if tested is None:
        without = "not every run has a number" if math.isnan(difference) else "neither side has a spread"
        return f"{shown}: {without}, so that no test applies"
    found, relation = ("more", "below") if tested.p < SIGNIFICANT else ("not more", "not below")
    return (
        f"{shown}, 95% confidence interval {tested.low:+.4f} to {tested.high:+.4f}: {found} than the seeds' "
        f"spread explains (Welch's t-test over {first.n} and {second.n} seeds: p = {tested.p:.2g}, {relation} "
        f"{SIGNIFICANT})"
    )
