"""Train the recipes of docs/reproductions.md and of docs/tutorials on a CPU, each by the command that the page prints.

    python benchmarks/reproductions.py [row …] [--minutes 60]    train what is missing; the next call continues
    python benchmarks/reproductions.py --pages                   write the results into the pages
    python benchmarks/reproductions.py --list                    the rows, each with its command

The results go to benchmarks/results/reproductions.json: of each run the metrics, the epochs, the seconds of training,
the machine and the versions. The runs are in outputs/reproductions, where report.py, evaluate.py and export.py find
them. Data sets are looked for as by benchmarks/gpu.py.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import gpu_data
from gpu_data import ROOT, MissingDataError
from gpu_runs import Machine, OutOfTimeError, RowError

from reslab.run import Run
from reslab.text import counted

RESULTS = ROOT / "benchmarks" / "results" / "reproductions.json"
WORK = ROOT / "outputs" / "reproductions"
NOT_PRINTED = ("seed=", "threads=", "outputs=", "resume=", "hydra.")
RESULT = (
    "seed", "val/accuracy", "test/accuracy", "test/loss", "best_step", "train/seconds", "epochs", "parameters",
    "precision", "processor", "threads", "versions", "git_commit",
)  # fmt: skip
EPOCH = ("epoch", "train/loss", "train/accuracy", "val/accuracy", "train/epoch_seconds")
PAGES = [ROOT / "README.md", ROOT / "docs" / "reproductions.md", *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
END = "<!-- end -->"
BLOCK = re.compile(f"(<!-- reproductions: ([^>]*) -->)\n.*?{END}", re.DOTALL)
Record = dict[str, Any]  # what a run has reached


class Row(NamedTuple):
    """A recipe that is trained with several seeds.

    Attributes:
        options: the command line after `python src/train.py`, as a shell reads it.
        root: returns the folder of the data set; None: the data set needs no files.
        published: the test accuracy that others have reached, with how; docs/reproductions.md has the source.
    """

    options: str
    root: Callable[[Path], Path] | None = None
    published: str = "not known"


SMALL = "by two convolutions, fewer than 100,000 parameters"
FAST = "experiment=fashion_mnist_fast"
DEEP = (
    "data=digits data.augment.erasing=0 data.batch_size=32 optimizer.lr=0.05 scheduler=multi_step "
    "scheduler.warmup_steps=100"
)
STEMS = "-m model=resnet18 'model.widths=[16,32,64,128]'"
NARROW = "'model.widths=[8,16,32,64,128,256]'"
RECIPES = {
    "digits_resnet20": Row("-m seed=1,2,3,4,5"),
    "mnist_fast": Row(
        f"-m {FAST} data=mnist flip_averaging=false trainer.max_epochs=5 seed=1,2,3,4,5",
        gpu_data.mnist,
        f"0.992 {SMALL}",
    ),
    "fashion_mnist_fast": Row(f"-m {FAST} seed=1,2,3,4,5", gpu_data.fashion_mnist, f"0.925 {SMALL}"),
    "fashion_mnist_fast_5": Row(
        f"-m {FAST} trainer.max_epochs=5 seed=1,2,3,4,5", gpu_data.fashion_mnist, f"0.925 {SMALL}"
    ),
    "fashion_mnist_fast_6": Row(
        f"-m {FAST} trainer.max_epochs=6 'model.widths=[16,64,128]' seed=1,2,3,4,5",
        gpu_data.fashion_mnist,
        "0.932 by two convolutions and three linear layers, 1.8 M parameters",
    ),
    "fashion_mnist_resnet20": Row(
        "-m model=resnet20 data=fashion_mnist trainer.max_epochs=6 seed=1,2,3",
        gpu_data.fashion_mnist,
        "0.952 by this network after 300 epochs",
    ),
}
TUTORIALS = {
    "six_block": Row("experiment=six_block trainer.max_epochs=1", gpu_data.mnist),
    "six_block_shortcuts": Row(
        f"-m experiment=six_block {NARROW} model.shortcut=B,none 'model.layers=[1,1,1,1,1,1],[4,4,4,4,4,4]' "
        "trainer.max_epochs=2 seed=1,2,3",
        gpu_data.mnist,
    ),
    "degradation": Row(f"-m model=resnet20,resnet56,plain20,plain56 {DEEP} trainer.max_epochs=100 seed=1,2,3"),
    "shortcuts": Row("-m model=resnet20 model.shortcut=A,B,C seed=1,2,3"),
    "preactivation": Row(f"-m model=resnet110,preact_resnet110 {DEEP} trainer.max_epochs=100 seed=1,2,3"),
    "stems": Row(
        f"{STEMS} model.stem=imagenet,cifar data=fashion_mnist trainer.max_epochs=2 seed=1,2,3", gpu_data.fashion_mnist
    ),
    "stems_longer": Row(
        f"{STEMS} model.stem=imagenet data=fashion_mnist trainer.max_epochs=12 seed=1,2,3", gpu_data.fashion_mnist
    ),
    "fashion_mnist_resnet18": Row("experiment=fashion_mnist_resnet18", gpu_data.fashion_mnist),
    "mnist_resnet50": Row("experiment=mnist_resnet50 trainer.accelerator=cpu", gpu_data.mnist),
}
ROWS = RECIPES | TUTORIALS


def folder_of(name: str) -> Path:
    return WORK / name


def train(name: str, machine: Machine) -> None:
    """Train the runs of a row that are missing.

    Raises:
        OutOfTimeError: the call has ended before the last run.
        RowError: the command failed.
    """
    options, root, _ = ROWS[name]
    words = shlex.split(options)
    if root:
        os.environ["RESLAB_DATA"] = str(root(WORK / "data"))
    place = f"hydra.{'sweep' if words[0] == '-m' else 'run'}.dir='{folder_of(name)}'"
    machine.python("src/train.py", *words, place, "resume=auto", stop=True)
    if not all(run.has_ended for run in Run.below(folder_of(name))):
        raise OutOfTimeError("the next call continues")


def records(name: str) -> list[Record]:
    """Return what the finished runs of a row have reached."""
    runs = (run for run in Run.below(folder_of(name)) if run.has_ended)
    return sorted(map(record, runs), key=lambda each: (each["options"], each["seed"]))


def record(run: Run) -> Record:
    result = run.result
    by_epoch = {key: [float(f"{row[key]:.6g}") for row in run.metrics if key in row] for key in EPOCH}
    return {
        "options": [each for each in run.overrides if not each.startswith(NOT_PRINTED)],
        **{key: result[key] for key in RESULT if key in result},
        "by_epoch": {key: values for key, values in by_epoch.items() if values},
    }


def read_results() -> dict[str, list[Record]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def write_results(name: str) -> int:
    """Add what the runs of a row have reached to the results, and return how many runs these are.

    Runs that are elsewhere keep their records.
    """
    results = read_results()
    found = records(name)
    keys = [(each["options"], each["seed"]) for each in found]
    kept = [each for each in results.get(name, []) if (each["options"], each["seed"]) not in keys]
    results[name] = sorted(kept + found, key=lambda each: (each["options"], each["seed"]))
    write(results)
    return len(found)


def write(results: dict[str, list[Record]]) -> None:
    """Write the results with a line for each run."""
    lines = {row: ",\n".join(map(json.dumps, results[row])) for row in ROWS if results.get(row)}
    rows = (f"{json.dumps(row)}: [\n{runs}\n]" for row, runs in lines.items())
    RESULTS.write_text("{\n" + ",\n".join(rows) + "\n}\n")


# the pages


def filled(page: str, results: dict[str, list[Record]]) -> str:
    """Return a page with each block between BEGIN and END replaced by the table that it names."""
    return BLOCK.sub(lambda found: f"{found[1]}\n{block(found[2].split(), results)}\n{END}", page)


def block(words: list[str], results: dict[str, list[Record]]) -> str:
    """Return a table: of the recipes that are named, or of what a name stands for.

    Args:
        words: `recipes` and names of recipes, by default all; `expected`, the same with less about each;
            `configurations` or `epochs` and the name of one row.
    """
    kind, *names = words
    names = names or [*RECIPES]
    tables = {
        "recipes": recipes_table, "expected": expected_table, "configurations": configurations_table,
        "epochs": epochs_table,
    }  # fmt: skip
    runs = [run for name in names for run in results.get(name, [])]
    return "\n\n".join([markdown(*tables[kind](names, results)), *machines(runs)])


def machines(runs: list[Record]) -> list[str]:
    """Return a line that says what the runs ran on, or none if nothing ran."""
    places = Counter(
        f"{counted(run['threads'], 'thread')} of {run['processor']} ({run['precision']}), "
        + ", ".join(f"{name} {run['versions'][name]}" for name in ("python", "torch", "lightning"))
        for run in runs
    )
    numbered = [f"{counted(count, 'run')} on {place}" for place, count in places.items()]
    return [f"{'; '.join(numbered)}."] if runs else []


def markdown(header: list[str], rows: list[list[str]]) -> str:
    lines = (f"| {' | '.join(line)} |" for line in [header, *(rows or [["not measured"] + [""] * (len(header) - 1)])])
    return "\n".join([next(lines), "|---" * len(header) + "|", *lines])


def recipes_table(names: list[str], results: dict[str, list[Record]]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for name in names:
        runs, row = results.get(name, []), ROWS[name]
        reached = [accuracy(runs, "val"), accuracy(runs, "test")] if runs else ["not measured", ""]
        command = f"`python src/train.py {row.options}`"
        rows.append([command, str(len(runs)), *reached, row.published, spread(runs, "train/seconds")])
    return ["command", "n", "validation", "test", "published", "seconds"], rows


def expected_table(names: list[str], results: dict[str, list[Record]]) -> tuple[list[str], list[list[str]]]:
    header, rows = recipes_table(names, results)
    shown = {"command": "command", "test": "test accuracy", "seconds": "seconds", "n": "n"}
    return [*shown.values()], [[row[header.index(name)] or "not measured" for name in shown] for row in rows]


def configurations_table(names: list[str], results: dict[str, list[Record]]) -> tuple[list[str], list[list[str]]]:
    """Return a table with one row for each value of what a sweep varies."""
    runs = results.get(names[0], [])
    groups: dict[tuple[str, ...], list[Record]] = {}
    for run in runs:
        groups.setdefault(tuple(run["options"]), []).append(run)
    common = set.intersection(*map(set, groups)) if len(groups) > 1 else set()
    rows = [
        [f"`{' '.join(each for each in options if each not in common)}`", str(len(group)), last_training_error(group),
         accuracy(group, "val"), accuracy(group, "test")]
        for options, group in groups.items()
    ]  # fmt: skip
    return ["network", "n", "training error, last epoch, %", "validation", "test"], rows


def epochs_table(names: list[str], results: dict[str, list[Record]]) -> tuple[list[str], list[list[str]]]:
    """Return a table with one row for each epoch of a single run."""
    runs = results.get(names[0], [])
    by_epoch = [runs[0]["by_epoch"][name] for name in EPOCH] if runs else []
    rows = [
        [f"{epoch:.0f}", *(f"{value:.4f}" for value in values), f"{seconds:,.0f}"]
        for epoch, *values, seconds in zip(*by_epoch, strict=True)
    ]
    return ["epoch", "training loss", "training accuracy", "validation accuracy", "seconds"], rows


def accuracy(runs: list[Record], split: str) -> str:
    return mean_and_deviation([run[f"{split}/accuracy"] for run in runs if f"{split}/accuracy" in run], ".4f")


def last_training_error(runs: list[Record]) -> str:
    return mean_and_deviation([100 * (1 - run["by_epoch"]["train/accuracy"][-1]) for run in runs], ".1f")


def mean_and_deviation(values: list[float], form: str) -> str:
    if not values:
        return ""
    mean = format(statistics.mean(values), form)
    return mean if len(values) == 1 else f"{mean} ± {format(statistics.stdev(values), form)}"


def spread(runs: list[Record], name: str) -> str:
    values = [run[name] for run in runs]
    if len(values) < 2:
        return f"{values[0]:,.0f}" if values else ""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def fill_pages() -> None:
    for page in PAGES:
        page.write_text(filled(page.read_text(), read_results()))


def chosen_rows(names: Iterable[str]) -> list[str]:
    unknown = set(names) - ROWS.keys()
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))}: the rows are {', '.join(ROWS)}")
    return [*names] or [*ROWS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help="all by default")
    parser.add_argument("--minutes", type=float, default=60, help="how long this call may take")
    parser.add_argument("--pages", action="store_true", help="write the results into the pages")
    parser.add_argument("--list", action="store_true", help="print the rows")
    given = parser.parse_args()
    names = chosen_rows(given.rows)
    if given.list:
        print("\n".join(f"{name:24}python src/train.py {ROWS[name].options}" for name in names))
        return 0
    if given.pages:
        fill_pages()
        return 0
    machine = Machine(WORK, time.monotonic() + 60 * given.minutes)
    for name in names:
        try:
            train(name, machine)
        except MissingDataError as error:
            print(f"{name}: {error} is missing", flush=True)
        except (RowError, OutOfTimeError) as error:
            print(f"{name}: {error}", flush=True)
        print(f"{name}: {write_results(name)} runs", flush=True)
        if machine.seconds_left < 60:
            break
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
