"""Runs the commands of ResLab in processes that are forked after the imports, so that each takes about a second."""

import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple, TypeVar

import pytest
import torch
from faults.injection import Injection, signal_in

from reslab.commands.main import main

LONGEST_LINE = 400
SECONDS = 100  # within which a command ends; longer is a hang
PRELOADED = [
    "reslab.commands.train", "reslab.commands.evaluate", "reslab.commands.predict", "reslab.commands.report",
    "reslab.training.fit", "reslab.training.averaging", "reslab.inference.evaluation", "reslab.inference.prediction",
    "faults.harness",
]  # fmt: skip
# Without `make faults`, every 41st case is tried, which takes two minutes in all. A prime number shares no factor with
# what a run repeats, so the sample meets each kind of operation.
ALL, SAMPLED = "RESLAB_ALL_FAULTS", 41
processes = multiprocessing.get_context("forkserver")


T = TypeVar("T")


class Ended(NamedTuple):
    """A command that has ended.

    Attributes:
        status: its exit status, or minus the number of the signal that killed it.
        output: all that it has printed.
        operations: what it has changed in the folder.
    """

    status: int
    output: str
    operations: list[str]


def sample(cases: Sequence[T]) -> Sequence[T]:
    return cases if ALL in os.environ else cases[::SAMPLED]


def is_one_line(output: str) -> bool:
    """Return whether a command that failed has said what is wrong in one line of reasonable length."""
    lines = [line for line in output.splitlines() if line.startswith("error: ")]
    return len(lines) == 1 and len(lines[0]) < LONGEST_LINE and "Traceback" not in output and '  File "' not in output


def start_server(patch: pytest.MonkeyPatch) -> None:
    """Start the process that has imported everything, and of which each command is a fork."""
    patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # which it would not know of
    processes.set_forkserver_preload(PRELOADED)
    forkserver.ensure_running()


def reslab(folder: Path, *arguments: object, at: int | str | None = None, fault: str = "") -> Ended:
    process = processes.Process(target=command, args=(list(map(str, arguments)), str(folder), at, fault))
    process.start()
    process.join(SECONDS)
    hangs = process.exitcode is None
    if hangs:
        process.kill()
        process.join()
    output = Path(f"{folder}.output").read_text()
    assert not hangs, f"{arguments} has not ended after {SECONDS} s: {output}"
    operations = Path(f"{folder}.operations")
    return Ended(process.exitcode, output, json.loads(operations.read_text()) if process.exitcode >= 0 else [])


def command(arguments: list[str], folder: str, at: int | str | None, fault: str) -> None:
    torch.set_num_threads(1)
    with Path(f"{folder}.output").open("w") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    injection = Injection(Path(folder), at if isinstance(at, int) else None, fault)
    injection.install()
    if isinstance(at, str):
        signal_in(at, fault)
    sys.argv = ["reslab", *arguments]
    try:
        main()
    finally:
        sys.stdout.flush()
        logging.shutdown()
        Path(f"{folder}.operations").write_text(json.dumps(injection.operations))
