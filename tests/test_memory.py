import ctypes
import os
import subprocess
import sys

import pytest
from conftest import SRC

FAULTS = """
import resource, torch
from reslab.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults() // 16384, faults() // 16384)
keep_freed_memory()
for _ in range(10):  # glibc before 2.38 first uses up seven parts of a block that it cannot join
    faults()
print(max(faults() for _ in range(5)))
"""


SHARED = """
import sys, torch
from pathlib import Path
from reslab.data.batches import make_data_loader
from reslab.memory import keep_freed_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])  # pages

keep_freed_memory()
torch.ones(2**24)  # 64 MiB
loader = make_data_loader(list(range(4)), range(4), num_workers=1)
kept = resident()
for _ in range(2):
    assert list(loader) == list(range(4))
    print(round((kept - resident()) / 2**14))
    torch.ones(2**24)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_kept_for_the_next_step():
    """A process of its own measures it, because the heap of this one holds what other tests have left."""
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    assert list(map(int, done.stdout.split())) == [1, 1, 0]  # all 16,384 pages each time, then none


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_freed_memory_is_returned_where_worker_processes_start():
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", SHARED], env=environment, capture_output=True, text=True, check=True)
    assert list(map(int, done.stdout.split())) == [1, 0]  # all 16,384 pages, and none where they run already
