import ctypes
import os
import subprocess
import sys

import pytest
import torch
from conftest import SRC

from reslab import machine
from reslab.training.process import chosen_threads, fixed_threads

FAULTS = """
import resource, torch
from reslab.training.process import keep_freed_memory

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


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_kept_for_the_next_step():
    """A process of its own measures it, because the heap of this one holds what other tests have left."""
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=environment, capture_output=True, text=True, check=True)
    assert list(map(int, done.stdout.split())) == [1, 1, 0]  # all 16,384 pages each time, then none


@pytest.fixture
def threads_of_torch():
    """A function that sets the number of threads of torch until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "record", "number"),
    [
        ("threads=3", {}, 3),
        ("threads=null", {"origin": {"threads": 4}}, 4),
        ("threads=null", {"origin": {}}, 2),  # of an older version
        ("threads=null", None, 2),
    ],
)
def test_a_run_computes_with_its_own_threads_and_gives_the_others_back(
    composed, threads_of_torch, monkeypatch, asked, record, number
):
    threads_of_torch(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with fixed_threads(composed(asked), record):
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (number, str(number))
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    with pytest.raises(RuntimeError), fixed_threads(composed(asked), record):
        raise RuntimeError
    assert "OMP_NUM_THREADS" not in os.environ


def test_more_threads_than_processors_are_kept_with_a_warning(composed, threads_of_torch, monkeypatch, caplog):
    monkeypatch.setattr(machine, "processors", lambda: 4)
    for number in (4, 5):
        with fixed_threads(composed(), {"origin": {"threads": number}}):
            assert torch.get_num_threads() == number
    assert [record.message for record in caplog.records] == [
        "threads=5 is more than the 4 processors here, so training is slower"
    ]


def test_the_processes_of_a_run_divide_the_processors(composed, threads_of_torch, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "processors", lambda: 8)
    threads_of_torch(5)
    options = [composed("trainer=ddp_cpu", f"trainer.devices={devices}").trainer for devices in (1, 2, 3, 9, "auto")]
    assert [chosen_threads(each) for each in options] == [5, 4, 2, 1, 5]
    monkeypatch.setenv("OMP_NUM_THREADS", "6,2")
    assert chosen_threads(options[1]) == 6
