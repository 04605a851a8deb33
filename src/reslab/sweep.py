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
    write_csv(folder / "sweep.csv", rows, overrides)
    shown = ["val/accuracy", "test/accuracy", "train/seconds"]
    table = Table(title=f"{len(rows)} jobs by validation accuracy", title_justify="left")
    for name in ["job", *overrides, *shown]:
        table.add_column(name, justify="right" if name in shown else "left")
    for row in rows:
        cells = [f"{row[name]:.4g}" if name in row else row["status"] for name in shown]
        table.add_row(row["job"], *(row["overrides"].get(key, "") for key in overrides), *cells)
    console = Console()
    console.print(table)
    failed = [row for row in rows if row["status"] != "finished"]
    for row in failed:
        console.print(
            f"job {row['job']} {row['status']}: {row.get('error', 'no result')}", soft_wrap=True, markup=False
        )
    console.print(f"sweep       {folder}\ntensorboard --logdir {folder}", soft_wrap=True, highlight=False)
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
    return {"job": folder.name.split("_")[0], "overrides": dict(o.split("=", 1) for o in overrides), **plain}


def write_csv(path: Path, rows: list[Row], overrides: list[str]) -> None:
    names = dict.fromkeys(name for row in rows for name in row if name != "overrides")
    columns = ["job", *overrides, *(name for name in names if name not in ("job", *overrides))]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**row, **row["overrides"]} for row in rows)
