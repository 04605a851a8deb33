"""A leaderboard of runs and sweeps, and how it looks on the terminal."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reslab.options import shown
from reslab.reports.runs import ACCURACIES, Configuration, Run, configurations, differing, find_runs
from reslab.resuming import ENDED

ABSENT = "-"  # a parameter that a configuration has not, e.g. the momentum of Adam
SPREAD = "mean ± standard deviation over n seeds [95% confidence interval of the mean, Student's t]"
DATE = re.compile(r"(\d{4}-\d\d-\d\d_)")  # of a folder; where its name may be broken
WIDEST = (20, 12)  # characters of a column of settings, where the terminal has room for that and where it has not


@dataclass(frozen=True)
class Report:
    runs: list[Run]
    configurations: list[Configuration]  # the best first
    parameters: list[str]  # those that differ

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.result["status"] not in ENDED]

    @property
    def pruned(self) -> list[Run]:
        """Ended early by a search, for promising nothing."""
        return [run for run in self.runs if run.result["status"] == "pruned"]

    @property
    def repeated(self) -> list[Run]:
        """Finished runs whose configuration and seed a newer one has too, which is counted."""
        counted = {run.folder for configuration in self.configurations for run in configuration.runs}
        return [run for run in self.runs if run.finished and run.folder not in counted]

    @property
    def metrics(self) -> list[str]:
        """The first one ranks: the test accuracy where nothing was validated. What a search is for stands last."""
        names = dict.fromkeys((*ACCURACIES, *(name for run in self.runs for name in run.objectives)))
        return [name for name in names if any(each.summary(name) for each in self.configurations)]

    @property
    def counted(self) -> str:
        """For a heading: what the table is of. Runs that are not in it are told below."""
        runs = count([run for configuration in self.configurations for run in configuration.runs], "run")
        return f"{count(self.configurations, 'configuration')} ({runs})" if self.with_seeds else runs

    @property
    def with_seeds(self) -> bool:
        return any(len(configuration.runs) > 1 for configuration in self.configurations)

    @property
    def order(self) -> str:
        """For a heading."""
        return " by validation accuracy" if ACCURACIES[0] in self.metrics else " by test accuracy"

    def name(self, run: Run) -> str:
        """A job of a sweep by its number."""
        number, _, rest = run.folder.name.partition("_")
        if not rest or not number.isdecimal():
            return run.folder.name
        return f"job {number}" if self.of_one_sweep else f"{run.folder.absolute().parent.name}/{number}"

    @cached_property
    def of_one_sweep(self) -> bool:
        return len({run.folder.absolute().parent for run in self.runs}) == 1


def read_report(folders: Sequence[Path]) -> Report:
    """Raises UserError for a folder that is no run's and no sweep's."""
    runs = find_runs(folders)
    return Report(runs, configurations(runs), differing([run.settings for run in runs if run.settings]))


def leaderboard(report: Report) -> list[dict[str, Any]]:
    """The rows of report.csv: a configuration each."""
    rows = []
    for place, configuration in enumerate(report.configurations, 1):
        row: dict[str, Any] = {"place": place}
        row |= {name: value_of(configuration, name) for name in report.parameters}
        row |= {"n": len(configuration.runs)}
        for metric in report.metrics:
            if summary := configuration.summary(metric):
                names = (f"{metric} {part}" for part in ("n", "mean", "deviation", "95% low", "95% high"))
                row |= dict(zip(names, summary, strict=True))
        if seconds := configuration.summary("train/seconds"):
            row["train/seconds mean"] = seconds.mean
        rows.append(row | {"best run": str(configuration.best.folder)})
    return rows


def value_of(run: Run | Configuration, name: str) -> str:
    return shown(run.settings.get(name, ABSENT))


def brief(value: Any) -> str:
    """A number that a search has drawn, 0.00037960330329289693, to four digits: for those who read it."""
    text = shown(value)
    return f"{value:.4g}" if isinstance(value, float) and len(text) > 8 else text


# on the terminal


def print_report(report: Report) -> None:
    console = Console(markup=False, emoji=False)  # names are shown as they are
    if report.configurations:
        print_leaderboard(report, console)
    if report.with_seeds:
        console.print(f"accuracy: {SPREAD}", soft_wrap=True)
    for line in notes(report):
        console.print(line, soft_wrap=True)
    for line in failures(report):
        console.print(line, soft_wrap=True, highlight=False)


def notes(report: Report) -> list[str]:
    """What the means do not count, and where they mix what may not be alike."""
    lines = []
    if report.pruned:
        lines.append(f"not counted: {count(report.pruned, 'run')} that the search has pruned")
    if report.repeated:
        names = ", ".join(report.name(run) for run in report.repeated)
        lines.append(f"not counted, for a newer run has the same configuration and seed: {names}")
    mixed: dict[str, list[str]] = {}
    for configuration in report.configurations:
        for name, values in configuration.origins().items():
            if len(values) > 1:
                mixed.setdefault(f"{name} ({', '.join(values)})", []).append(report.name(configuration.best))
    return lines + [f"runs of one row differ in {origin}: {', '.join(names)}" for origin, names in mixed.items()]


def failures(report: Report) -> list[str]:
    """A line a reason."""
    reasons: dict[str, list[str]] = {}
    for run in report.failures:
        reasons.setdefault(run.failure, []).append(report.name(run))
    return [f"{', '.join(names)} {reason}" for reason, names in reasons.items()]


def print_leaderboard(report: Report, console: Console) -> None:
    """With as many of the parameters as the terminal is wide."""
    unlimited = console.options.update(width=10_000)
    for number, widest in product(range(len(report.parameters), -1, -1), WIDEST):
        table = leaderboard_table(report, report.parameters[:number], widest)
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
    console.print(table)
    if left_out := report.parameters[number:]:
        console.print(f"differing too, and shown in report.html: {', '.join(left_out)}", soft_wrap=True)


def leaderboard_table(report: Report, parameters: Sequence[str], widest: int) -> Table:
    table = Table(title=report.counted + report.order, title_justify="left", collapse_padding=True, pad_edge=False)
    numbers = [*(["n"] if report.with_seeds else []), *report.metrics, "seconds"]
    table.add_column("best\nrun" if report.with_seeds else "run", overflow="fold")
    for name in parameters:
        table.add_column(name.replace(".", ".\n"), overflow="fold", max_width=widest)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for configuration in report.configurations:
        accuracies = [summary_text(configuration, metric).replace(" [", "\n[") for metric in report.metrics]
        seconds = configuration.summary("train/seconds")
        name = report.name(configuration.best)
        table.add_row(
            DATE.sub(r"\1\n", name) if report.with_seeds else name,
            *(brief(configuration.settings.get(parameter, ABSENT)) for parameter in parameters),
            *([str(len(configuration.runs))] if report.with_seeds else []),
            *accuracies,
            f"{seconds.mean:.4g}" if seconds else "",
        )
    return table


def count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def summary_text(configuration: Configuration, metric: str) -> str:
    """The spread and the confidence interval of the mean."""
    text, summary = spread(configuration, metric), configuration.summary(metric)
    if summary is None or summary.low is None or summary.high is None or not math.isfinite(summary.mean):
        return text
    return f"{text} [{four(summary.low)}, {four(summary.high)}]"


def spread(configuration: Configuration, metric: str) -> str:
    """`0.9000 ± 0.0100`, and `(n=2)` where not all runs have the metric."""
    summary = configuration.summary(metric)
    if summary is None:
        return ""
    fewer = f" (n={summary.n})" if summary.n < len(configuration.runs) else ""
    if summary.deviation is None or not math.isfinite(summary.mean):
        return f"{four(summary.mean)}{fewer}"
    return f"{four(summary.mean)} ± {four(summary.deviation)}{fewer}"


def four(number: float) -> str:
    """Decimals; none of a count, e.g. of parameters."""
    return f"{number:.4f}" if abs(number) < 1000 else f"{number:.7g}"
