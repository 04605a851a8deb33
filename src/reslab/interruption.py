"""Signals: Ctrl-C and SIGTERM let a training step finish and be saved; a second Ctrl-C ends the process at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from reslab.errors import Interrupted


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
        """Install the handler for SIGINT and SIGTERM, and on a SLURM cluster for SIGUSR2."""
        if threading.current_thread() is not threading.main_thread():  # Python allows handlers in the main thread only
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.receive)
        if "SLURM_JOB_ID" in os.environ:
            signal.signal(signal.SIGUSR2, self.receive)  # submitit asks SLURM to send it before the time limit

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Raise Interrupted, or only note the first signal within `deferred`."""
        if self.caught is not None and number != signal.SIGINT:
            return  # clusters send more than one
        if self.caught is not None:  # a second Ctrl-C: from now on a signal ends the process at once
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
        elif self.deferring:
            self.caught = number
            return
        self.caught = number
        raise Interrupted(number)


signals = Signals()
