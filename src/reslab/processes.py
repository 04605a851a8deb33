"""Processes that end with the command that started them, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from reslab.machine import LIGHTNING_PROCESS

GRACE_SECONDS = 10  # that a process may outlive its command, to save
FIRST_PROCESS = "RESLAB_FIRST_PROCESS"  # an environment variable: the number of a run's process of rank 0
PR_SET_PDEATHSIG = 1  # from Linux's sys/prctl.h

# A guard is a process of its own, because neither a command that is killed nor a process that hangs can do its work.
GUARD = """
import os, signal, sys, time
for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    begun, number = line.split()
    (groups.add if begun == "begun" else groups.discard)(int(number))
def send(what):
    for group in list(groups):
        try:
            os.killpg(group, what)
        except ProcessLookupError:
            groups.discard(group)
send(signal.SIGTERM)
end = time.monotonic() + float(sys.argv[1])
while groups and time.monotonic() < end:
    time.sleep(0.1)
    send(0)
send(signal.SIGKILL)
"""


class Guard:
    """Ends the groups of processes that a command has started if the command ends first, for whatever reason.

    Each group receives SIGTERM, and ten seconds later SIGKILL. The guard notices the end of the command by the end of
    its input.
    """

    def __enter__(self) -> "Guard":
        self.process = subprocess.Popen(
            [sys.executable, "-IS", "-c", GUARD, str(GRACE_SECONDS)],
            stdin=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()
        self.process.wait()

    def start(self, command: Sequence[str], **options: object) -> "subprocess.Popen[bytes]":
        """Start a command in a session of its own, so that Ctrl-C does not reach it, and guard it."""
        process: subprocess.Popen[bytes] = subprocess.Popen(command, start_new_session=True, **options)  # type: ignore[call-overload]
        self.note("begun", process)
        return process

    def end(self, process: "subprocess.Popen[bytes]") -> int:
        """Kill a process and those that it has started, even if it has ended itself, and return its exit status."""
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of zombies
            os.killpg(process.pid, signal.SIGKILL)
        self.note("ended", process)
        return process.wait()

    def note(self, what: str, process: "subprocess.Popen[bytes]") -> None:
        assert self.process.stdin is not None
        with suppress(OSError):  # somebody has killed the guard
            self.process.stdin.write(f"{what} {process.pid}\n")
            self.process.stdin.flush()


def is_further_process(arguments: Sequence[str]) -> bool:
    """Return whether Lightning has started this process, for a rank above 0 of a distributed run."""
    return any(argument.startswith(LIGHTNING_PROCESS) for argument in arguments)


def first_process(arguments: Sequence[str]) -> dict[str, str]:
    """Return the environment variable by which the further processes of this run know the first one."""
    return {} if is_further_process(arguments) else {FIRST_PROCESS: str(os.getpid())}


def end_with_first_process(arguments: Sequence[str]) -> None:
    """Let this process, if it is a further one of a distributed run, be killed when the first one ends.

    It has nothing to save, and would wait for the first process forever. Only Linux can do so.
    """
    if is_further_process(arguments) and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.environ.get(FIRST_PROCESS, str(os.getppid())) != str(os.getppid()):  # the first one has ended already
            sys.exit(1)


def kill_further_processes() -> None:
    """Kill the further processes of a distributed run that has failed in this process, the first one."""
    for children in Path("/proc/self/task").glob("*/children"):
        for number in children.read_text(encoding="utf-8").split():
            with suppress(OSError):  # it has ended
                if LIGHTNING_PROCESS.encode() in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(int(number), signal.SIGKILL)
