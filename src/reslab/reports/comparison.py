"""Two groups of runs: what differs in their settings and results, and whether the seeds' spread explains it."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reslab.errors import UserError
from reslab.options import TEST, VALIDATION
from reslab.reports.leaderboard import ABSENT, count, value_of
from reslab.reports.runs import (
    ACCURACIES,
    Configuration,
    Summary,
    by_number,
    configurations,
    differing,
    find_runs,
    welch,
)

SIGNIFICANT = 0.05
METRICS = (*VALIDATION, *TEST, "train/accuracy", "train/loss", "train/seconds")


def read_side(name: str, folders: Sequence[Path]) -> Configuration:
    """Raises UserError where the runs are not those of one configuration."""
    found = configurations(find_runs(folders))
    if not found:
        raise UserError(f"{name}: no run of {', '.join(map(str, folders))} has finished")
    if len(found) > 1:
        parameters = ", ".join(differing([configuration.settings for configuration in found]))
        raise UserError(f"{name} is {len(found)} configurations, which differ in {parameters}: name the runs of one")
    return found[0]


def print_comparison(first: Configuration, second: Configuration) -> None:
    console = Console(markup=False, emoji=False, highlight=False)
    for name, side in (("A", first), ("B", second)):
        seeds = ", ".join(sorted((str(run.seed) for run in side.runs), key=by_number))
        runs = count(side.runs, "run")
        console.print(f"{name}: {runs} (seed {seeds}), the best one {side.best.folder}", soft_wrap=True)
    different = settings_table(first, second)
    console.print(different if different.row_count else "nothing differs beside the seeds")
    console.print(results_table(first, second))
    for metric in ACCURACIES:
        sides = first.summary(metric), second.summary(metric)
        if sides[0] and sides[1]:
            console.print(f"{metric}: {verdict(sides[0], sides[1])}", soft_wrap=True)


def settings_table(first: Configuration, second: Configuration) -> Table:
    table = Table("setting", title="what differs beside the seeds", title_justify="left")
    for name in "AB":
        table.add_column(name, overflow="fold")
    for name in dict.fromkeys((*first.settings, *second.settings)):
        values = value_of(first, name), value_of(second, name)
        if values[0] != values[1]:
            table.add_row(name, *values)
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
        sides = first.summary(metric), second.summary(metric)
        if sides[0] and sides[1]:
            tested = welch(sides[0], sides[1])
            difference = f"{sides[1].mean - sides[0].mean:+.4f}"
            table.add_row(metric, spread(sides[0]), spread(sides[1]), difference, f"{tested.p:.2g}" if tested else "")
    return table


def spread(summary: Summary) -> str:
    return f"{summary.mean:.4f}" if summary.deviation is None else f"{summary.mean:.4f} ± {summary.deviation:.4f}"


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
