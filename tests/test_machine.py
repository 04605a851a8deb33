import os

import pytest

from reslab.machine import gpus, processors


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_only_the_processors_that_this_process_may_use_are_counted():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("visible", "seen"), [("3,5", ["3", "5"]), ("GPU-1f,GPU-2e", ["GPU-1f", "GPU-2e"]), ("", [])])
def test_only_the_gpus_that_this_process_may_use_are_named(visible, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen
