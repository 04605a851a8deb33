import json

import pytest

from reslab.run import Run
from reslab.sweeps.benchmarks import benchmark_error, print_failed_benchmarks
from reslab.sweeps.folder import Sweep


@pytest.fixture
def benchmark(tmp_path):
    """A function that makes the job of a sweep with these rows; without rows it has no result."""

    def make(name, *rows):
        run = Run(tmp_path / name)
        run.write_settings("{}", [])
        if rows:
            (run.folder / "benchmark.json").write_text(json.dumps({"cases": rows}))
        return run

    return make


def test_benchmarks_without_a_result_or_with_an_error_in_it_have_failed(tmp_path, benchmark, capsys):
    benchmark("0_a", {"ms": 1.0})
    benchmark("1_b", {"ms": 1.0}, {"status": "failed", "error": "out of memory"})
    benchmark("2_c").fail("no\nimages")
    benchmark("10_d", {"error": "out of memory"})
    benchmark("9_e")
    assert print_failed_benchmarks(Sweep(tmp_path), planned=8, unrecorded=1) == 5
    assert capsys.readouterr().out.splitlines() == [
        "job 1, job 10 failed: out of memory",
        "job 2 failed: no\\nimages",
        "job 9 failed: no result",
        "2 of 8 jobs have not begun",
    ]


@pytest.mark.parametrize("content", ["", "[]", '{"cases": 3}', "{}"])
def test_a_damaged_result_is_no_success(benchmark, content):
    run = benchmark("0")
    (run.folder / "benchmark.json").write_text(content)
    assert benchmark_error(run) == "benchmark.json is damaged"
