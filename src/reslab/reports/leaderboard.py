"""The leaderboard: configurations from the best to the worst, and what their means leave out."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reslab.configuration import has_prefix
from reslab.reports.configurations import ACCURACIES, Configuration, group_by_settings, ranking_key
from reslab.reports.entries import Entry, natural_order, read_entries
from reslab.reports.settings import data_set, differing_settings, setting_text
from reslab.reports.statistics import PERCENT
from reslab.run import canonical
from reslab.text import counted, printable

MAX_ENUMERATED = 3  # models in a title, of more of them only their number
MAX_NAMED_RUNS = 5  # in a line; runs.csv has all of them


@dataclass(frozen=True)
class Report:
    """Runs, and the configurations that they form.

    Attributes:
        entries: all runs.
        configurations: the finished runs, grouped by their settings, the best configuration first.
        differing_settings: names of the settings in which the runs differ, finished or not.
        is_of_one_sweep: whether the numbers of jobs are names enough.
    """

    entries: list[Entry]
    configurations: list[Configuration]
    differing_settings: list[str]
    is_of_one_sweep: bool

    @cached_property
    def parts(self) -> list["Report"]:
        """One report per data set, in the order of their names: accuracies on different images have no common rank."""
        configurations: dict[str, list[Configuration]] = {}
        for configuration in self.configurations:
            configurations.setdefault(data_set(configuration.settings), []).append(configuration)
        if len(configurations) < 2:
            return [self]
        entries: dict[str, list[Entry]] = {}
        for entry in self.entries:
            entries.setdefault(data_set(entry.settings), []).append(entry)
        parts = []
        for name in sorted(configurations, key=natural_order):
            differing = differing_settings([entry.settings for entry in entries[name]])
            parts.append(Report(entries[name], configurations[name], differing, self.is_of_one_sweep))
        return parts

    @cached_property
    def subject(self) -> str:
        """The models and data sets, e.g. `resnet8 and resnet20 on digits`."""
        shown = [each.settings for each in self.configurations] or [each.settings for each in self.entries]
        models = dict.fromkeys(str(each["model"]) for each in shown if "model" in each)
        data = dict.fromkeys(data_set(each) for each in shown if each)
        return f"{enumeration(models, 'model')} on {enumeration(data, 'data set')}"

    @property
    def not_finished(self) -> list[Entry]:
        """Runs that failed, were interrupted, or have no result for another reason. Pruned runs are not among them."""
        return [entry for entry in self.entries if not entry.has_ended]

    @property
    def pruned(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.is_pruned]

    @property
    def superseded(self) -> list[Entry]:
        """Finished runs that are not counted, because a newer run has the same settings and the same seed."""
        counted = {entry.folder for configuration in self.configurations for entry in configuration.entries}
        return [entry for entry in self.entries if entry.is_finished and entry.folder not in counted]

    @cached_property
    def metric_names(self) -> list[str]:
        """The metrics to show: the accuracies, of which the first one ranks, then what a search optimizes."""
        names = dict.fromkeys((*ACCURACIES, *(name for entry in self.entries for name in entry.objectives)))
        return [name for name in names if any(each.statistics(name) for each in self.configurations)]

    @cached_property
    def has_several_seeds(self) -> bool:
        return any(len(configuration.entries) > 1 for configuration in self.configurations)

    @property
    def repeats(self) -> str:
        """What the runs of a configuration are: seeds, or runs where some have several folds."""
        has_folds = any(len({entry.fold for entry in each.entries}) > 1 for each in self.configurations)
        return "runs" if has_folds else "seeds"

    @property
    def legend(self) -> str:
        """What the leaderboard says of an accuracy."""
        interval = f"{PERCENT} confidence interval for other {self.repeats} and images"
        return f"mean ± standard deviation over n {self.repeats} [{interval}]"

    @property
    def title(self) -> str:
        """What the leaderboard contains, e.g. `2 configurations (4 runs)`."""
        runs = counted(sum(len(configuration.entries) for configuration in self.configurations), "run")
        return f"{counted(len(self.configurations), 'configuration')} ({runs})" if self.has_several_seeds else runs

    @property
    def ranking(self) -> str:
        return "by validation accuracy" if ACCURACIES[0] in self.metric_names else "by test accuracy"

    def display_name(self, entry: Entry) -> str:
        """Return a short name for a run: `job 3` in a sweep, otherwise the name of its folder."""
        number, _, rest = entry.folder.name.partition("_")
        if not rest or not number.isdecimal():
            return printable(entry.folder.name)
        return f"job {number}" if self.is_of_one_sweep else printable(f"{entry.folder.absolute().parent.name}/{number}")


def read_report(folders: Sequence[Path]) -> Report:
    """Read the runs in some folders or below them.

    Args:
        folders: folders of runs, of sweeps, or that contain some.

    Raises:
        UserError: a folder does not exist or contains no run.
    """
    entries = read_entries(folders)
    settings = [entry.settings for entry in entries if entry.settings]
    is_of_one_sweep = len({entry.folder.absolute().parent for entry in entries}) == 1
    return Report(entries, group_by_settings(entries), differing_settings(settings), is_of_one_sweep)


def leaderboard(report: Report) -> list[dict[str, Any]]:
    """Return one row per configuration, the best of each data set first.

    Returns:
        The columns are `place` from 1 in each data set, `data set` if there are several, the settings that differ, the
        number of runs `n`, the statistics of every metric (`val/accuracy mean`, `val/accuracy deviation`, …; the
        deviation is None for one run, and the bounds where there is no interval), the training time in seconds, and the
        folder of the best run. A metric that no run of a row has is left out.
    """
    rows = []
    for place, configuration in (placed for part in report.parts for placed in enumerate(part.configurations, 1)):
        row: dict[str, Any] = {"place": place}
        if len(report.parts) > 1:
            row["data set"] = data_set(configuration.settings)
        row |= {name: setting_text(configuration.settings, name) for name in report.differing_settings}
        row |= {"n": len(configuration.entries)}
        for metric in report.metric_names:
            if statistics := configuration.statistics(metric):
                parts = ("n", "mean", "deviation", f"{PERCENT} low", f"{PERCENT} high")
                columns = (f"{metric} {part}" for part in parts)
                row |= dict(zip(columns, statistics[:5], strict=True))
        if seconds := configuration.statistics("train/seconds"):
            row["train/seconds mean"] = seconds.mean
        rows.append(row | {"best run": configuration.best.location})
    return rows


def run_table(report: Report) -> list[dict[str, Any]]:
    """Return one row per run, the best first: the settings that differ, the seed, the plain results and the folder."""
    return [
        {name: setting_text(entry.settings, name) for name in report.differing_settings}
        | {"seed": entry.seed}
        | ({"fold": entry.fold} if any(each.fold is not None for each in report.entries) else {})
        | {name: value for name, value in entry.result.items() if not isinstance(value, dict)}
        | {"folder": entry.location}
        for entry in sorted(report.entries, key=lambda entry: ranking_key(entry.result), reverse=True)
    ]


# what a reader has to know in addition to the table


def notes_on_means(report: Report) -> list[str]:
    """Return lines that say what the means leave out or combine: runs, images, results of different provenance."""
    lines = [*partial_lines(report), *validated_on_test_lines(report)]
    found = [each.statistics(name) for each in report.configurations for name in report.metric_names]
    if any(statistics and statistics.overlap for statistics in found):
        lines.append(
            "intervals and tests allow for the training images that the folds of a cross-validation share (Nadeau and "
            "Bengio 2003)"
        )
    if report.pruned:
        lines.append(f"not counted: {counted(len(report.pruned), 'run')} that the search pruned")
    if report.superseded:
        names = beginning([report.display_name(entry) for entry in report.superseded])
        lines.append(f"not counted, because a newer run has the same configuration and seed: {names}")
    lines += [f"{report.display_name(entry)}: {entry.unwritten}" for entry in report.entries if entry.unwritten]
    lines += changed_images_lines(report)
    mixed: dict[str, list[str]] = {}
    for configuration in report.configurations:
        for name, values in configuration.provenance().items():
            if len(values) > 1:
                rows = mixed.setdefault(f"{name} ({', '.join(values)})", [])
                rows.append(report.display_name(configuration.best))
    return lines + [f"one row mixes {difference}: {beginning(rows)}" for difference, rows in mixed.items()]


def partial_lines(report: Report) -> list[str]:
    """Return one line per split of which some counted runs used only a part, e.g. with trainer.limit_test_batches."""
    lines = []
    for split in ("val", "test"):
        parts: dict[str, list[str]] = {}
        for entry in (entry for configuration in report.configurations for entry in configuration.entries):
            used, available = (entry.result.get(f"{split}/{name}") for name in ("images", "images_available"))
            if used is not None and available is not None and used < available:
                parts.setdefault(f"{used} of {available} images", []).append(report.display_name(entry))
        if parts:
            texts = (f"{part} ({beginning(names)})" for part, names in parts.items())
            lines.append(f"{split}/accuracy is that of a part of the images: {'; '.join(texts)}")
    return lines


def validated_on_test_lines(report: Report) -> list[str]:
    """Return a line if the validation images of counted runs were their test images."""
    entries = (entry for configuration in report.configurations for entry in configuration.entries)
    names = [report.display_name(entry) for entry in entries if entry.settings.get("data.validate_on_test")]
    if not names:
        return []
    return [f"val/accuracy is that of the test images, with data.validate_on_test=true: {beginning(names)}"]


def changed_images_lines(report: Report) -> list[str]:
    """Return a line if runs with equal options recorded different images.

    Another seed divides the images otherwise, and another version of a library may decode them otherwise, so the
    checksum of the divided and decoded images is compared between equal ones alone.
    """
    runs: dict[Hashable, dict[str, str]] = {}  # the name of one run by checksum, by what decides on the images
    for entry in (entry for entry in report.entries if entry.has_ended):
        options = {name: value for name, value in entry.settings.items() if has_prefix(name, ("data",))}
        known = [options, entry.fold]
        for checksum, deciding in (
            ("files_checksum", known),
            ("data_checksum", [*known, entry.seed, entry.result.get("versions")]),
        ):
            if value := entry.result.get(checksum):
                images = canonical([checksum, *deciding])
                runs.setdefault(images, {}).setdefault(value, report.display_name(entry))
    changed = [beginning(list(names.values())) for names in runs.values() if len(names) > 1]
    text = "the images of a data set differ between runs, although their options do not"
    return [f"{text}: {'; '.join(changed)}"] if changed else []


def failure_lines(report: Report) -> list[str]:
    """Return one line per reason why runs did not finish, e.g. `job 1, job 3 failed: out of memory`."""
    reasons: dict[str, list[str]] = {}
    for entry in report.not_finished:
        reasons.setdefault(entry.failure, []).append(report.display_name(entry))
    return [f"{beginning(names)} {reason}" for reason, names in reasons.items()]


def beginning(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = len(names) - MAX_NAMED_RUNS
    return f"{', '.join(names[:MAX_NAMED_RUNS])}{f' and {more} more' if more > 0 else ''}"


def enumeration(names: Iterable[str], noun: str) -> str:
    """Return e.g. `a`, `a and b`, or `4 models` of more than three."""
    *first, last = names or ["?"]
    if len(first) >= MAX_ENUMERATED:
        return counted(len(first) + 1, noun)
    return f"{', '.join(first)} and {last}" if first else last
