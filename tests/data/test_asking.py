import itertools
import threading
from types import SimpleNamespace

import pytest

from reslab.data import asking
from reslab.data.asking import ask_each

MAIN = threading.main_thread()


@pytest.mark.parametrize(
    ("seconds_computed", "asked_here"), [(1.0, 10), (0.5, 10), (0.4, 3), (0.0, 3)], ids=["works", "evenly", "", "waits"]
)
def test_threads_ask_as_soon_as_the_disk_lets_them_wait(monkeypatch, seconds_computed, asked_here):
    seconds, computed = itertools.count(), itertools.count(step=seconds_computed)
    clock = SimpleNamespace(perf_counter=lambda: next(seconds), thread_time=lambda: next(computed))
    monkeypatch.setattr(asking, "time", clock)
    answers = list(ask_each(lambda item: (item, threading.current_thread() is MAIN), range(10), at_a_time=3))
    assert [len(part) for part in answers] == [3, 3, 3, 1]
    assert list(itertools.chain(*answers)) == [(number, number < asked_here) for number in range(10)]


def test_of_nothing_nothing_is_asked():
    assert list(ask_each(pytest.fail, [])) == []
