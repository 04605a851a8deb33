"""Runs read back from their folders, and grouped into configurations: what a report and a comparison start from."""

import csv
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from reslab.errors import UserError, suggest
from reslab.options import as_list
from reslab.resuming import flatten, read_result, starts

Settings = dict[str, Any]  # of a run, by dotted names
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast where it is there
# what is no parameter of an experiment: the result does not depend on it
NO_PARAMETERS = (
    "seed", "folder", "outputs", "resume", "objective", "test", "logger", "checkpoint", "data.num_workers",
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.profiler",
    "trainer.detect_anomaly", "callbacks.tensorboard_report", "callbacks.last_checkpoint", "sweep",
)  # fmt: skip
ACCURACIES = ("val/accuracy", "test/accuracy")
ORIGIN = ("device", "precision", "git_commit", "versions")  # in result.json: they may matter too


@dataclass(frozen=True)
class Run:
    folder: Path
    settings: Settings
    seed: int | None
    result: dict[str, Any]  # of result.json; status and error where there is none
    epochs: list[dict[str, float]]  # the rows of metrics.csv
    ended: float = 0.0  # when result.json was written, in seconds; 0 where there is none
    objectives: Sequence[str] = ()  # what a search that it belongs to is for

    @property
    def finished(self) -> bool:
        return self.result["status"] == "finished"

    @property
    def failure(self) -> str:
        return f"{self.result['status']}: {self.result.get('error', 'no result')}"


@dataclass(frozen=True)
class Configuration:
    """Finished runs that differ in nothing but their seeds."""

    settings: Settings
    runs: list[Run]

    def summary(self, metric: str) -> "Summary | None":
        return summarize([run.result[metric] for run in self.runs if metric in run.result])

    @property
    def best(self) -> Run:
        return max(self.runs, key=lambda run: rank(run.result))

    def origins(self) -> dict[str, list[str]]:
        """What the runs come from, e.g. versions.torch: one value each where they are alike."""
        found: dict[str, set[str]] = {}
        for run in self.runs:
            for name, value in flatten({name: run.result.get(name) for name in ORIGIN}).items():
                found.setdefault(name, set()).add(str(value))
        return {name: sorted(values) for name, values in found.items()}


class Summary(NamedTuple):
    n: int
    mean: float
    deviation: float | None  # of the sample; None for one run
    low: float | None  # 95% confidence interval of the mean, Student's t
    high: float | None


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Every training run in these folders or below them, each once. Raises UserError for a folder without any."""
    found: dict[Path, Run] = {}
    for folder in folders:
        if not folder.is_dir():
            siblings = [path.name for path in folder.parent.glob("*/")]
            advice = suggest(folder.name, siblings, "name a run's folder, a sweep's, or one that holds some")
            raise UserError(f"there is no folder {folder}{advice}")
        named = folder.resolve() if folder.name in ("", "..") else folder  # a run is called by its folder's name
        below = [path.parent for path in named.rglob(".hydra") if not (path.parent / "benchmark.json").exists()]
        if not below:
            raise UserError(f"{folder} holds no run: a run's folder has .hydra in it, a sweep's has folders of runs")
        found |= {path.resolve(): read_run(path) for path in sorted(below, key=by_number)}
    join_copies(list(found.values()))
    return list(found.values())


def by_number(name: object) -> list[int | str]:
    """Job 9 before job 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(name))]


def read_run(folder: Path) -> Run:
    """What is not there, or cannot be read, is its status."""
    epochs: list[dict[str, float]] = []
    metrics, result = folder / "metrics.csv", folder / "result.json"
    try:
        config = SafeLoader((folder / ".hydra" / "config.yaml").read_bytes()).get_single_data()
        if metrics.is_file():
            rows = csv.DictReader(metrics.read_text(encoding="utf-8").splitlines())
            epochs = [{name: float(value) for name, value in row.items() if value} for row in rows]
        ended = result.stat().st_mtime if result.is_file() else 0.0
        objectives = as_list(config.get("objective", []))
        return Run(folder, parameters(config), config["seed"], read_result(folder), epochs, ended, objectives)
    except Exception as error:  # whatever stands in a file that was written by hand
        return Run(folder, {}, None, {"status": "unreadable", "error": " ".join(str(error).split())}, [])


def join_copies(runs: Sequence[Run]) -> None:
    """One data.root for copies of an image folder: those of one name, of which some runs have the same checksum."""
    runs = [run for run in runs if "data.root" in run.settings]
    first_root: dict[tuple[str, str], str] = {}
    one_root: dict[str, str] = {}
    for run in runs:
        root = str(run.settings["data.root"])
        images = str(run.result.get("data_checksum", root)), Path(root).name
        old, new = one_root.setdefault(root, root), one_root[first_root.setdefault(images, root)]
        one_root = {each: new if one == old else one for each, one in one_root.items()}
    for run in runs:
        run.settings["data.root"] = one_root[str(run.settings["data.root"])]


def parameters(config: dict[str, Any]) -> Settings:
    """Flat and without nulls; `model.name` and `optimizer._target_` are called model and optimizer.

    data.root is a parameter where it chooses the images, not where it is but the place of a data set.
    """
    settings: Settings = {}
    for name, value in flatten(config).items():
        group, _, last = name.rpartition(".")
        if last == "name" and group in config:
            settings[group] = value
        elif last == "_target_":
            settings.setdefault(group, value.rpartition(".")[2])
        elif last != "_partial_" and value is not None:
            settings[name] = value
    left_out = NO_PARAMETERS if settings.get("data") == "imagefolder" else (*NO_PARAMETERS, "data.root")
    return {name: value for name, value in settings.items() if not starts(name, left_out)}


def identity(value: Any) -> str:
    """The same for 1 and 1.0, another one for true."""
    return json.dumps(json.loads(json.dumps(value, default=str), parse_int=float), sort_keys=True)


def differing(settings: Sequence[Settings]) -> list[str]:
    """The parameters in which some differ, but for those that come with a choice: model.layers with its model."""
    identities = [{name: identity(value) for name, value in each.items()} for each in settings]
    names = dict.fromkeys(name for each in identities for name in each)
    differ = [name for name in names if len({each.get(name) for each in identities}) > 1]

    def comes_with(name: str, choice: str) -> bool:
        if not name.startswith(f"{choice}."):
            return False
        values = {(each.get(choice), each.get(name)) for each in identities}
        return len(values) == len({chosen for chosen, _ in values})

    return [name for name in differ if not any(comes_with(name, choice) for choice in differ)]


def configurations(runs: Iterable[Run]) -> list[Configuration]:
    """By mean validation accuracy (without validation: test accuracy), best first.

    Of runs with the same configuration and seed, which are no independent ones, the one that ended last counts.
    """
    groups: dict[str, dict[int | None, Run]] = {}
    for run in runs:
        if run.finished:
            group = groups.setdefault(identity(run.settings), {})
            group[run.seed] = max(run, group.get(run.seed, run), key=lambda each: each.ended)
    found = [Configuration(next(iter(group.values())).settings, list(group.values())) for group in groups.values()]
    return sorted(found, key=lambda configuration: rank(means(configuration)), reverse=True)


def means(configuration: Configuration) -> dict[str, float]:
    return {metric: summary.mean for metric in ACCURACIES if (summary := configuration.summary(metric))}


def rank(metrics: Mapping[str, float]) -> list[float]:
    """Larger is better; what is not there or not a number is the worst."""
    values = (metrics.get(metric, math.nan) for metric in ACCURACIES)
    return [-1.0 if math.isnan(value) else value for value in values]


def summarize(values: Sequence[float]) -> Summary | None:
    if not values:
        return None
    n, mean = len(values), statistics.fmean(values)
    if n == 1:
        return Summary(n, mean, None, None, None)
    if not math.isfinite(mean):
        return Summary(n, mean, math.nan, math.nan, math.nan)
    from scipy.special import stdtrit  # a quarter of a second that runs without seeds need not spend

    deviation = statistics.stdev(values)
    half = float(stdtrit(n - 1, 0.975)) * deviation / math.sqrt(n)
    return Summary(n, mean, deviation, mean - half, mean + half)


class Difference(NamedTuple):
    """Of two means, by Welch's t-test (Biometrika 34, 1947)."""

    mean: float
    low: float  # 95% confidence interval
    high: float
    p: float


def welch(first: Summary, second: Summary) -> Difference | None:
    """second - first; None where one run on a side, runs that are all equal, or NaN leave nothing to compare."""
    if first.deviation is None or second.deviation is None or not 0 < first.deviation + second.deviation < math.inf:
        return None
    from scipy.special import stdtr, stdtrit

    mean = second.mean - first.mean
    variances = first.deviation**2 / first.n, second.deviation**2 / second.n  # of the two means
    error = math.sqrt(sum(variances))
    freedom = error**4 / (variances[0] ** 2 / (first.n - 1) + variances[1] ** 2 / (second.n - 1))
    half = float(stdtrit(freedom, 0.975)) * error
    return Difference(mean, mean - half, mean + half, 2 * float(stdtr(freedom, -abs(mean) / error)))
