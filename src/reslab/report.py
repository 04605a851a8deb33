"""A leaderboard of runs and sweeps: on the terminal, as report.csv and, with figures, as report.html."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reslab.errors import UserError
from reslab.files import write_csv, write_text
from reslab.options import shown
from reslab.runs import Configuration, Run, Summary, configurations, differing, find_runs

ABSENT = "-"  # a parameter that a configuration has not, e.g. the momentum of Adam
SPREAD = "mean ± standard deviation over n seeds [95% confidence interval of the mean, Student's t]"
ACCURACIES = ("val/accuracy", "test/accuracy")


@dataclass(frozen=True)
class Report:
    runs: list[Run]
    configurations: list[Configuration]  # the best first
    parameters: list[str]  # those that differ

    @property
    def failures(self) -> list[Run]:
        return [run for run in self.runs if run.result["status"] not in ("finished", "pruned")]

    @property
    def pruned(self) -> list[Run]:
        """Ended early by a search, for promising nothing."""
        return [run for run in self.runs if run.result["status"] == "pruned"]

    @property
    def repeated(self) -> list[Run]:
        """Finished runs whose configuration and seed a later one has too."""
        counted = {run.folder for configuration in self.configurations for run in configuration.runs}
        return [run for run in self.runs if run.finished and run.folder not in counted]

    def name(self, run: Run) -> str:
        """A job of a sweep by its number."""
        number, _, rest = run.folder.name.partition("_")
        if not rest or not number.isdecimal():
            return run.folder.name
        one_sweep = len({run.folder.parent for run in self.runs}) == 1
        return f"job {number}" if one_sweep else f"{run.folder.parent.name}/{number}"


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
        for metric in ACCURACIES:
            if summary := configuration.summary(metric):
                names = (f"{metric} {part}" for part in ("mean", "deviation", "95% low", "95% high"))
                row |= dict(zip(names, summary[1:], strict=True))
        if seconds := configuration.summary("train/seconds"):
            row["train/seconds mean"] = seconds.mean
        rows.append(row | {"best run": str(configuration.best.folder)})
    return rows


def value_of(run: Run | Configuration, name: str) -> str:
    return shown(run.settings.get(name, ABSENT))


def write_report(report: Report, output: Path) -> None:
    """report.html; report.csv, a row a configuration; runs.csv, a row a run."""
    from reslab.report_page import page  # matplotlib, half a second after the table is on the terminal

    rows = leaderboard(report)
    runs = [
        {name: value_of(run, name) for name in report.parameters}
        | {"seed": run.seed}
        | {name: value for name, value in run.result.items() if not isinstance(value, dict)}
        | {"folder": run.folder}
        for run in sorted(report.runs, key=lambda run: -run.result.get("val/accuracy", -1.0))
    ]
    try:
        for name, table in (("report", rows), ("runs", runs)):
            write_csv(output / f"{name}.csv", table, dict.fromkeys(key for row in table for key in row))
        write_text(output / "report.html", page(report))
    except OSError as error:
        raise UserError(f"the report cannot be written into {output}: {error.strerror}") from error


# on the terminal


def print_report(report: Report) -> None:
    console = Console(markup=False, emoji=False)  # names are shown as they are
    with_seeds = any(len(configuration.runs) > 1 for configuration in report.configurations)
    if report.configurations:
        print_leaderboard(report, with_seeds, console)
    if with_seeds:
        console.print(f"accuracy: {SPREAD}", soft_wrap=True)
    if report.pruned:
        console.print(f"not counted: {count(report.pruned, 'run')} that the search has pruned")
    if report.repeated:
        console.print(f"not counted: {count(report.repeated, 'run')} with the configuration and seed of a later one")
    for run in report.failures:
        console.print(f"{report.name(run)} {run.failure}", soft_wrap=True, highlight=False)


def print_leaderboard(report: Report, with_seeds: bool, console: Console) -> None:
    """With as many of the parameters as the terminal is wide."""
    unlimited = console.options.update(width=10_000)
    for number in range(len(report.parameters), -1, -1):
        table = leaderboard_table(report, report.parameters[:number], with_seeds)
        if console.measure(table, options=unlimited).minimum <= console.width:
            break
    console.print(table)
    if left_out := report.parameters[number:]:
        console.print(f"differing too, and shown in report.html: {', '.join(left_out)}", soft_wrap=True)


def leaderboard_table(report: Report, parameters: Sequence[str], with_seeds: bool) -> Table:
    runs = [run for configuration in report.configurations for run in configuration.runs]
    counted = count(runs, "run")
    if with_seeds:
        counted = f"{count(report.configurations, 'configuration')} ({counted})"
    table = Table(title=f"{counted} by validation accuracy", title_justify="left", collapse_padding=True)
    numbers = [*(["n"] if with_seeds else []), *ACCURACIES, "seconds"]
    table.add_column("best run" if with_seeds else "run", overflow="fold")
    for name in parameters:
        longest = max(len(value_of(configuration, name)) for configuration in report.configurations)
        table.add_column(name.replace(".", ".\n"), overflow="fold", min_width=min(longest, 20))
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for configuration in report.configurations:
        accuracies = [summary_text(configuration.summary(metric)).replace(" [", "\n[") for metric in ACCURACIES]
        seconds = configuration.summary("train/seconds")
        table.add_row(
            report.name(configuration.best),
            *(value_of(configuration, name) for name in parameters),
            *([str(len(configuration.runs))] if with_seeds else []),
            *accuracies,
            f"{seconds.mean:.4g}" if seconds else "",
        )
    return table


def count(things: Sequence[Any], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def summary_text(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.deviation is None:
        return f"{summary.mean:.4f}"
    return f"{summary.mean:.4f} ± {summary.deviation:.4f} [{summary.low:.4f}, {summary.high:.4f}]"
