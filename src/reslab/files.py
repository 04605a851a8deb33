"""How files are written: whole or not at all, whatever happens meanwhile, in a folder that one process uses."""

import csv
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reslab.errors import UserError

log = logging.getLogger(__name__)

LOCK = ".lock"
LOCK_SECONDS = 60  # as long as the processes of a killed run may hold its lock: those of a sweep save before they end


class FolderInUseError(UserError):
    """By another process."""


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """No two processes train in one folder at once. Raises FolderInUseError."""
    from filelock import FileLock, Timeout  # a quarter of the time that a mistyped option is answered in

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
    """A path to write to; what was written then takes the place of `path`, and what was there that of `keep`.

    On the disk before it takes the place, so that neither a kill nor a power cut leaves a part of a file.
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
    if os.name == "nt" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files may be any bytes


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Iterable[str]) -> None:
    """Empty where a row lacks a column; what a row has beyond the columns is left out."""
    with (
        replaced(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, list(columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def relative(path: Path) -> Path:
    """Return the path relative to the current directory if it lies below it, otherwise the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
