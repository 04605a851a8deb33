"""One run of a program: on a pseudo-terminal or without one, with the time of its steps and its memory."""

import os
import pty
import re
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from pathlib import Path
from struct import pack
from termios import TIOCSWINSZ

CLOCK = Path(__file__).parent / "peers_clock"
ROWS, COLUMNS = 40, 120
SECONDS_BETWEEN_SAMPLES = 0.5
TIME_LIMIT = 600  # seconds


@dataclass
class Outcome:
    """What a run did. Memory is the peak of the sum over its processes, each shared page divided among them (PSS)."""

    status: int = 0
    seconds: float = 0.0
    output: str = ""
    step_ends: list[float] = field(default_factory=list)  # seconds since the start of the command
    peak_mb: float = 0.0

    @property
    def lines(self) -> list[str]:
        """The lines that are not empty, as a terminal shows them in the end, without colours."""
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.output.replace("\r\n", "\n"))
        lines = (line.rpartition("\r")[2].strip() for line in plain.split("\n"))
        return [line for line in lines if line]


def run(
    command: list[str], place: Path, environment: dict[str, str], terminal: bool = True, kill_after: int | None = None
) -> Outcome:
    """Run a command to its end, or until it has made `kill_after` steps, when all its processes are killed."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder) / "clock"
        # What is in the caller's PYTHONPATH, such as ResLab's plugins of Hydra, must not slow or change a peer.
        variables = os.environ | environment | {"PEERS_CLOCK": str(clock), "PYTHONPATH": str(CLOCK)}
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            ioctl(theirs, TIOCSWINSZ, pack("HHHH", ROWS, COLUMNS, 0, 0))
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=place, env=variables, start_new_session=True, stdout=theirs, stderr=theirs,
            stdin=theirs if terminal else subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs)
        written: list[bytes] = []
        reader = threading.Thread(target=drain, args=(ours, written))
        reader.start()
        outcome = Outcome()
        while process.poll() is None:
            if kill_after is None:
                outcome.peak_mb = max(outcome.peak_mb, memory_mb(process.pid))
            killed = kill_after is not None and len(steps(clock)) >= kill_after
            if killed or time.monotonic() - start > TIME_LIMIT:
                os.killpg(process.pid, signal.SIGKILL)
            wait(process, SECONDS_BETWEEN_SAMPLES if kill_after is None else 0.02)
        outcome.seconds = time.monotonic() - start
        reader.join()
        os.close(ours)
        outcome.status, outcome.output = process.returncode, b"".join(written).decode(errors="replace")
        outcome.step_ends = [end - start for end in steps(clock)]
    return outcome


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def drain(terminal: int, written: list[bytes]) -> None:
    try:
        while part := os.read(terminal, 65536):
            written.append(part)
    except OSError:  # Linux raises it when the other end is closed.
        pass


def steps(clock: Path) -> list[float]:
    return [float(line) for line in clock.read_text().splitlines()] if clock.exists() else []


def memory_mb(session: int) -> float:
    """Return the memory of all processes of a session."""
    total = 0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            rollup = (folder / "smaps_rollup").read_text()
        except (OSError, IndexError):  # the process has ended
            continue
        total += next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return total / 1024
