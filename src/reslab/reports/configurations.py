"""Configurations: finished runs that differ only in their seeds and folds, ranked by their accuracy."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from reslab.reports.entries import Entry
from reslab.reports.origin import provenance
from reslab.reports.settings import Settings
from reslab.reports.statistics import Statistics, sample_statistics, with_interval
from reslab.run import canonical
from reslab.text import counted

ACCURACIES = ("val/accuracy", "test/accuracy")  # the first one that was measured decides the ranking


@dataclass(frozen=True)
class Configuration:
    """The finished runs with the same settings, one per seed, or per seed and fold of a cross-validation."""

    settings: Settings
    entries: list[Entry]

    @property
    def best(self) -> Entry:
        return max(self.entries, key=lambda entry: ranking_key(entry.result))

    def statistics(self, metric: str) -> Statistics | None:
        """Return the statistics over the runs that have the metric, or None if no run has it."""
        if metric not in self.computed:
            entries = [entry for entry in self.entries if metric in entry.result]
            statistics = sample_statistics([entry.result[metric] for entry in entries])
            if statistics and len({entry.fold for entry in entries}) > 1:
                statistics = statistics._replace(overlap=self.overlap)
            if statistics and metric in ACCURACIES:
                images = images_of(entries, metric, adds_folds=self.is_of_fold(metric))
                statistics = with_interval(statistics, images)
            self.computed[metric] = statistics
        return self.computed[metric]

    @property
    def overlap(self) -> float:
        """The number of images of a fold per training image: see `Statistics`."""
        is_divided_further = self.fold_split == "test" and not self.settings.get("data.validate_on_test")
        kept = self.settings.get("data.val_fraction", 0) if is_divided_further else 0
        return 1 / (self.settings["data.folds"] - 1) / (1 - kept)

    @property
    def fold_split(self) -> str | None:
        """The split that was the fold; None where the runs do not all say the same."""
        splits = {entry.result.get("fold_split") for entry in self.entries}
        return splits.pop() if len(splits) == 1 else None

    def is_of_fold(self, metric: str) -> bool:
        """Return whether a metric was measured on the fold, so that each fold has other images."""
        split = metric.partition("/")[0]
        validated_on_test = split == "val" and self.settings.get("data.validate_on_test")
        return self.fold_split == ("test" if validated_on_test else split)

    @property
    def size(self) -> str:
        """How many runs there are: `3` of seeds, or `5 folds` or `5 folds x 3 seeds` of a cross-validation."""
        runs, folds = len(self.entries), {entry.fold for entry in self.entries}
        seeds = {entry.seed for entry in self.entries}
        if folds == {None}:
            return str(runs)
        if runs != len(folds) * len(seeds):
            return counted(runs, "run")
        return counted(len(folds), "fold") + (f" x {counted(len(seeds), 'seed')}" if len(seeds) > 1 else "")

    @cached_property
    def computed(self) -> dict[str, Statistics | None]:
        """The statistics that were asked for, by metric."""
        return {}

    def provenance(self) -> dict[str, list[str]]:
        """Return where the results come from, e.g. `versions.torch`: one value each if all runs agree."""
        return provenance(self.entries)


def images_of(entries: Iterable[Entry], metric: str, adds_folds: bool) -> int | None:
    """Return how many images an accuracy is a proportion of, the fewest of some runs; None where one does not say it.

    Runs of older versions do not. The images of the folds themselves are different ones, so they are added. A test set
    beside the folds is the same in all of them, and validation images beside the fold are mostly the same.
    """
    fewest: dict[int | None, float] = {}
    for entry in entries:
        number = entry.result.get(f"{metric.partition('/')[0]}/images", 0)
        fewest[entry.fold] = min(number, fewest.get(entry.fold, math.inf))
        if not 1 <= number < math.inf:
            return None
    return int(sum(fewest.values()) if adds_folds else min(fewest.values()))


def group_by_settings(entries: Iterable[Entry]) -> list[Configuration]:
    """Group the finished runs into configurations.

    Runs with the same settings, seed and fold are not independent, so only the one that was trained last is kept.

    Returns:
        The configurations, the best first: by mean validation accuracy, or by mean test accuracy without validation.
    """
    groups: dict[Hashable, dict[tuple[int | None, int | None], Entry]] = {}
    for entry in entries:
        if entry.is_finished:
            group = groups.setdefault(canonical(entry.settings), {})
            which = entry.seed, entry.fold
            group[which] = max(entry, group.get(which, entry), key=lambda each: each.ended_at)
    found = [Configuration(next(iter(group.values())).settings, list(group.values())) for group in groups.values()]
    return sorted(found, key=lambda configuration: ranking_key(mean_accuracies(configuration)), reverse=True)


def mean_accuracies(configuration: Configuration) -> dict[str, float]:
    return {name: statistics.mean for name in ACCURACIES if (statistics := configuration.statistics(name))}


def ranking_key(metrics: Mapping[str, float]) -> list[float]:
    """Return a sorting key that is larger for better accuracies. A missing accuracy or NaN is the worst."""
    values = (metrics.get(name, math.nan) for name in ACCURACIES)
    return [-1.0 if math.isnan(value) else value for value in values]


# statistics as text


def mean_and_deviation(configuration: Configuration, metric: str) -> str:
    """Return e.g. `0.9000 ± 0.0100`, with `(n=2)` if some runs do not have the metric."""
    statistics = configuration.statistics(metric)
    if statistics is None:
        return ""
    fewer = f" (n={statistics.n})" if statistics.n < len(configuration.entries) else ""
    if statistics.deviation is None or not math.isfinite(statistics.mean):
        return f"{metric_text(statistics.mean)}{fewer}"
    return f"{metric_text(statistics.mean)} ± {metric_text(statistics.deviation)}{fewer}"


def mean_and_interval(configuration: Configuration, metric: str) -> str:
    """Return the mean, the standard deviation and the confidence interval of the mean."""
    text, statistics = mean_and_deviation(configuration, metric), configuration.statistics(metric)
    if statistics is None or statistics.low is None or statistics.high is None or not math.isfinite(statistics.mean):
        return text
    return f"{text} [{metric_text(statistics.low)}, {metric_text(statistics.high)}]"


def seconds_text(seconds: float) -> str:
    """Return a duration with four digits, zeros included: 1.940 below 2.031. A longer one has no decimals."""
    return f"{seconds:.0f}" if 1000 <= seconds < 1e9 else f"{seconds:#.4g}".removesuffix(".")


def metric_text(number: float, sign: Literal["", "+"] = "") -> str:
    """Return a number with four decimals, or a large one, such as a number of parameters, with seven digits.

    Args:
        number: the number.
        sign: "+" for a sign before a positive number too.
    """
    return f"{number:{sign}.4f}" if abs(number) < 1000 else f"{number:{sign}.7g}"
