"""How long networks take for a batch."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Name = TypeVar("Name")
FEWEST_ROUNDS = 5


def milliseconds(
    calls: Mapping[Name, Callable[[], Any]], seconds: float, rounds: int = 200, warmup_rounds: int = 2
) -> dict[Name, list[float]]:
    """Return how long each call takes, in every round.

    A round makes every call once, so that a change in the load of the machine meets all of them.

    Args:
        calls: what is timed; a call returns once its work is done.
        seconds: after which no further round begins, if there were 5 of them.
        rounds: how many at most.
        warmup_rounds: how many come before, and are not counted.
    """
    times: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(warmup_rounds):
        for call in calls.values():
            call()
    end = time.perf_counter() + seconds
    for number in range(rounds):
        if number >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - begin))
    return times


def medians(calls: Mapping[Name, Callable[[], Any]], seconds: float) -> dict[Name, float]:
    """Return the median of `milliseconds` of each call."""
    return {name: statistics.median(each) for name, each in milliseconds(calls, seconds).items()}
