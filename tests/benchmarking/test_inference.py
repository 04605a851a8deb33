import json
import statistics

import pytest
import torch

from reslab.benchmarking.inference import Runner, describe, measure_inference
from reslab.benchmarking.inference_table import best_batch, inference_table, print_inference
from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.errors import UserError
from reslab.inference.export.options import require_packages

QUICK = ("benchmark.mode=inference", "benchmark.seconds=0", "benchmark.steps=5", "benchmark.inference_batches=[1,4]")


@pytest.mark.parametrize(
    ("precision", "computed", "number_bytes"),
    [
        ("32-true", "32-true", 4),
        ("16-mixed", "bf16-mixed", 4),
        ("bf16-true", "bf16-true", 2),
        ("64-true", "64-true", 8),
    ],
)
def test_torch_in_use(config, tmp_path, capsys, precision, computed, number_bytes):
    result = measure_inference(config(*QUICK, "benchmark.runtimes=eager", f"trainer.precision={precision}"))
    assert json.loads((tmp_path / "benchmark.json").read_text()) == result
    rows = result["cases"]
    assert [(row["runtime"], row["device"], row["precision"], row["batch_size"]) for row in rows] == [
        ("eager", "cpu", computed, 1), ("eager", "cpu", computed, 4),
    ]  # fmt: skip
    weights = number_bytes * result["parameters"] / 1e6
    assert rows[0]["megabytes"] == pytest.approx(weights, rel=0.02)  # and the norms' statistics
    assert all(row["images_per_second"] == pytest.approx(1000 * row["batch_size"] / row["ms"]) for row in rows)
    assert (result["rounds"], result["threads"], result["image_size"]) == (5, torch.get_num_threads(), 8)
    assert "onnxruntime" not in result["versions"]
    print_inference(result)
    assert f"eager, cpu, {computed}" in capsys.readouterr().out


@pytest.mark.slow
def test_every_runtime(config):
    rows = measure_inference(config(*QUICK, "trainer.precision=32-true"))["cases"]
    by_runtime = {row["runtime"]: row for row in rows}
    assert list(by_runtime) == ["eager", "onnx", "int8"]
    assert by_runtime["int8"]["megabytes"] < 0.6 * by_runtime["onnx"]["megabytes"]


def test_a_row_has_the_median():
    times = [3.0, 1.0, 2.0, 50.0]
    row = describe(Runner("onnx", "cpu", "32-true", 2_000_000, None), 8, times)
    assert (row["ms"], row["fastest_ms"], row["megabytes"]) == (statistics.median(times), 1.0, 2.0)
    assert row["images_per_second"] == 1000 * 8 / 2.5


def test_the_best_batch_has_the_most_images_per_second():
    rows = [
        {"runtime": "onnx", "device": "cpu", "precision": "32-true", "megabytes": 1.0, "batch_size": size, "ms": ms,
         "images_per_second": 1000 * size / ms}
        for size, ms in ((1, 1.0), (8, 4.0), (64, 60.0))
    ]  # fmt: skip
    assert best_batch(rows)["batch_size"] == 8
    table = inference_table(rows)
    assert [next(iter(column.cells)) for column in table.columns] == [
        "onnx, cpu, 32-true", "1", "1", "1,000", "8", "4", "2,000",
    ]  # fmt: skip


@pytest.mark.parametrize(("option", "line"), [
    ("benchmark.mode=predict", "benchmark.mode=predict must be one of training, inference"),
    ("benchmark.runtimes=[eager,tflite]", "benchmark.runtimes="),
    ("benchmark.inference_batches=0", "benchmark.inference_batches=0 must be an integer from 1"),
    ("trainer.accumulate_grad_batches=4", "trainer.accumulate_grad_batches=4: a benchmark measures"),
])  # fmt: skip
def test_wrong_options(config, option, line):
    with pytest.raises(UserError) as raised:
        BENCHMARK_SCHEMA.check(config(option))
    assert str(raised.value).startswith(line)


def test_a_missing_package_names_the_option(monkeypatch):
    monkeypatch.setattr("reslab.inference.export.options.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^benchmark\.runtimes=int8 needs onnx and onnxruntime and onnxscript: pip "):
        require_packages("int8", "benchmark.runtimes")
    require_packages("eager", "benchmark.runtimes")
