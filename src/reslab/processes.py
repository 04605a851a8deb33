"""Processes that end with the command that started them, however it ends."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from reslab.errors import RunError, UserError
from reslab.interruption import blocked
from reslab.machine import LIGHTNING_PROCESS

GRACE_SECONDS = 10  # that a process may outlive its command, to save
FAILURES = "RESLAB_FAILURES"  # an environment variable: where the further processes of a run write their errors
FIRST_PROCESS = "RESLAB_FIRST_PROCESS"  # an environment variable: the number of a run's process of rank 0
PR_SET_PDEATHSIG = 1  # from Linux's sys/prctl.h

# A guard is a process of its own, because neither a command that is killed nor a process that hangs can do its work.
GUARD = """
import os, signal, sys, time
groups = set()
for line in sys.stdin:
    begun, number = line.split()
    (groups.add if begun == "begun" else groups.discard)(int(number))
def send(what):
    for group in list(groups):
        try:
            os.killpg(group, what)
        except (ProcessLookupError, PermissionError):  # macOS's answer where only zombies are left
            groups.discard(group)
send(signal.SIGTERM)
end = time.monotonic() + float(sys.argv[1])
while groups and time.monotonic() < end:
    time.sleep(0.1)
    send(0)
send(signal.SIGKILL)
"""


class LostProcessError(RunError):
    """Another process of a distributed run has ended, or cannot be reached. It knows the reason itself."""

    def __init__(self) -> None:
        super().__init__("another process of the run has failed, or cannot be reached: its own output says why")


class Guard:
    """Ends the groups of processes that a command has started if the command ends first, for whatever reason.

    Each group receives SIGTERM, and ten seconds later SIGKILL. The guard notices the end of the command by the end of
    its input.
    """

    def __enter__(self) -> "Guard":
        with blocked():  # in the guard, for ever: clusters send signals to all processes of a job
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


def report_failure(arguments: Sequence[str], error: Exception, line: str, is_mistake: bool) -> bool:
    """Leave the error of a further process to the first one, which prints it. Return False if this is no such process.

    Args:
        arguments: the command line of this process.
        error: the error.
        line: its description.
        is_mistake: whether the user can fix it.
    """
    if not is_further_process(arguments) or FAILURES not in os.environ:
        return False
    report = {"line": line, "is_mistake": is_mistake, "is_lost": isinstance(error, LostProcessError)}
    report["traceback"] = "".join(traceback.format_exception(error))
    path = Path(f"{os.environ[FAILURES]}-{os.environ['LOCAL_RANK']}")
    with suppress(OSError):  # a full disk may be why the process failed; the first one then knows the status only
        partial = path.with_suffix(".partial")
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            json.dump(report, file)
        partial.replace(path)
    return True


def read_failure(failures: Path, rank: int) -> Exception | None:
    """Return the error that a further process has left, with its traceback as a note; None if there is none.

    Args:
        failures: the value of the environment variable.
        rank: the rank of the process on this machine.
    """
    try:
        report = json.loads(Path(f"{failures}-{rank}").read_text(encoding="utf-8"))
    except OSError:
        return None
    if report["is_lost"]:
        return LostProcessError()
    error = (UserError if report["is_mistake"] else RunError)(report["line"])
    error.add_note(f"In process {rank}:\n{report['traceback']}")
    return error


def status_line(rank: int, status: int) -> str:
    """Describe how a further process has ended that has left no error."""
    if status == -signal.SIGKILL:
        return f"process {rank} of the run was killed (SIGKILL): too little memory is the usual reason"
    ended = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
    return f"process {rank} of the run {ended}"


def kill_further_processes() -> None:
    """Kill the further processes of a distributed run that has failed in this process, the first one."""
    for children in Path("/proc/self/task").glob("*/children"):
        for number in children.read_text(encoding="utf-8").split():
            with suppress(OSError):  # it has ended
                if LIGHTNING_PROCESS.encode() in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(int(number), signal.SIGKILL)
