"""How a row of benchmarks/gpu.py is measured: commands in processes of their own, within the time of the call."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gpu_data import ROOT

from reslab.run import Run

STARTED = "RESLAB_BENCHMARK_STARTED"  # the variable with the time.time() of a command's start, for gpu_probe.py
STOP_SECONDS = 20.0  # for a run that is interrupted, to write its checkpoint
Settings = Mapping[str, object]
# What makes a run tiny: --dry tries every row on the CPU.
TINY = {
    "model": "resnet8", "data.batch_size": 16, "data.num_workers": 0, "trainer": "cpu", "trainer.accelerator": "cpu",
    "trainer.precision": "32-true", "trainer.limit_train_batches": 3, "trainer.limit_val_batches": 1,
    "trainer.limit_test_batches": 1,
}  # fmt: skip


class RowError(Exception):
    """A row could not be measured. The message is one line."""


class OutOfTimeError(Exception):
    """The time of the call ended before the row was measured."""


class Machine:
    """Where the rows of one call are measured.

    Args:
        work: the folder of data and runs.
        ends: when the call ends, on the clock of time.monotonic.
        dry: measure something tiny on the CPU instead.

    Attributes:
        commands: those of the present row.
    """

    def __init__(self, work: Path, ends: float, dry: bool = False) -> None:
        self.work, self.ends, self.dry = work.absolute(), ends, dry
        self.commands: list[str] = []
        self.loops: dict[str, dict[str, Any]] = {}

    @property
    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def python(self, *arguments: object, stop: bool = False) -> None:
        """Run a script of this checkout.

        Args:
            arguments: the script and its arguments.
            stop: interrupt it shortly before the call ends. Otherwise it is killed at the end.

        Raises:
            RowError: it failed.
            OutOfTimeError: it was killed.
        """
        self.commands.append(command_line(arguments))
        log = self.work / "output.txt"
        self.work.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=ROOT,
                env=os.environ | self.environment(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the processes that it starts are killed with it
            )
        try:
            wait(process, self.seconds_left - (STOP_SECONDS if stop else 0))
            if stop and process.poll() is None:
                process.terminate()
                wait(process, STOP_SECONDS)
            status = process.poll()
        finally:
            kill_group(process)
        if status is None:
            raise OutOfTimeError("it was killed when the time of the call had passed")
        if status and not (stop and status in (-signal.SIGTERM, 128 + signal.SIGTERM)):
            raise RowError(last_line(log.read_text(errors="replace"), status))

    def environment(self) -> dict[str, str]:
        paths = [str(ROOT / "src"), str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")]
        variables = {"PYTHONPATH": os.pathsep.join(path for path in paths if path), STARTED: str(time.time())}
        # A compiler would take half a minute for the tiny network.
        return variables | ({"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"} if self.dry else {})

    def train(self, name: str, settings: Settings, tiny: Settings | None = None) -> tuple[Run, float]:
        """Train a new run with src/train.py, and return it with the seconds of the whole command.

        Args:
            name: of the run's folder.
            settings: the command line.
            tiny: what --dry sets beside TINY.
        """
        folder = self.work / "runs" / name
        shutil.rmtree(folder, ignore_errors=True)
        chosen = {**settings, **(TINY | dict(tiny or {}) if self.dry else {}), "hydra.run.dir": folder}
        start = time.monotonic()
        self.python("src/train.py", *overrides(chosen))
        return Run(folder), time.monotonic() - start

    def plain_step(self, name: str, kind: str) -> dict[str, float]:
        """Return what benchmarks/gpu_loops.py measures of a network: "step_ms" and "peak_mb".

        It measures both kinds, "eager" and "graph", once in a call.
        """
        file = self.work / f"loops-{name}.json"
        size = ["--cpu", "--steps", 2] if self.dry else ["--steps", 20 if name.endswith("224") else 60]
        script = ("benchmarks/gpu_loops.py", name, file, *size)
        if name in self.loops:
            self.commands.append(command_line(script))
        else:
            self.python(*script)
            self.loops[name] = json.loads(file.read_text())
        measured = self.loops[name][kind]
        if "error" in measured:
            raise RowError(measured["error"])
        return dict(measured)

    def ratio_to_plain(self, name: str, kind: str, step_ms: float) -> dict[str, float]:
        """Return how many times as fast a step is as that of the plain loop; nothing where that has failed."""
        with suppress(RowError):
            return {"ratio": self.plain_step(name, kind)["step_ms"] / step_ms}
        return {}


def command_line(arguments: Iterable[object]) -> str:
    return " ".join(["python", *map(str, arguments)])


def overrides(settings: Settings) -> list[str]:
    """Return the settings as words of a command line; a path may hold blanks and commas."""
    return [f"{name}='{value}'" if isinstance(value, Path) else f"{name}={value}" for name, value in settings.items()]


def wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Wait for a process to end, at most so many seconds."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, seconds))


def kill_group(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_line(output: str, status: int) -> str:
    """Return the line of a program's output that says why it failed."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in output.splitlines()]
    lines = [line for line in lines if line]
    errors = [line for line in lines if re.match(r"(error|[\w.]*Error|[\w.]*Exception|FAILED)\b", line)]
    line = (errors or lines or ["no output"])[-1]
    return f"exit status {status}: {line[:300]}"


def in_pieces(machine: Machine, name: str, settings: Settings, tiny: Settings) -> dict[str, Any]:
    """Train a run that may be longer than a call: it is interrupted before the call ends, and resumed by the next one.

    Raises OutOfTimeError with what the run has reached if it has not finished.
    """
    outputs = machine.work / "fidelity" / name
    chosen = {**settings, **(TINY | dict(tiny) if machine.dry else {}), "outputs": outputs, "resume": "auto"}
    machine.python("src/train.py", *overrides(chosen), stop=True)
    runs = [*Run.below(outputs)]
    result = next((run.result for run in runs if run.has_ended), None)
    if result is None:
        raise OutOfTimeError(f"{max((len(run.metrics) for run in runs), default=0)} epochs so far")
    shutil.rmtree(outputs)  # resume=auto would begin another run
    return result
