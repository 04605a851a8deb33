"""Memory of this process: how much is free, a limit on what it allocates, and the most that it has used."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

USABLE_FRACTION = 0.9  # of the free memory, because other processes may allocate some of it in the meantime


@contextmanager
def limited_memory(device: torch.device, limit_mb: float | None) -> Iterator[None]:
    """Make an allocation beyond the limit fail, where Linux would otherwise kill this process or another one.

    Args:
        device: where the network is trained. On a GPU an allocation fails without a limit too; the limit stays set
            until the process ends.
        limit_mb: on a CPU, how much may be allocated in addition to what the libraries use now; None for nearly all
            memory that is free.
    """
    if device.type == "cuda" and limit_mb is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mb * 2**20 / total), device)
    if device.type != "cpu" or sys.platform != "linux":  # Other systems do not count mapped memory.
        yield
        return
    import resource  # Windows does not have this module.

    # This starts OpenMP's threads: libgomp ends the process if there is no memory left to start them later.
    torch.ones(2**20).add_(1)
    allowed = round(USABLE_FRACTION * free_memory() if limit_mb is None else limit_mb * 2**20)
    before, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = read_kilobytes("/proc/self/status", "VmData") * 1024 + allowed
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, hard))


def read_kilobytes(file: str, name: str) -> int:
    """Return the value of a line such as `MemAvailable:  1024 kB` in one of Linux's files."""
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return int(found[1])


def free_memory(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes Linux can still allocate, within the limit of the container if there is one."""
    free = read_kilobytes("/proc/meminfo", "MemAvailable") * 1024
    for limit, usage in (
        ("memory.max", "memory.current"),  # cgroups version 2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # version 1
    ):
        if (cgroup / limit).is_file() and (text := (cgroup / limit).read_text(encoding="utf-8").strip()) != "max":
            free = min(free, int(text) - int((cgroup / usage).read_text(encoding="utf-8")))
    return max(free, 0)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that were taken at once.

    On a GPU this is what torch has taken of it, with the images and with what CUDA graphs keep between their replays;
    elsewhere the whole process, torch included.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    if sys.platform == "linux":  # There ru_maxrss includes the peak of the parent process.
        return read_kilobytes("/proc/self/status", "VmHWM") * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
