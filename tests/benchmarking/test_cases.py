from dataclasses import replace

import pytest
from conftest import run

from reslab.benchmarking.cases import Case, read_cases, training_settings
from reslab.errors import UserError


def test_every_combination_is_a_case_once(config):
    assert read_cases(config()) == [Case("cpu", "auto", "channels_last", False, 16)]  # as train.py would train
    cases = read_cases(config("benchmark.devices=[cpu,gpu]", "benchmark.batch_sizes=[8,32,8]", "compile=true"))
    assert cases == [Case(device, "auto", "channels_last", True, n) for device in ("cpu", "gpu") for n in (8, 32)]


def test_a_mistake_is_one_line_without_torch(tmp_path, no_torch, config):
    done = run("benchmark", "benchmark.devices=[cpu,cuda]", cwd=tmp_path, **no_torch)
    line = "error: benchmark.devices=['cpu', 'cuda'] must be one of auto, cpu, gpu, or a list of these\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    with pytest.raises(UserError, match=r"^resume= belongs to train\.py: a benchmark cannot be resumed$"):
        read_cases(config("resume=a"))


def test_there_are_enough_synthetic_images_for_a_batch(config):
    case = Case("cpu", "auto", "channels_last", False, 100)
    assert training_settings(config(), case, 1, 2)["data"]["num_images"] == 100
    assert training_settings(config(), replace(case, batch_size=10), 1, 2)["data"]["num_images"] == 64
