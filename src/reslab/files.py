"""Files that are written completely or not at all, in a folder that only one process uses."""

import csv
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reslab.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
# The processes of a run that was killed hold its lock until they end; the jobs of a sweep write a checkpoint first.
LOCK_SECONDS = 60


class FolderInUseError(UserError):
    """Another process uses the folder."""


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Lock a folder until the end of the block, so that no two processes train in it at once.

    Raises:
        FolderInUseError: another process has kept the lock for a minute.
        UserError: the folder cannot be made.
    """
    from filelock import FileLock, Timeout  # its import takes a quarter of the time in which a typo is answered

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be made: {error.strerror}") from error
    lock = FileLock(folder / LOCK)
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        log.info("%s is in use: waiting up to %d s for the process that trains there", folder, LOCK_SECONDS)
        try:
            held = lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise FolderInUseError(f"{folder} is in use: another process trains there") from error
    with held:
        yield


@contextmanager
def replaced(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """Replace a file by what the block writes, in one step.

    The new content is on the disk before it replaces the old one, so neither a kill nor a power cut leaves part of a
    file.

    Args:
        path: the file to replace.
        keep: where the old content goes; None to drop it.

    Yields:
        The path to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        sync(partial)
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may hold any bytes


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a column for each name in any row. A cell is empty where its row lacks the column."""
    with (
        replaced(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def output_errors(output: str | Path) -> Iterator[None]:
    """Raise UserError where the file that `output=` names cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"output={output} cannot be written: {error.strerror}") from error


def relative(path: Path) -> Path:
    """Return the path relative to the current directory if it lies below it, otherwise the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
