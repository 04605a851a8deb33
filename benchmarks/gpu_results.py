"""The results of benchmarks/gpu.py: one JSON file per part, and the tables of benchmarks/README.md."""

import hashlib
import json
import os
import statistics
import subprocess
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gpu_data import ROOT
from gpu_rows import PARTS, Row, rows_of

Record = dict[str, Any]  # a row with its values or its error, and where and how it was measured
MEASURED, FAILED, UNFINISHED, MISSING = "measured", "failed", "unfinished", "not measured"
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core")
BEGIN = "<!-- python benchmarks/gpu.py --table: begin -->"
END = "<!-- python benchmarks/gpu.py --table: end -->"


class Results:
    """The records of a part in one file, which is written after each row.

    A row has one record for each card: the newest.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.file = folder / f"gpu_{part}.json"
        self.records: list[Record] = json.loads(self.file.read_text())["rows"] if self.file.is_file() else []

    def has(self, row: Row, card: str, source: str, *statuses: str) -> bool:
        """Return whether there is a record of this row, card and source with one of these statuses."""
        same = {"name": row.name, "card": card, "source": source}
        return any(same.items() <= each.items() and each["status"] in statuses for each in self.records)

    def add(self, record: Record) -> None:
        self.records = [each for each in self.records if not is_same(each, record)] + [record]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps({"rows": self.records}, indent=2) + "\n")
        partial.replace(self.file)

    def newest(self, subject: str, program: str | None = None) -> list[Record]:
        """Return the records of a row, those of the card that was used last; without a program, of all its seeds."""
        found = [each for each in self.records if each["subject"] == subject]
        found = [each for each in found if program in (None, each["program"])]
        return [each for each in found if each["card"] == found[-1]["card"]]


def is_same(one: Record, other: Record) -> bool:
    return (one["name"], one["card"]) == (other["name"], other["card"])


# where something was measured


def card_and_driver() -> tuple[str, str] | None:
    """Return the name of the first NVIDIA GPU and the version of its driver; None without a GPU."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    name, _, driver = lines[0].rpartition(", ")
    return name, driver


def origin(card: str, driver: str | None) -> Record:
    """Return where the rows of a call are measured: the card, the versions, the commit and the source."""
    return {"card": card, "driver": driver, "versions": versions(), "commit": commit(), "source": source()}


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def source(root: Path = ROOT) -> str:
    """Return a hash of the files that decide what is measured: results do not change it, and it needs no git."""
    patterns = (
        "src/**/*.py", "conf/**/*.yaml", "benchmarks/gpu*.py", "tests/gpu/*.py", "tests/conftest.py",
        "tests/recorded_steps.py",
    )  # fmt: skip
    files = [file for pattern in patterns for file in root.glob(pattern)]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def commit() -> str | None:
    """Return RESLAB_COMMIT, or git's commit, with `-dirty` if the source differs from it; None without both."""
    if given := os.environ.get("RESLAB_COMMIT"):
        return given

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "src", "conf", "benchmarks/*.py")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


# the table

Column = tuple[str, str, str]  # its header, the name of its value, and how that is formatted
STEP: Column = ("ms a step", "step_ms", ".2f")
TRAINING: Column = ("training, s", "training_s", ".1f")
TEST: Column = ("test", "test", ".4f")
PEAK: Column = ("peak MB", "peak_mb", ",.0f")
COLUMNS: dict[str, Sequence[Column]] = {
    "tests": [("result", "summary", "")],
    "speed": [
        STEP, ("host ms", "host_ms", ".2f"), ("GPU ms", "gpu_ms", ".2f"), ("plain graph / this", "ratio", ".2f"),
        ("epoch 1, s", "first_epoch_s", ".1f"), ("epoch 2, s", "second_epoch_s", ".1f"),
        ("first step after, s", "first_step_s", ".1f"), PEAK,
    ],
    "recipes": [("validation", "validation", ".4f"), TEST, TRAINING, ("command, s", "command_s", ".1f")],
    "fidelity": [TEST, TRAINING, ("epochs", "epochs", ".0f")],
    "disk": [
        STEP, ("images/s", "images_per_second", ",.0f"), ("workers", "workers", ".0f"),
        ("plain loop / this", "ratio", ".2f"), PEAK,
    ],
}  # fmt: skip
SEEDED = ("recipes", "fidelity")


def table(folder: Path) -> str:
    """Return the Markdown of all parts. A row that no file has is called not measured."""
    sections = [part_table(part, Results(folder, part)) for part in PARTS]
    return "\n\n".join(sections)


def part_table(part: str, results: Results) -> str:
    columns = COLUMNS[part]
    second = "n" if part in SEEDED else "program"
    headers = [part, second, *(header for header, _, _ in columns)]
    lines = [f"| {' | '.join(headers)} |", "|---" * len(headers) + "|"]
    for subject, program in subjects(part):
        records = results.newest(subject, program)
        cells = [
            subject,
            program or str(sum(each["status"] == MEASURED for each in records)),
            *values(records, columns),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *measured_on(results.records)])


def subjects(part: str) -> list[tuple[str, str | None]]:
    """Return the rows of the table: the subject and the program; without a program, all seeds are one row."""
    rows = rows_of(part, seeds=[1])
    return [(row.subject, None if part in SEEDED else row.program) for row in sorted(rows, key=first_of(rows))]


def first_of(rows: Sequence[Row]) -> Callable[[Row], int]:
    """Return a key that puts the rows of a subject together, in the order of the subjects."""
    order = list(dict.fromkeys(row.subject for row in rows))
    return lambda row: order.index(row.subject)


def values(records: Sequence[Record], columns: Sequence[Column]) -> list[str]:
    """Return the cells of a row. The first one says so if there is no value."""
    measured = [each["values"] for each in records if each["status"] == MEASURED]
    if measured:
        return [
            cell([each[name] for each in measured if each.get(name) is not None], form) for _, name, form in columns
        ]
    reason = f"{records[-1]['status']}: {records[-1]['error']}" if records else MISSING
    return [reason.replace("|", "\\|"), *[""] * (len(columns) - 1)]


def cell(numbers: Sequence[Any], form: str) -> str:
    """Return a value, or the mean ± standard deviation of several."""
    if not numbers or form == "":
        return str(numbers[0]) if numbers else ""
    mean = format(statistics.mean(numbers), form)
    return mean if len(numbers) == 1 else f"{mean} ± {format(statistics.stdev(numbers), form)}"


def measured_on(records: Iterable[Record]) -> list[str]:
    """Return one line for each card, driver, torch and commit that the rows were measured with."""
    places: dict[tuple[str, ...], int] = {}
    for each in records:
        if each["status"] == MEASURED:
            place = (each["card"], each["driver"], each["versions"]["torch"], each["commit"] or each["source"])
            places[place] = places.get(place, 0) + 1
    if not places:
        return ["Measured: nothing."]
    lines = [
        f"{card}, driver {driver}, torch {torch}, {at[:12]}: {n}" for (card, driver, torch, at), n in places.items()
    ]
    return [f"Measured rows: {'; '.join(lines)}."]
