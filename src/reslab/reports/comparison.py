"""The comparison of two configurations: how their settings and results differ, and whether by more than the seeds."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reslab.errors import UserError
from reslab.reports.configurations import ACCURACIES, Configuration, mean_and_deviation, metric_text
from reslab.reports.entries import natural_order
from reslab.reports.leaderboard import Report, failure_lines, notes_on_means, read_report
from reslab.reports.settings import ABSENT, differing_settings, setting_text
from reslab.reports.statistics import PERCENT, SIGNIFICANCE_LEVEL, Statistics, compare_accuracies, welch
from reslab.run import canonical
from reslab.text import counted, printable
from reslab.training.options import TEST_METRICS, VALIDATION_METRICS

METRICS = (*VALIDATION_METRICS, *TEST_METRICS, "train/accuracy", "train/loss", "train/seconds")


def read_side(name: str, folders: Sequence[Path]) -> Report:
    """Read one side of a comparison.

    Args:
        name: what error messages call the side.
        folders: folders of runs, of sweeps, or that contain some.

    Raises:
        UserError: a folder contains no run, no run has finished, or the finished runs have different settings.
    """
    report = read_report(folders)
    found = report.configurations
    if not found:
        raise UserError(printable(f"{name}: no run of {', '.join(map(str, folders))} has finished"))
    if len(found) > 1:
        settings = ", ".join(differing_settings([configuration.settings for configuration in found]))
        raise UserError(f"{name} has {len(found)} configurations, which differ in {settings}: give the runs of one")
    return report


def refuse_shared_runs(*reports: Report) -> None:
    """Raise UserError if a run is on both sides, because the test takes the sides for independent."""
    first, second = (
        {entry.folder.resolve() for each in report.configurations for entry in each.entries} for report in reports
    )
    if shared := sorted(first & second):
        raise UserError(printable(f"{shared[0]} is on both sides: versus compares different runs"))


def print_comparison(*reports: Report) -> None:
    """Print how the configurations of two reports differ in settings and results.

    The last lines say for each accuracy whether the means differ by more than the variation between runs explains.

    Args:
        reports: two reports of one configuration each, as `read_side` returns them.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    first, second = sides = [report.configurations[0] for report in reports]
    for name, side, report in zip("AB", sides, reports, strict=True):
        seeds, folds = ({str(getattr(each, kind)) for each in side.entries} for kind in ("seed", "fold"))
        listed = f"seed {', '.join(sorted(seeds, key=natural_order))}"
        runs = counted(len(side.entries), "run")
        if folds != {"None"}:
            listed += f"; fold {', '.join(sorted(folds, key=natural_order))}"
            runs = f"{side.size}, {runs}"
        console.print(f"{name}: {runs} ({listed}), the best one {side.best.location}", soft_wrap=True)
        for line in (*notes_on_means(report), *failure_lines(report)):
            console.print(f"{name}: {line}", soft_wrap=True)
    settings = settings_table(first, second)
    console.print(settings if settings.row_count else same_settings_line(first, second))
    console.print(results_table(first, second))
    for metric in ACCURACIES:
        a, b = first.statistics(metric), second.statistics(metric)
        if a and b:
            console.print(f"{metric}: {verdict(a, b)}", soft_wrap=True)


def same_settings_line(first: Configuration, second: Configuration) -> str:
    """Say what else differs between two configurations of equal settings: the seeds, the folds, both or neither."""
    one, other = ({(entry.seed, entry.fold) for entry in side.entries} for side in (first, second))
    if one == other:
        return "the settings and the seeds are the same"
    same_seeds, same_folds = ({each[place] for each in one} == {each[place] for each in other} for place in (0, 1))
    if same_seeds == same_folds:
        return "only the seeds and the folds differ"
    return f"only the {'folds' if same_seeds else 'seeds'} differ"


def settings_table(first: Configuration, second: Configuration) -> Table:
    table = Table("setting", title="differences other than the seeds", title_justify="left")
    for name in "AB":
        table.add_column(name, overflow="fold")
    for name in dict.fromkeys((*first.settings, *second.settings)):
        if canonical(first.settings.get(name), name) != canonical(second.settings.get(name), name):
            table.add_row(name, setting_text(first.settings, name), setting_text(second.settings, name))
    provenances = first.provenance(), second.provenance()
    for name in dict.fromkeys((*provenances[0], *provenances[1])):
        values = [", ".join(provenance.get(name, [ABSENT])) for provenance in provenances]
        if values[0] != values[1]:
            table.add_row(name, *values)
    return table


def results_table(first: Configuration, second: Configuration) -> Table:
    table = Table(title="mean ± standard deviation; p of Welch's t-test", collapse_padding=True, title_justify="left")
    for name in ("metric", "A", "B", "B - A", "p"):
        table.add_column(name, justify="left" if name == "metric" else "right", no_wrap=True)
    for metric in METRICS:
        a, b = first.statistics(metric), second.statistics(metric)
        if a and b:
            texts, difference = [mean_and_deviation(side, metric) for side in (first, second)], welch(a, b)
            p = "" if difference.p is None else f"{difference.p:.2g}"
            table.add_row(metric, *texts, metric_text(difference.mean, "+"), p)
    return table


def verdict(first: Statistics, second: Statistics) -> str:
    """Say whether two mean accuracies differ by more than the variation between the runs of each explains."""
    difference = compare_accuracies(first, second)
    text = f"B - A = {metric_text(difference.mean, '+')}"
    repeats = "runs" if first.overlap or second.overlap else "seeds"  # runs of a cross-validation
    if first.deviation is None or second.deviation is None:
        return f"{text}: a side of one run does not show the variation between {repeats}; repeat it with -m seed=1,2,3"
    if difference.p is None:
        is_nan = math.isnan(difference.mean)
        reason = "a result is not a number" if is_nan else f"the {repeats} of each side have equal results"
        return f"{text}: no test applies, because {reason}"
    low, high = (metric_text(bound, "+") for bound in (difference.low, difference.high))  # type: ignore[arg-type]
    is_more, relation = ("more", "below") if difference.p < SIGNIFICANCE_LEVEL else ("not more", "not below")
    return (
        f"{text}, {PERCENT} confidence interval {low} to {high}: {is_more} than the "
        f"variation between {repeats} explains (Welch's t-test over {first.n} and {second.n} {repeats}: "
        f"p = {difference.p:.2g}, {relation} {SIGNIFICANCE_LEVEL})"
    )
