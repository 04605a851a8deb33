"""Train the recipes of docs/reproductions.md on a CPU, each as the sweep that the page prints.

    python benchmarks/reproductions.py [row …] [--minutes 60]    train what is missing; the next call continues
    python benchmarks/reproductions.py --table                   the table of docs/reproductions.md, from the results
    python benchmarks/reproductions.py --list                    the rows, each with its command

The results go to benchmarks/results/reproductions.json: of each run the metrics, the epochs, the seconds of training,
the machine and the versions. The sweeps are in outputs/reproductions, where report.py, evaluate.py and export.py find
their runs. Data sets are looked for as by benchmarks/gpu.py.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import gpu_data
from gpu_data import ROOT
from gpu_runs import Machine, OutOfTimeError, RowError
from recording import processor

from reslab.run import Run

RESULTS = ROOT / "benchmarks" / "results" / "reproductions.json"
WORK = ROOT / "outputs" / "reproductions"
NOT_PRINTED = ("seed=", "data.root=", "outputs=", "resume=", "hydra.sweep.dir=")
RESULT = (
    "seed", "val/accuracy", "test/accuracy", "test/loss", "train/seconds", "epochs", "parameters", "precision",
    "threads", "versions", "git_commit",
)  # fmt: skip
EPOCH = ("epoch", "train/loss", "train/accuracy", "val/accuracy", "train/epoch_seconds")
Record = dict[str, Any]  # what a run has reached


class Row(NamedTuple):
    """A recipe that is trained with several seeds.

    Attributes:
        options: the command line after `python src/train.py -m`.
        root: returns the folder of the data set; None: the data set needs no files.
        published: what others have reached, with the source.
    """

    options: str
    root: Callable[[Path], Path] | None = None
    published: str = "not known"


FAST = "experiment=fashion_mnist_fast"
ROWS = {
    "digits_resnet20": Row("seed=1,2,3,4,5"),
    "mnist_fast": Row(
        f"{FAST} data=mnist flip_averaging=false trainer.max_epochs=5 seed=1,2,3,4,5",
        gpu_data.mnist,
    ),
    "fashion_mnist_fast": Row(f"{FAST} seed=1,2,3,4,5", gpu_data.fashion_mnist),
    "fashion_mnist_fast_5": Row(f"{FAST} trainer.max_epochs=5 seed=1,2,3,4,5", gpu_data.fashion_mnist),
    "fashion_mnist_fast_6": Row(
        f"{FAST} trainer.max_epochs=6 model.widths=[16,64,128] seed=1,2,3,4,5", gpu_data.fashion_mnist
    ),
    "fashion_mnist_resnet20": Row(
        "model=resnet20 data=fashion_mnist trainer.max_epochs=6 seed=1,2,3",
        gpu_data.fashion_mnist,
    ),
}


def folder_of(name: str) -> Path:
    return WORK / name


def train(name: str, machine: Machine) -> None:
    """Train the runs of a row that are missing.

    Raises:
        OutOfTimeError: the call has ended before the last run.
        RowError: the command failed.
    """
    options, root, _ = ROWS[name]
    data = [f"data.root='{root(WORK / 'data')}'"] if root else []
    sweep = f"hydra.sweep.dir='{folder_of(name)}'"
    machine.python("src/train.py", "-m", *options.split(), *data, sweep, "resume=auto", stop=True)
    if not all(run.has_ended for run in Run.below(folder_of(name))):
        raise OutOfTimeError("the next call continues")


def records(name: str) -> list[Record]:
    """Return what the finished runs of a row have reached."""
    runs = (run for run in Run.below(folder_of(name)) if run.has_ended)
    return sorted(map(record, runs), key=lambda each: (each["options"], each["seed"]))


def record(run: Run) -> Record:
    result = run.result
    by_epoch = [{key: row[key] for key in EPOCH if key in row} for row in run.metrics]
    return {
        "options": [each for each in run.overrides if not each.startswith(NOT_PRINTED)],
        **{key: result[key] for key in RESULT if key in result},
        "cpu": processor(),
        "by_epoch": by_epoch,
    }


def read_results() -> dict[str, list[Record]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def write_results(name: str) -> None:
    """Add what the runs of a row have reached to the results. Runs that are elsewhere keep their records."""
    results = read_results()
    found = records(name)
    keys = [(each["options"], each["seed"]) for each in found]
    kept = [each for each in results.get(name, []) if (each["options"], each["seed"]) not in keys]
    results[name] = sorted(kept + found, key=lambda each: (each["options"], each["seed"]))
    RESULTS.write_text(json.dumps({row: results[row] for row in ROWS if results.get(row)}, indent=1) + "\n")


# the table


def table(results: dict[str, list[Record]]) -> str:
    lines = ["| command | n | validation | test | published | seconds |", "|---|---|---|---|---|---|"]
    for name, row in ROWS.items():
        runs = results.get(name, [])
        cells = [f"`python src/train.py -m {row.options}`", str(len(runs)), *measured(runs), row.published]
        cells.append(seconds([run["train/seconds"] for run in runs]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measured(runs: list[Record]) -> list[str]:
    if not runs:
        return ["not measured", ""]
    return [mean_and_deviation([run[f"{split}/accuracy"] for run in runs]) for split in ("val", "test")]


def mean_and_deviation(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def seconds(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})" if values else ""


def chosen_rows(names: Iterable[str]) -> list[str]:
    unknown = set(names) - ROWS.keys()
    if unknown:
        sys.exit(f"error: {', '.join(sorted(unknown))}: the rows are {', '.join(ROWS)}")
    return [*names] or [*ROWS]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="row", help="all by default")
    parser.add_argument("--minutes", type=float, default=60, help="how long this call may take")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown")
    parser.add_argument("--list", action="store_true", help="print the rows")
    given = parser.parse_args()
    names = chosen_rows(given.rows)
    if given.list:
        print("\n".join(f"{name:24}python src/train.py -m {ROWS[name].options}" for name in names))
        return 0
    if given.table:
        print(table(read_results()))
        return 0
    machine = Machine(WORK, time.monotonic() + 60 * given.minutes)
    for name in names:
        try:
            train(name, machine)
        except (RowError, OutOfTimeError) as error:
            print(f"{name}: {error}", flush=True)
        write_results(name)
        print(f"{name}: {len(records(name))} runs", flush=True)
        if machine.seconds_left < 60:
            break
    return 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
