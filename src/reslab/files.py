"""Files that are written completely or not at all, a log that waits, and a folder that only one process uses."""

import csv
import errno
import json
import logging
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from reslab.errors import RunError, UserError, is_mistake
from reslab.machine import is_first_process
from reslab.text import spreadsheet_text

log = logging.getLogger(__name__)

LOCK = ".lock"
# The processes of a run that was killed hold its lock until they end; the jobs of a sweep write a checkpoint first.
LOCK_SECONDS = 60
# The folders that this process has locked, each with a descriptor, which stays with it when it is renamed, and with the
# status of its lock file, without which another process could lock it too.
locked: dict[Path, tuple[int, os.stat_result]] = {}


IN_USE = "is in use: another process trains there"  # so ends the line of a FolderInUseError of a run


class FolderInUseError(UserError):
    """Another process uses the folder."""


class FolderMovedError(RunError):
    """The folder that this process uses, or what was in it, is no longer where it was."""


@contextmanager
def sole_user(folder: Path) -> Iterator[bool]:
    """Lock a folder until the end of the block, so that no two processes train in it at once.

    The system releases the lock when the process ends. Within the block, this process may lock the folder again.

    Yields:
        Whether another process was waited for, which may have changed the folder.

    Raises:
        FolderInUseError: another process has kept the lock for a minute.
        UserError: the folder cannot be made.
    """
    from filelock import FileLock, Timeout  # its import takes a tenth of the time in which a typo is answered

    if folder.absolute() in locked:
        yield False
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder={folder} cannot be made: {error.strerror}") from error
    lock = FileLock(folder / LOCK)
    waited = False
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        waited = True
        log.info("%s is in use: waiting up to %d s for the process that trains there", folder, LOCK_SECONDS)
        try:
            held = lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise FolderInUseError(f"{folder} {IN_USE}") from error
    with held:
        descriptor = os.open(folder, os.O_RDONLY) if os.name != "nt" else -1  # Windows cannot open folders
        locked[folder.absolute()] = descriptor, (folder / LOCK).stat()
        try:
            yield waited
        finally:
            del locked[folder.absolute()]
            if descriptor >= 0:
                os.close(descriptor)


def require_folder(path: Path) -> None:
    """Raise FolderMovedError if a folder that this process has locked, and that holds a path, was moved or emptied.

    What is written to the path would be in another folder, or beside the files of another run. Windows neither renames
    a folder in which a file is open nor removes that file.
    """
    for folder, (descriptor, lock) in locked.items():
        if descriptor < 0 or not path.absolute().is_relative_to(folder):
            continue
        if not is_same_file(os.fstat(descriptor), folder):
            raise FolderMovedError(
                f"{folder} was removed or renamed while it was in use; if it was renamed, resume=<its new name> "
                "continues from its last checkpoint"
            )
        if not is_same_file(lock, folder / LOCK):
            raise files_removed(folder)


def is_same_file(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return False


def files_removed(folder: Path) -> FolderMovedError:
    return FolderMovedError(f"the files in {folder} were removed while it was in use")


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
    require_folder(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder that is not locked may have several writers at once, and each process of a run may record why it failed.
    folders = [folder for folder in locked if path.absolute().is_relative_to(folder)]
    is_sole = is_first_process() and bool(folders)
    partial = path.with_name(f".{path.name}.partial" if is_sole else f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        if keep is not None and path.exists():
            path.replace(keep)
        partial.replace(path)
        sync(path.parent)
    except FileNotFoundError as error:
        if is_sole and error.filename is not None and Path(error.filename) == partial:
            raise files_removed(folders[-1]) from error
        raise
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


class RunLog(logging.FileHandler):
    """The log file of a run. While it is held, its lines wait, because the run has not truly resumed yet.

    Args:
        filename: the file. It is made with the first line.
    """

    def __init__(self, filename: str | Path) -> None:
        super().__init__(filename, encoding="utf-8", delay=True, errors="surrogateescape")
        self.waiting: list[logging.LogRecord] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.waiting is not None:
            self.waiting.append(record)
            return
        try:
            super().emit(record)
        except OSError:  # the file cannot be opened: logging itself treats only failed writes like this
            self.handleError(record)

    def hold(self) -> None:
        self.waiting = []

    def write_waiting(self) -> None:
        """Write the lines that wait, and from now on each line at once."""
        waiting, self.waiting = self.waiting or [], None
        for record in waiting:
            self.emit(record)


def run_logs() -> list[RunLog]:
    """Return the log files of the run of this process: Hydra's handler, or that of `reslab.train`."""
    handlers = [*logging.getLogger().handlers, *logging.getLogger("reslab").handlers]
    return [handler for handler in handlers if isinstance(handler, RunLog)]


def drop_run_logs() -> None:
    """Write no log file, because there is no run."""
    for logger in (logging.getLogger(), logging.getLogger("reslab")):
        for run_log in run_logs():
            logger.removeHandler(run_log)


@contextmanager
def held_log(resumes: bool) -> Iterator[None]:
    """Hold the log of a run that resumes. If a mistake ends it before it has resumed, the log stays as it was."""
    if resumes:
        hold_logs()
    try:
        yield
    except BaseException as error:
        if not is_mistake(error):
            write_waiting_lines()
        raise
    write_waiting_lines()


def hold_logs() -> None:
    """Let the lines of the run's log wait, because its folder may still be that of another process or run."""
    for run_log in run_logs():
        run_log.hold()


def write_waiting_lines() -> None:
    for run_log in run_logs():
        run_log.write_waiting()


def write_bytes(path: Path, content: bytes) -> None:
    with replaced(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))  # names of files may hold any bytes


def write_json(path: Path, value: Any) -> None:
    """Write a value as Python reads it again: NaN and infinite numbers, which JSON does not have, stay."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_valid_json(path: Path, value: Any) -> None:
    """Write a value for any program: see `valid_json`."""
    write_text(path, valid_json(value) + "\n")


def valid_json(value: Any) -> str:
    """Return JSON, with null in place of numbers that are NaN or infinite.

    Example:
        >>> print(valid_json(float("nan")))
        null
    """
    try:
        return json.dumps(value, indent=2, allow_nan=False)
    except ValueError:
        return json.dumps(with_null(value), indent=2, allow_nan=False)


def with_null(value: Any) -> Any:
    """Return a value of dictionaries and lists with None in place of numbers that are NaN or infinite."""
    if isinstance(value, dict):
        return {name: with_null(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [with_null(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write a table with a column for each name in any row. A cell is empty where its row lacks the column.

    A text that a spreadsheet would take for a formula has an apostrophe before it.

    Args:
        path: the file.
        rows: the cells of each row, by column.
        columns: those of a table without rows, which pandas could not read without any column.
    """
    rows = [{spreadsheet_text(name): cell(value) for name, value in row.items()} for row in rows]
    with (
        replaced(path) as partial,
        partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)) or columns)
        writer.writeheader()
        writer.writerows(rows)


def cell(value: Any) -> Any:
    return spreadsheet_text(str(value)) if isinstance(value, str | Path) else value


def plain_bytes(path: Path, limit: int) -> bytes:
    """Return the content of a regular file. A pipe would keep the program waiting, a huge file would fill the memory.

    Args:
        path: the file.
        limit: its largest size in bytes.

    Raises:
        OSError: there is no such file, it is not a regular file, or it is larger.
    """
    at_once = getattr(os, "O_NONBLOCK", 0)  # to open a pipe would wait for its other end; Windows has no such pipes
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | at_once)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"it is larger than {limit >> 10} KB", str(path))
        return file.read(limit)


@contextmanager
def output_errors(output: str | Path, option: str = "output") -> Iterator[None]:
    """Raise UserError where the file that an option names cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{option}={output} cannot be written: {error.strerror}") from error


@contextmanager
def replaced_output(output: Path, option: str = "output") -> Iterator[Path]:
    """Replace the file that an option names by what the block writes: see `replaced`.

    Yields:
        The path to write to.

    Raises:
        UserError: the file cannot be replaced. An OSError of the block itself stays one, which may be of reading.
    """
    with ExitStack() as stack:
        with output_errors(output, option):
            partial = stack.enter_context(replaced(output))
        yield partial
        with output_errors(output, option):
            stack.close()


Part = TypeVar("Part")


@contextmanager
def written_in_parts(
    output: Path, opened: Callable[[Path], AbstractContextManager[Callable[[Part], None]]], option: str = "output"
) -> Iterator[Callable[[Part], None]]:
    """Write a file part by part. It is there at the end of the block, or not at all.

    Args:
        output: the file.
        opened: opens a path and yields a function that writes a part.
        option: the option that names the file.

    Yields:
        That function.

    Raises:
        UserError: the file cannot be written. An OSError of the block itself stays one.
    """
    with replaced_output(output, option) as partial, ExitStack() as stack:
        with output_errors(output, option):
            write = stack.enter_context(opened(partial))

        def checked(part: Part) -> None:
            with output_errors(output, option):
                write(part)

        yield checked
        with output_errors(output, option):
            stack.close()


def require_output_folder(output: str) -> None:
    """Raise UserError before work that may take minutes, if `output=` can be no folder to write into."""
    for path in (Path(output).absolute(), *Path(output).absolute().parents):
        if os.path.lexists(path):
            if not os.path.isdir(path):
                raise UserError(f"output={output} cannot be a folder: {path} is a file")
            if not os.access(path, os.W_OK):
                raise UserError(f"output={output} cannot be written: {os.strerror(errno.EACCES)}")
            return


def remove_empty_folders(folder: Path, outer: Path) -> None:
    """Remove a folder and those that contain it, from the inside out, as long as they are empty and below `outer`."""
    with suppress(OSError):  # there are other files
        folder.rmdir()
        for parent in folder.absolute().parents:
            if Path(os.path.expanduser(outer)).absolute() not in parent.parents:
                break
            parent.rmdir()


def relative(path: Path) -> Path:
    """Return the path relative to the current directory if it lies below it, otherwise the path itself."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
