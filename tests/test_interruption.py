import os
import signal
import subprocess
import sys

import pytest

from reslab import interruption
from reslab.errors import Interrupted
from reslab.interruption import ENDING_SIGNALS, Signals, blocked, postponed_news_of_workers


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    signals = Signals()
    signals.listen()
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 138), (signal.SIGUSR2, 140),
     (signal.SIGXCPU, 152)],
)  # fmt: skip
def test_a_signal_raises_an_error_at_once(signals, number, status):
    with pytest.raises(Interrupted, match=f"^{number.name}$") as interrupted:
        os.kill(os.getpid(), number)
    assert interrupted.value.status == status
    assert not isinstance(interrupted.value, Exception)  # a sweep would continue with its next job


def test_deferred_signals_wait_except_for_a_second_ctrl_c(signals):
    after = []

    def work():
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            after.append(signals.caught)
            os.kill(os.getpid(), signal.SIGTERM)  # clusters send more than one
            after.append(signals.caught)
            os.kill(os.getpid(), signal.SIGINT)
            after.append("not reached")

    with pytest.raises(Interrupted, match=r"^SIGINT$"):
        work()
    assert after == [signal.SIGTERM, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # a third one ends the process


def test_a_deferred_signal_raises_an_error_at_the_end_of_the_block(signals):
    with pytest.raises(Interrupted, match=r"^SIGINT$"), signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
    assert not signals.deferring


def test_an_error_within_the_block_comes_before_the_signal(signals):
    def work():
        with signals.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("of the training")

    with pytest.raises(ValueError, match="of the training"):
        work()


def test_what_is_ignored_stays_ignored(signals):
    """nohup starts a command with SIGHUP ignored."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.listen()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_after_the_end_a_signal_ends_the_process_at_once(signals):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signals.stop_listening()
    assert {signal.getsignal(number) for number in set(ENDING_SIGNALS) - {signal.SIGHUP}} == {signal.SIG_DFL}
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_a_process_begins_with_requests_to_end_blocked():
    program = "import signal; print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))"
    with blocked():
        child = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert child.stdout == f"{sorted(map(int, ENDING_SIGNALS))}\n"
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


@pytest.fixture
def dead_worker(monkeypatch):
    """A handler like that of torch, which raises an error where a worker process has died."""

    def handler(number, frame):
        raise RuntimeError("DataLoader worker died")

    before = signal.signal(signal.SIGCHLD, handler)
    monkeypatch.setattr(interruption.signals, "caught", None)
    yield handler
    signal.signal(signal.SIGCHLD, before)


def test_a_worker_that_dies_is_reported_at_the_end_of_the_block(dead_worker):
    after = []

    def work():
        with postponed_news_of_workers():
            os.kill(os.getpid(), signal.SIGCHLD)
            after.append("the block continues")

    with pytest.raises(RuntimeError, match="DataLoader worker died"):
        work()
    assert after == ["the block continues"]
    assert signal.getsignal(signal.SIGCHLD) == dead_worker


def test_a_worker_that_dies_after_a_request_to_end_is_not_reported(dead_worker, monkeypatch):
    monkeypatch.setattr(interruption.signals, "caught", signal.SIGTERM)
    with postponed_news_of_workers():
        os.kill(os.getpid(), signal.SIGCHLD)
    assert signal.getsignal(signal.SIGCHLD) == dead_worker


def test_an_error_in_the_block_comes_before_a_worker_that_dies(dead_worker):
    def work():
        with postponed_news_of_workers():
            os.kill(os.getpid(), signal.SIGCHLD)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        work()
    assert signal.getsignal(signal.SIGCHLD) == dead_worker
