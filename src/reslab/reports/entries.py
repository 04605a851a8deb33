"""The entries of a report: runs as they are read from their folders."""

import gc
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reslab.configuration import as_list
from reslab.errors import UserError
from reslab.newest import meant_run
from reslab.reports.reading import UnreadableError, brief, checked_config, checked_metrics, checked_result, fold_of
from reslab.reports.settings import Settings, comparable_settings, requested_text
from reslab.run import ENDED, FINISHED, PRUNED, UNREADABLE, Result, Run, resume_argument
from reslab.text import printable, size_order


@dataclass(frozen=True)
class Entry:
    """What a report needs of one run. Each file of the run is read once.

    Attributes:
        settings: those that the result depends on, by dotted name; empty where they cannot be read.
        result: the final metrics and the status; without a result only the status and perhaps an error.
        metrics: one row for each validation and each end of an epoch.
        ended_at: see `Run.ended_by`.
        objectives: the metrics that the run's search optimizes.
        fold: the fold of a cross-validation that the run was tested or validated on.
    """

    folder: Path
    settings: Settings
    seed: int | None
    result: Result
    metrics: list[dict[str, float]]
    ended_at: float = 0.0
    objectives: Sequence[str] = ()
    fold: int | None = None

    @property
    def is_finished(self) -> bool:
        return self.result["status"] == FINISHED

    @property
    def is_pruned(self) -> bool:
        """Whether a search ended the run early, because other runs were better."""
        return self.result["status"] == PRUNED

    @property
    def has_ended(self) -> bool:
        """Whether the run is finished or pruned."""
        return self.result["status"] in ENDED

    @property
    def failure(self) -> str:
        """The status and the reason, e.g. `failed: out of memory`."""
        return brief(f"{self.result['status']}: {self.result.get('error', 'no result')}")

    @property
    def unwritten(self) -> str | None:
        """What could not be written when the run had ended, and how it is written; None if all was written."""
        names = self.result.get("unwritten")
        if not names:
            return None
        return brief(f"not written: {', '.join(names)}; {resume_argument(self.folder)} tests again and writes it")

    @property
    def location(self) -> str:
        """The folder as printable text."""
        return printable(self.folder)


def read_entries(folders: Iterable[Path]) -> list[Entry]:
    """Read every run in some folders or below them, each run once.

    Raises:
        UserError: a folder does not exist or contains no run.
    """
    found: dict[Path, Run] = {}
    for folder in folders:
        found |= {run.folder.resolve(): run for run in runs_below(folder)}
    with without_garbage_collection():
        entries = [read_entry(run) for run in found.values()]
    share_root_of_copies([entry for entry in entries if "data.root" in entry.settings])
    return entries


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not look for cycles of objects, of which the values of files have none. It takes a fifth of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def runs_below(folder: Path) -> list[Run]:
    """Return the runs in natural order of their folders. Raise UserError without any."""
    if not folder.is_dir():
        advice = "; give the folder of a run or a sweep, or a folder that contains some"
        raise UserError(printable(f"there is no folder {folder}{meant_run(str(folder), otherwise=advice)}"))
    named = folder.resolve() if folder.name in ("", "..") else folder  # a report shows the name of a run's folder
    runs = sorted(Run.below(named), key=lambda run: natural_order(run.folder))
    if not runs:
        settings = Run(folder).hydra_folder.name
        raise UserError(
            f"{printable(folder)} contains no run: a run's folder has {settings} in it, "
            "a sweep's folder has the folders of runs"
        )
    return runs


def natural_order(name: object) -> list[tuple[int, str] | str]:
    """Return a sorting key that compares numbers in names as numbers: job 9 comes before job 10."""
    return [size_order(part) if part.isdecimal() else part for part in re.split(r"(\d+)", str(name))]


def read_entry(run: Run) -> Entry:
    """Read a run from its folder. A file that cannot be read, or has a wrong value, makes the entry unreadable."""
    try:
        config = checked_config(run)
        objectives = as_list(config.get("objective", []))
        result = checked_result(run, objectives)
        settings = comparable_settings(config)
        if "requested" in result:
            settings["resumed"] = requested_text(result["requested"])
        return Entry(
            run.folder,
            settings,
            config["seed"],
            result,
            checked_metrics(run),
            run.ended_by(result),
            objectives,
            fold_of(config),
        )
    except UnreadableError as error:
        return Entry(run.folder, {}, None, {"status": UNREADABLE, "error": str(error)}, [])


def share_root_of_copies(entries: Sequence[Entry]) -> None:
    """Give the copies of one image folder the same `data.root`, so that their runs have equal settings.

    Two folders are copies if two runs recorded the same checksum of their files. A folder that two paths lead to is one
    folder. Runs of older versions recorded no such checksum.
    """
    first_path: dict[str, str] = {}  # that leads to a folder
    first_with: dict[str, str] = {}
    shared: dict[str, str] = {}
    for entry in entries:
        path = str(entry.settings["data.root"])
        root = first_path.setdefault(os.path.realpath(path) if os.path.isdir(path) else path, path)
        entry.settings["data.root"] = root
        files = entry.result.get("files_checksum") or root
        old, new = shared.setdefault(root, root), shared[first_with.setdefault(files, root)]
        shared = {each: new if current == old else current for each, current in shared.items()}
    for entry in entries:
        entry.settings["data.root"] = shared[str(entry.settings["data.root"])]
