"""The end of a sweep: which jobs failed and why, and a table of all of them, also as sweep.csv in its folder."""

import csv
import json
from pathlib import Path
from typing import Any

import yaml
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from reslab.files import write_csv

Row = dict[str, Any]  # a job: its number, its overrides, and the plain values of its result.json


class Summary(Callback):
    """Remembers a sweep's folder; Hydra calls it in the process that runs the sweep."""

    folder: Path | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        Summary.folder = Path(config.hydra.sweep.dir)


def print_summary(folder: Path) -> int:
    """The number of jobs that did not finish."""
    rows = sorted(map(read_job, jobs(folder)), key=lambda row: -row.get("val/accuracy", -1.0))
    if not rows:
        return 0
    names = dict.fromkeys(name for row in rows for name in row["overrides"])
    overrides = [name for name in names if len({row["overrides"].get(name) for row in rows}) > 1 or len(rows) == 1]
    plain = dict.fromkeys(name for row in rows for name in row if name != "overrides")
    columns = ["job", *overrides, *(name for name in plain if name not in ("job", *overrides))]
    write_csv(folder / "sweep.csv", [{**row, **row["overrides"]} for row in rows], columns)
    shown = ["val/accuracy", "test/accuracy", "train/seconds"]
    table = Table(title=f"{len(rows)} jobs by validation accuracy", title_justify="left")
    for name in ["job", *overrides, *shown]:
        table.add_column(name, justify="right" if name in shown else "left")
    for row in rows:
        cells = [f"{row[name]:.4g}" if name in row else "" for name in shown]
        table.add_row(row["job"], *(row["overrides"].get(key, "") for key in overrides), *cells)
    console = Console(markup=False, emoji=False)  # names are shown as they are
    console.print(table)
    failed = [row for row in rows if row["status"] != "finished"]
    for row in failed:
        console.print(f"job {row['job']} {row['status']}: {row.get('error', 'no result')}", soft_wrap=True)
    draw_curves(folder, rows, overrides)
    console.print(f"sweep:  {folder} (sweep.csv, curves.png)", soft_wrap=True, highlight=False)
    console.print(f"curves: tensorboard --logdir {folder}", soft_wrap=True, highlight=False)
    return len(failed)


def jobs(folder: Path) -> list[Path]:
    """Job folders by number: `<number>_<overrides>`."""
    found = [path for path in folder.glob("*_*") if (path / ".hydra").is_dir()]
    return sorted(found, key=lambda path: int(path.name.split("_")[0]))


def read_job(folder: Path) -> Row:
    overrides: list[str] = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
    result_file = folder / "result.json"
    result = json.loads(result_file.read_text()) if result_file.is_file() else {"status": "unfinished"}
    plain = {name: value for name, value in result.items() if not isinstance(value, dict)}
    return {
        "job": folder.name.split("_")[0],
        "overrides": dict(o.partition("=")[::2] for o in overrides),
        **plain,
        "folder": str(folder),
    }


def draw_curves(folder: Path, rows: list[Row], overrides: list[str]) -> None:
    """curves.png: every job's training and validation error by epoch, side by side."""
    from matplotlib.figure import Figure  # a third of a second that commands without a sweep need not spend

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for row in sorted(rows, key=lambda row: int(row["job"])):
        path = Path(row["folder"]) / "metrics.csv"
        history = list(csv.DictReader(path.open())) if path.is_file() else []
        label = " ".join(row["overrides"].get(name, "") for name in overrides)
        for axes, split in zip(panels, ("train", "val"), strict=True):
            points = [
                (int(h["epoch"]) + 1, 100 * (1 - float(h[f"{split}/accuracy"])))
                for h in history
                if h.get(f"{split}/accuracy")
            ]
            axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=label)
    for axes, title in zip(panels, ("training", "validation"), strict=True):
        axes.set(xlabel="epoch", ylabel="error in %", title=f"{title} error", ylim=(0, None))
        axes.grid(alpha=0.3)
    if len(rows) <= 20:  # more names would hide the curves
        panels[1].legend(fontsize="small")
    figure.savefig(folder / "curves.png", dpi=110)
