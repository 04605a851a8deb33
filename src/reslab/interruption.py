"""Ctrl-C and SIGTERM let a training step end and be saved; a second Ctrl-C ends at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """Not an Exception: a sweep goes on after those."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number  # 130 for Ctrl-C, 143 for SIGTERM


class Signals:
    """Raises Interrupted where a signal arrives or, within `wait`, leaves it in `caught` for the training to see."""

    def __init__(self) -> None:
        self.deferred = False
        self.caught: int | None = None

    @contextmanager
    def wait(self) -> Iterator[None]:
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False
        if self.caught is not None:  # after the training's last look
            raise Interrupted(self.caught)

    def listen(self) -> None:
        if threading.current_thread() is not threading.main_thread():  # Python lets no other listen
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self.handle)
        if "SLURM_JOB_ID" in os.environ:
            signal.signal(signal.SIGUSR2, self.handle)  # submitit lets SLURM send it before the time is up

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.caught is not None and number != signal.SIGINT:
            return  # clusters send more than one
        if self.caught is not None:  # the second Ctrl-C; a third one meets no handler
            for each in (signal.SIGINT, signal.SIGTERM):
                signal.signal(each, signal.SIG_DFL)
        elif self.deferred:
            self.caught = number
            return
        self.caught = number
        raise Interrupted(number)


signals = Signals()
