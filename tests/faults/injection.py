"""Makes one operation of this process on the files of a folder fail, or sends a signal in a phase of a training run.

An operation is what changes something below the folder: to open a file for writing, each write that reaches the
system, fsync, rename, remove, mkdir, … They are counted where Python hands them to the system. What code in C writes to
a file that it has opened by its name is not seen.
"""

import builtins
import errno
import functools
import io
import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
# The functions of os that change a file, with the number of the argument that names it or is its descriptor.
CHANGES = {
    "open": 0, "write": 0, "pwrite": 0, "fsync": 0, "fdatasync": 0, "truncate": 0, "ftruncate": 0, "sendfile": 0,
    "copy_file_range": 1, "rename": 1, "replace": 1, "unlink": 0, "remove": 0, "mkdir": 0, "rmdir": 0, "link": 1,
    "symlink": 1, "utime": 0, "chmod": 0,
}  # fmt: skip
# The phases of a run: the function with which each begins, and the how manieth call of it.
PHASES = {
    "composition": ("hydra._internal.config_loader_impl:ConfigLoaderImpl.load_configuration", 1),
    "begin of the training": ("reslab.training.fit.train", 1),
    "data built": ("reslab.training.fit.build_classifier", 1),
    "first step": ("reslab.training.classifier:Classifier.training_step", 1),
    "within an epoch": ("reslab.training.classifier:Classifier.training_step", 5),
    "validation": ("reslab.training.classifier:Classifier.validation_step", 1),
    "a checkpoint": ("torch.save", 2),
    "end of the training": ("reslab.training.fit.validate_last_weights", 1),
    "test": ("reslab.training.classifier:Classifier.test_step", 1),
    "writing the result": ("reslab.run.write_json", 1),
    "after the result": ("reslab.commands.printing.print_result", 1),
}
FREES = ("unlink", "remove", "rmdir")  # which work on a full disk


class Injection:
    """Counts the operations below a folder, and lets one of them fail.

    Args:
        folder: where the operations count.
        at: the number of the operation that fails, from 0; None to count only.
        fault: the name of a signal, which this process gets in its place, or EIO, which it raises, or ENOSPC, which it
            raises, as all later operations do that need space. A write has written the half when it fails.

    Attributes:
        operations: what was done, e.g. "mkdir checkpoints".
    """

    def __init__(self, folder: Path, at: int | None = None, fault: str = "") -> None:
        self.folder, self.at, self.fault = str(folder.resolve()), at, fault
        self.operations: list[str] = []
        self.real_open = io.open

    def install(self) -> None:
        for name, position in CHANGES.items():
            setattr(os, name, self.watched(name, getattr(os, name), position))
        builtins.open = io.open = self.open

    def watched(self, name: str, real: Callable[..., Any], position: int) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            flags = arguments[1] if name == "open" else WRITING
            if flags & WRITING and (path := self.below(arguments[position])):
                self.operation(name, path)
            return real(*arguments, **options)

        return changed

    def below(self, file: Any) -> str | None:
        """Return the path of a file or a descriptor relative to the folder; None if it is elsewhere."""
        name = f"/proc/self/fd/{file}" if isinstance(file, int) else os.fsdecode(file)
        path = os.readlink(name) if isinstance(file, int) else os.path.abspath(name)  # noqa: PTH100, PTH115  # links stay
        inside = path == self.folder or path.startswith(self.folder + os.sep)
        return os.path.relpath(path, self.folder) if inside else None

    def operation(self, name: str, path: str) -> None:
        """Count an operation, and fail if it is the one."""
        self.operations.append(f"{name} {path}")
        if self.at is None or len(self.operations) <= self.at:
            return
        first = len(self.operations) == self.at + 1
        if self.fault.startswith("SIG"):
            if first:
                os.kill(os.getpid(), signal.Signals[self.fault])
        elif first or (self.fault == "ENOSPC" and name not in FREES):
            number = getattr(errno, self.fault)
            raise OSError(number, os.strerror(number), path)

    def open(self, file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        """Do what Python's open does, with a file whose writes count."""
        if isinstance(file, int) or not set(mode) & set("wax+") or (path := self.below(file)) is None:
            return self.real_open(file, mode, buffering, *rest, **options)
        self.operation("open", path)
        raw = WatchedFile(file, mode.replace("b", "").replace("t", ""), opener=options.pop("opener", None))
        raw.injection, raw.path = self, path
        if buffering == 0:
            return raw
        buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *rest, **options, line_buffering=buffering == 1)


class WatchedFile(io.FileIO):
    injection: Injection
    path: str

    def write(self, data: Any) -> int:
        before = len(self.injection.operations)
        at = self.injection.at
        if before == at:
            super().write(memoryview(data)[: len(data) // 2])
        self.injection.operation("write", self.path)
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self.injection.operation("truncate", self.path)
        return super().truncate(size)


def signal_in(phase: str, name: str) -> None:
    """Let this process get a signal when a phase of its run begins."""
    place, number = PHASES[phase]
    owner_name, _, function_name = place.rpartition(".")
    owner = resolve_name(owner_name)
    real, calls = getattr(owner, function_name), itertools.count(1)

    @functools.wraps(real)
    def begun(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.Signals[name])
        return real(*arguments, **options)

    setattr(owner, function_name, begun)
