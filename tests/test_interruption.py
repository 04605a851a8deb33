import os
import signal

import pytest

from reslab.interruption import Interrupted, Signals


@pytest.fixture
def signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals = Signals()
    signals.listen()
    yield signals
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_what_does_not_wait_for_it(signals, number, status):
    with pytest.raises(Interrupted, match=f"^{number.name}$") as interrupted:
        os.kill(os.getpid(), number)
    assert interrupted.value.status == status
    assert not isinstance(interrupted.value, Exception)  # a sweep would go on with the next job


def test_signals_wait_but_for_a_second_ctrl_c(signals):
    after = []

    def work():
        with signals.wait():
            os.kill(os.getpid(), signal.SIGTERM)
            after.append(signals.caught)
            os.kill(os.getpid(), signal.SIGTERM)  # clusters send more than one
            after.append(signals.caught)
            os.kill(os.getpid(), signal.SIGINT)
            after.append("not reached")

    with pytest.raises(Interrupted, match=r"^SIGINT$"):
        work()
    assert after == [signal.SIGTERM, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL  # the third ends the process


def test_a_signal_that_nothing_looked_at_counts_at_the_end(signals):
    with pytest.raises(Interrupted, match=r"^SIGINT$"), signals.wait():
        os.kill(os.getpid(), signal.SIGINT)
    assert not signals.deferred


def test_an_error_within_the_wait_is_what_is_told(signals):
    def work():
        with signals.wait():
            os.kill(os.getpid(), signal.SIGINT)
            raise ValueError("of the training")

    with pytest.raises(ValueError, match="of the training"):
        work()
