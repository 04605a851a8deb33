"""The scripts of benchmarks/ that use internals of ResLab: they still run, and count what they say."""

import resource
import subprocess
import sys
import time

import pytest
from conftest import CONF

sys.path.append(str(CONF.parent / "benchmarks"))

import listing  # the folder is no package
import recording
import sweep_start
import torch

from reslab.benchmarking.memory import peak_memory


def test_both_programs_list_the_same_files(tmp_path):
    listing.write_files(tmp_path, classes=2, images=3)
    found = listing.reslab_listing(tmp_path)
    assert found == listing.torchvision_listing(tmp_path)
    assert [label for _, label in found] == [0, 0, 0, 1, 1, 1]


@pytest.mark.slow
def test_the_first_epoch_of_a_command_is_noticed():
    assert 1 < sweep_start.single_run() < 600  # seconds of the processor


@pytest.mark.parametrize(("workers", "counted"), [(0, 9), (1, 9), (2, 8), (4, 6)])
def test_batches_that_are_ready_when_the_clock_begins_do_not_count(monkeypatch, workers, counted):
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert recording.images_per_second([range(10)] * 10, workers) == 10 * counted / 2


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system tells it otherwise")
def test_the_peak_of_a_process_is_not_that_of_its_parent():
    """Linux counts the memory of the parent for RUSAGE_SELF of a command that it starts."""
    held = torch.ones(300 * 2**18)  # 300 MB
    script = "import torch; from reslab.benchmarking.memory import peak_memory as p; print(p(torch.device('cpu')))"
    peak = int(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout)
    own = peak_memory(torch.device("cpu"))
    assert own > held.nbytes
    assert peak < max(own, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) - held.nbytes / 2
