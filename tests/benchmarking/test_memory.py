import mmap
from pathlib import Path

import pytest
import torch

from reslab.benchmarking.memory import free_memory, limited_memory, peak_memory, read_kilobytes

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")


def test_an_allocation_fails_at_the_limit_and_not_after_it():
    with limited_memory(CPU, 2000):  # The C library may still hold up to a GiB of what was freed before.
        torch.empty(1500 * 2**20, dtype=torch.uint8)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(4000 * 2**20, dtype=torch.uint8)
    torch.empty(4000 * 2**20, dtype=torch.uint8)


def test_a_container_may_have_less_memory_than_its_machine(tmp_path):
    whole = free_memory(tmp_path)
    assert 0 < whole < read_kilobytes("/proc/meminfo", "MemTotal") * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 0.5 * whole
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert free_memory(tmp_path) == 3_000_000


def test_peak_memory_includes_what_was_freed():
    peak, now = peak_memory(CPU), read_kilobytes("/proc/self/status", "VmRSS") * 1024
    fresh = mmap.mmap(-1, peak - now + 50 * 2**20)  # directly from the system
    torch.frombuffer(fresh, dtype=torch.uint8).fill_(1)
    fresh = None
    assert peak_memory(CPU) - peak == pytest.approx(50 * 2**20, rel=0.1)
    assert read_kilobytes("/proc/self/status", "VmRSS") * 1024 < peak + 10 * 2**20
