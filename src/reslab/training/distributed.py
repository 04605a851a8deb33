"""The processes of a distributed run: where they meet, and the error of one of them as that of the run."""

import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import lightning as L
import torch
from torch import distributed

from reslab.errors import Interrupted, RunError, is_mistake, one_line
from reslab.internals import observed_processes, store_on_loopback
from reslab.machine import environment, is_first_process, launched_by_slurm, launched_by_torchrun
from reslab.processes import FAILURES, LostProcessError, read_failure, status_line
from reslab.run import Run

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"  # the variable of Gloo, which connects processes without GPUs
POLL_SECONDS = 0.1
REPORT_SECONDS = 5  # in which a process that has failed says why, and another one notices that it has lost it
LOST_CONNECTION = r"gloo/|Connection (closed|reset) by peer|Broken pipe"


@contextmanager
def joined_processes(num_nodes: int, run: Run | None = None) -> Iterator[None]:
    """Let the processes of a run meet in the block, and raise the error of the one that has failed by itself.

    The others only find that they have lost it. The first process waits for none that has ended, and raises its error
    as its own. Where a launcher other than Lightning has started the processes, each of them reports its own error.

    Args:
        num_nodes: the number of machines.
        run: the run whose folder records the error; None for a command without one.

    Raises:
        UserError: another process has failed because of a mistake of the user.
        RunError: another process has failed, or was killed.
        LostProcessError: another process cannot be reached, and reports the reason itself.
    """
    further = FurtherProcesses(run)
    is_launched = launched_by_slurm() or launched_by_torchrun()
    starts_others = is_first_process() and not is_launched
    try:
        with on_loopback(num_nodes, further), further.watched() if starts_others else nullcontext():
            yield
    except Exception as error:
        if not is_lost_connection(error):
            raise
        if (cause := further.wait_for_error()) is not None:
            raise cause from error
        if run is not None and is_launched:
            wait_for_record(run)
        raise LostProcessError from error
    finally:
        further.remove_reports()


def count_over_processes(trainer: L.Trainer, count: int) -> int:
    """Return the sum of the counts of all processes, each of which must call this."""
    return int(trainer.strategy.reduce(torch.tensor(count, device=trainer.strategy.root_device), reduce_op="sum"))


def wait_for_record(run: Run) -> None:
    """Wait until the process that has failed has recorded why, for this one would record that it does not know."""
    end = time.monotonic() + REPORT_SECONDS
    with suppress(Interrupted):  # torchrun ends the others
        while not run.has_failed and time.monotonic() < end:
            time.sleep(POLL_SECONDS)


def is_lost_connection(error: Exception) -> bool:
    """Return whether an error says that another process has ended: torch.distributed, NCCL or Gloo raises it."""
    is_of_gloo = isinstance(error, RuntimeError) and re.search(LOST_CONNECTION, str(error)) is not None
    return isinstance(error, distributed.DistError) or is_of_gloo


class FurtherProcesses:
    """The processes of the ranks above 0 that Lightning starts for a run, as the first process sees them.

    Args:
        run: the run; None for a command without a folder.

    Attributes:
        processes: the processes, in the order of their ranks, once Lightning has started them.
    """

    def __init__(self, run: Run | None) -> None:
        self.run = run
        self.processes: Sequence[subprocess.Popen[bytes]] = ()
        self.failures = Path(tempfile.gettempdir(), f"reslab-{secrets.token_hex(16)}")  # nobody can guess the name
        self.left = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the processes that Lightning starts in the block, and let them know where to write their errors."""
        try:
            with environment({FAILURES: str(self.failures)}), observed_processes(self.watch):
                yield
        finally:
            self.left.set()

    def watch(self, processes: Sequence["subprocess.Popen[bytes]"]) -> None:
        self.processes = processes
        threading.Thread(target=self.end_if_one_fails, daemon=True).start()

    def error(self) -> Exception | None:
        """Return the error of a process that has failed by itself; None if none has."""
        reports = {rank: read_failure(self.failures, rank) for rank, _ in enumerate(self.processes, 1)}
        own = [report for report in reports.values() if report is not None and not isinstance(report, LostProcessError)]
        if own:
            return own[0]
        for rank, process in enumerate(self.processes, 1):
            if process.poll() is not None and reports[rank] is None:
                return RunError(status_line(rank, process.returncode))
        return None

    def wait_for_error(self) -> Exception | None:
        """Return the error of a process that has failed by itself, for which this one may have to wait."""
        end = time.monotonic() + REPORT_SECONDS
        while (error := self.error()) is None and self.processes and time.monotonic() < end:
            time.sleep(POLL_SECONDS)
        return error

    def raise_error(self) -> None:
        if (error := self.error()) is not None:
            raise error

    def remove_reports(self) -> None:
        for rank, _ in enumerate(self.processes, 1):
            with suppress(OSError):
                Path(f"{self.failures}-{rank}").unlink()

    def end_if_one_fails(self) -> None:
        """End this process if another one has ended and this one, within some seconds, does not notice.

        It may wait in a library for what the other one will never send. An exception could not reach it there.
        """
        while not self.left.wait(POLL_SECONDS):
            if any(process.poll() for process in self.processes):
                if not self.left.wait(REPORT_SECONDS):
                    self.end()
                return

    def end(self) -> None:
        """Record and print the error, and end all processes."""
        error = self.error() or LostProcessError()
        line = one_line(error, "config")
        if self.run is not None and self.run.hydra_folder.is_dir():
            with suppress(OSError):
                self.run.fail(line)
        print(f"error: {line}", file=sys.stderr, flush=True)
        for process in self.processes:
            process.kill()
        self.remove_reports()
        os._exit(2 if is_mistake(error) else 1)


@contextmanager
def on_loopback(num_nodes: int, further: FurtherProcesses) -> Iterator[None]:
    """Let the processes of a run on one machine talk through its loopback interface, which no other machine reaches.

    A launcher other than Lightning, and NCCL, which connects GPUs, have settings of their own. Only Linux is known to
    call the interface `lo`.
    """
    if num_nodes > 1 or sys.platform != "linux" or launched_by_slurm() or launched_by_torchrun():
        yield
        return
    interface = os.environ.get(GLOO_INTERFACE, "lo")
    with environment({GLOO_INTERFACE: interface}), store_on_loopback(further.raise_error):
        yield
