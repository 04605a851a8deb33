"""Memory that this process has freed: kept for its next step, or returned to the system.

glibc alone has these functions; with other C libraries nothing happens.
"""

import ctypes
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # the names in glibc's malloc.h


def keep_freed_memory() -> None:
    """Keep freed blocks of up to 1 GiB for the next step.

    glibc would return them to the system, and each page would cost a fault again: 5 to 10% of a step on a CPU
    (benchmarks/README.md).
    """
    if mallopt := c_function("mallopt"):
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**30)


def return_freed_memory() -> None:
    """Return what is kept. A process that is forked would share it, and this one would soon have a copy of its own."""
    if malloc_trim := c_function("malloc_trim"):
        malloc_trim(0)


def c_function(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
