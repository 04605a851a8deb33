"""Signals: Ctrl-C, SIGTERM and others let a step be finished and saved; a second Ctrl-C ends the process at once.

The processes that read images leave them to the main process.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reslab.errors import Interrupted

# What asks a process to end, where the system has it. SIGHUP: its terminal was closed. SIGUSR1 and SIGUSR2: its time on
# a cluster is nearly over (sbatch --signal, submitit, LSF, Grid Engine). SIGXCPU: so is its time on the processor.
ENDING_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
STDERR = 2
ALWAYS = (signal.SIGINT, signal.SIGTERM)  # a script ignores SIGINT in the commands that it starts in the background


class Signals:
    """Raises Interrupted when a signal arrives. Within `deferred`, it only stores the signal's number in `caught`."""

    def __init__(self) -> None:
        self.deferring = False
        self.caught: int | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the code of the block look at `caught` itself.

        Raises:
            Interrupted: at the end of the block, for a signal that the block did not act upon; at once, for a second
                Ctrl-C.
        """
        self.deferring = True
        try:
            yield
        finally:
            self.deferring = False
        if self.caught is not None:
            raise Interrupted(self.caught)

    def listen(self) -> None:
        """Install the handler for all requests to end, except those that are ignored: nohup ignores SIGHUP."""
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
            return
        for number in ENDING_SIGNALS:
            if number in ALWAYS or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self.receive)

    def stop_listening(self) -> None:
        """Let a request to end do so at once, without a word, because nothing is left to save."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) == self.receive:
                signal.signal(number, signal.SIG_DFL)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Raise Interrupted, or only note the first signal within `deferred`."""
        if self.caught is not None and number != signal.SIGINT:
            return  # clusters send more than one
        if self.caught is not None:  # a second Ctrl-C
            self.stop_listening()
        elif self.deferring:
            self.caught = number
            if number == signal.SIGINT and os.isatty(STDERR):  # to save may take seconds; a bar is erased
                os.write(STDERR, b"\r\x1b[2Kending, which saves what there is; Ctrl-C again ends at once\n")
            return
        self.caught = number
        raise Interrupted(number)


signals = Signals()


@contextmanager
def blocked() -> Iterator[None]:
    """Start the processes of the block with requests to end blocked.

    Those to this process wait until the end of the block only while it has no other thread, which would receive them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_main_process(worker: int) -> None:
    """Let only the main process end this one, a worker of it that was started in `blocked`.

    A terminal, `timeout`, systemd and clusters send a signal to all processes of a command. The main process then
    finishes its step, and needs its workers for it. It ends them by SIGTERM, which counts if it comes from there.

    Args:
        worker: the number of the worker, which torch passes.
    """
    for number in set(ENDING_SIGNALS) - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=end_at_request_of_main_process, daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):  # macOS does not say where a signal comes from
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def end_at_request_of_main_process() -> None:
    main = multiprocessing.parent_process()  # not os.getppid(), which may be a server that forks
    assert main is not None
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != main.pid:
        pass
    os._exit(0)


@contextmanager
def postponed_news_of_workers() -> Iterator[None]:
    """Let torch report at the end of the block, and not within it, that a worker process has died.

    torch's handler of SIGCHLD raises an error wherever the main process is, e.g. while it writes a checkpoint. Once the
    command was asked to end, it needs no worker.
    """
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived = list[FrameType | None]()
    signal.signal(signal.SIGCHLD, lambda number, frame: arrived.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)
    if arrived and signals.caught is None:
        handler(signal.SIGCHLD, arrived[-1])
