import json
from pathlib import Path

import pytest
import torch
from conftest import run

from reslab.benchmarking import benchmark
from reslab.benchmarking.table import cells
from reslab.errors import UserError


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_reported_before_any_case_is_measured(config, monkeypatch):
    monkeypatch.setattr(benchmark, "measure_case", lambda *_: pytest.fail("a case was measured"))
    with pytest.raises(UserError, match=r"^benchmark\.devices=gpu, but torch .*: benchmark\.devices=cpu runs the same"):
        benchmark.run_benchmark(config("benchmark.devices=[cpu,gpu]"))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="not Linux")
def test_the_command_measures_each_case_in_a_process_of_its_own(tmp_path):
    options = (
        "trainer.precision=32-true",
        "benchmark.batch_sizes=[16,4096]",
        "benchmark.steps=4",
        "benchmark.warmup_steps=1",
    )
    done = run("benchmark", "model=resnet8", "trainer=cpu", "benchmark.memory_limit_mb=200", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["benchmark"]  # and nothing else
    (folder,) = (tmp_path / "outputs" / "benchmark" / "resnet8-synthetic").iterdir()
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    first, second = json.loads((folder / "benchmark.json").read_text())["cases"]
    assert (first["status"], first["batch_size"], first["run"]["precision"]) == ("finished", 16, "32-true")
    assert first["images_per_second"] == pytest.approx(16_000 / first["step_ms"]["median"])
    assert first["peak_memory_mb"] > 200  # torch itself
    assert (second["status"], second["batch_size"]) == ("out of memory", 4096)
    lines = done.stdout.splitlines()
    words = [" ".join(line.split()) for line in lines]
    assert " ".join(["batch 16", *cells(first)]) in words
    assert "batch 4096 out of memory" in words
    assert lines[-1] == f"results: {folder.relative_to(tmp_path)} (benchmark.json, benchmark.png)"
