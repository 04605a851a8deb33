"""A quick look at image files before training, which would meet a broken one only after minutes or hours."""

import logging
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

from rich.progress import Progress

from reslab.data.asking import ask_each
from reslab.data.images import header_error, report_unreadable

log = logging.getLogger(__name__)

Item = TypeVar("Item")
MOST_FILES = 20_000  # a local disk takes seconds for them, a network's disk a minute
SECONDS_WITHOUT_BAR = 1.0


def check_headers(paths: Sequence[str]) -> None:
    """Open image files and read what stands before their pixels. Of more than `MOST_FILES`, look at a sample.

    Raises:
        UserError: a file cannot be opened or is no image.
    """
    seen = evenly_spaced(paths, MOST_FILES)
    if len(seen) < len(paths):
        log.info("looked for broken files among %s of %s images", f"{len(seen):,}", f"{len(paths):,}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about single images
        found = with_bar(ask_each(header_error, seen), len(seen))
        errors = [error for errors in found for error in errors if error is not None]
    report_unreadable(errors, len(seen), on_error="stop")


def evenly_spaced(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Return all items, or `most` of them from the first to the last."""
    if len(items) <= most:
        return items
    return [items[number * len(items) // most] for number in range(most)]


def with_bar(results: Iterable[list[Item]], total: int) -> Iterator[list[Item]]:
    """Yield the results, each of several files, with a progress bar on a terminal once they take a moment."""
    start, bar = time.perf_counter(), Progress(transient=True)
    task = bar.add_task("looking at the image files", total=total)
    with ExitStack() as stack:
        for result in results:
            is_long = time.perf_counter() - start > SECONDS_WITHOUT_BAR
            if is_long and bar.console.is_terminal and not bar.live.is_started:
                stack.enter_context(bar)
            bar.advance(task, len(result))
            yield result
