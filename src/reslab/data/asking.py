"""Questions to many files or folders, which threads wait for together where the disk is slow."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")

THREADS = 16
AT_A_TIME = 64  # files of a thread, so that handing them over takes little beside asking for them


def ask_each(
    ask: Callable[[Item], Answer], items: Sequence[Item], at_a_time: int = AT_A_TIME
) -> Iterator[list[Answer]]:
    """Yield the answers for all items in order, those of some of them together.

    This thread asks until it has waited for longer than it has computed. Then `THREADS` threads ask for the rest. They
    would take two to three times as long where the disk's content is in memory, handing Python's lock to each other.

    Args:
        ask: the question, e.g. for the size of a file.
        items: the files or folders.
        at_a_time: how many of them one thread takes.
    """
    parts = [items[start : start + at_a_time] for start in range(0, len(items), at_a_time)]
    asked, waited = 0, 0.0
    while asked < len(parts) and waited <= 0:
        start, computed = time.perf_counter(), time.thread_time()
        answers = [ask(item) for item in parts[asked]]
        waited += (time.perf_counter() - start) - 2 * (time.thread_time() - computed)
        asked += 1
        yield answers
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(lambda part: [ask(item) for item in part], parts[asked:])
