import logging
from dataclasses import replace

import pytest
from conftest import run

from reslab.benchmarking import cases
from reslab.benchmarking.cases import Case, read_cases, training_settings


def test_every_combination_is_a_case_once(config):
    assert read_cases(config()) == [Case("cpu", "auto", "channels_last", False, "auto", 16)]  # as train.py would train
    cases = read_cases(config("benchmark.devices=[cpu,gpu]", "benchmark.batch_sizes=[8,32,8]", "compile=true"))
    assert cases == [
        Case(device, "auto", "channels_last", True, "auto", n) for device in ("cpu", "gpu") for n in (8, 32)
    ]


@pytest.mark.slow
def test_a_mistake_is_one_line_without_torch(tmp_path, no_torch, config):
    done = run("benchmark", "benchmark.devices=[cpu,cuda]", cwd=tmp_path, **no_torch)
    line = "error: benchmark.devices=['cpu', 'cuda'] must be one of auto, cpu, gpu, or a list of these\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


@pytest.mark.slow
def test_there_are_enough_synthetic_images_for_a_batch(config):
    case = Case("cpu", "auto", "channels_last", False, "auto", 100)
    assert training_settings(config(), case, 1, 2)["data"]["num_images"] == 100
    assert training_settings(config(), replace(case, batch_size=10), 1, 2)["data"]["num_images"] == 64


@pytest.mark.slow
def test_without_a_gpu_the_cases_with_graphs_are_left_out_with_one_line(config, caplog, monkeypatch):
    options = ("benchmark.compile=[false,true]", "benchmark.graph=[false,true]")
    four = [(False, False), (False, True), (True, False), (True, True)]
    monkeypatch.setattr(cases, "gpus", lambda: ["0"])
    assert [(case.compile, case.with_graph) for case in read_cases(config(*options, "trainer=gpu"))] == four
    with caplog.at_level(logging.INFO, "reslab.benchmarking.cases"):
        eager = [(False, False), (True, False)]
        assert [(case.compile, case.with_graph) for case in read_cases(config(*options))] == eager  # trainer=cpu
        monkeypatch.setattr(cases, "gpus", lambda: [])
        auto = config(*options, "trainer.accelerator=auto")
        assert [(case.compile, case.with_graph) for case in read_cases(auto)] == eager
        assert [case.with_graph for case in read_cases(config("graph=true"))] == [True]  # the only one is measured
    line = "benchmark.graph=true needs an NVIDIA GPU: 2 of 4 cases are left out"
    assert [record.getMessage() for record in caplog.records] == [line, line]
    settings = training_settings(config(), Case("cpu", "auto", "channels_last", False, True, 16), 1, 2)
    assert settings["graph"] is True
