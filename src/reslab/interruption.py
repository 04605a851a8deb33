"""Signals: Ctrl-C, SIGTERM and others let a step be finished and saved; a second Ctrl-C ends the process at once."""

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
