import json
import mmap
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from hydra import compose
from test_commands import no_torch, run  # noqa: F401  # a fixture

from reslab import benchmarking, measuring
from reslab.benchmarking import Case, ended, figures, ratios, read_cases, search_largest, settings_of, share
from reslab.errors import UserError
from reslab.measuring import free_memory, kilobytes, limited_memory, measure, peak_memory, spread

CPU = torch.device("cpu")
TINY = ("model=resnet8", "data.num_images=64", "data.image_size=8", "data.batch_size=16", "trainer=cpu")


@pytest.fixture
def config(composed, tmp_path):
    """python src/benchmark.py <overrides> of a tiny network; `composed` for its Hydra."""
    return lambda *overrides: compose("benchmark", [f"folder={tmp_path}", *TINY, *overrides])


def measured(config, warmup_steps=1, steps=3):
    (case,) = read_cases(config)
    return measure(settings_of(config, case, warmup_steps, steps))


def finished(device, images_per_second, **options):
    case = {"precision": "auto", "memory_format": "channels_last", "compile": False, "batch_size": 64} | options
    return case | {
        "device": device, "status": "finished", "images_per_second": images_per_second,
        "accelerator": device, "run": {"precision": "bf16-mixed" if device == "gpu" else "32-true"},
    }  # fmt: skip


# cases


def test_every_combination_is_a_case_once(config):
    assert read_cases(config()) == [Case("cpu", "auto", "channels_last", False, 16)]  # as train.py would
    cases = read_cases(config("benchmark.devices=[cpu,gpu]", "benchmark.batch_sizes=[8,32,8]", "compile=true"))
    assert cases == [Case(device, "auto", "channels_last", True, n) for device in ("cpu", "gpu") for n in (8, 32)]


def test_a_mistake_is_one_line_without_torch(tmp_path, no_torch, config):  # noqa: F811
    done = run("benchmark", "benchmark.devices=[cpu,cuda]", cwd=tmp_path, **no_torch)
    line = "error: benchmark.devices=['cpu', 'cuda'] must be one of auto, cpu, gpu, or a list of these\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    with pytest.raises(UserError, match=r"^resume= belongs to train\.py: a benchmark starts anew$"):
        read_cases(config("resume=a"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_told_before_any_case_is_measured(config, monkeypatch):
    monkeypatch.setattr(benchmarking, "measure_case", lambda *_: pytest.fail("a case was measured"))
    with pytest.raises(UserError, match=r"^benchmark\.devices=gpu, but torch .*: benchmark\.devices=cpu runs the same"):
        benchmarking.benchmark(config("benchmark.devices=[cpu,gpu]"))


def test_a_synthetic_batch_never_lacks_images(config):
    case = Case("cpu", "auto", "channels_last", False, 100)
    assert settings_of(config(), case, 1, 2)["data"]["num_images"] == 100
    assert settings_of(config(), replace(case, batch_size=10), 1, 2)["data"]["num_images"] == 64


# measuring


class Clock:
    """Time passes only where a part of a step says so: each its own power of two, in seconds."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: self.seconds))
        build = measuring.build_classifier
        monkeypatch.setattr(measuring, "build_classifier", lambda *arguments: self.watch(build(*arguments)))

    def pass_after(self, register, seconds):
        def hook(*_):
            self.seconds += seconds

        register(hook)

    def watch(self, classifier):
        self.pass_after(classifier.augment.register_forward_hook, 1)
        self.pass_after(classifier.preprocess.register_forward_pre_hook, 2)
        self.pass_after(classifier.network.register_forward_hook, 4)
        self.pass_after(classifier.network.fc.weight.register_hook, 8)
        make_optimizer = classifier.optimizer

        def optimizer(groups):
            made = make_optimizer(groups)
            self.pass_after(made.register_step_post_hook, 16)
            return made

        classifier.optimizer = optimizer
        return classifier


def test_a_step_is_divided_where_its_time_goes(config, monkeypatch):
    Clock(monkeypatch)
    row = measured(config(), warmup_steps=2, steps=5)  # of four batches an epoch
    parts = {name: part["median"] for name, part in row["parts_ms"].items()}
    assert parts == {"data": 3000, "forward": 4000, "backward": 8000, "optimizer": 16000}
    assert row["step_ms"] == {"median": 31000, "p10": 31000, "p90": 31000}
    assert row["images_per_second"] == pytest.approx(16 / 31)


def test_warm_up_is_not_measured(config, monkeypatch):
    clock = Clock(monkeypatch)
    seen = []
    monkeypatch.setattr(measuring, "spread", lambda values: seen.append(len(values)) or spread(values))
    measured(config(), warmup_steps=3, steps=7)
    assert seen == [7] * 5
    assert clock.seconds == 31 * 10


def test_a_gpu_is_timed_by_events_and_waited_for_once(monkeypatch):
    calls = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            calls.append("record")
            self.at = 0.5 * len(calls) ** 2  # as the GPU will have it, when all is done

        def elapsed_time(self, end):
            assert "synchronize" in calls
            return end.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("synchronize"))
    stopwatch = measuring.Stopwatch()
    stopwatch.device = torch.device("cuda", 0)
    for _ in range(1 + 2 * 4):
        stopwatch.mark()
    assert stopwatch.milliseconds().tolist() == [[1.5, 2.5, 3.5, 4.5], [5.5, 6.5, 7.5, 8.5]]
    assert calls == ["record"] * 9 + ["synchronize"]


def test_a_case_is_measured_in_its_own_precision_and_memory_format(config, monkeypatch):
    inputs, classifiers = [], []
    build = measuring.build_classifier

    def watched(*arguments):
        classifier = build(*arguments)
        classifier.network.conv1.register_forward_hook(lambda _, given, out: inputs.append((given[0], out)))
        classifiers.append(classifier)
        return classifier

    monkeypatch.setattr(measuring, "build_classifier", watched)
    for options in ("precisions=32-true", "precisions=bf16-mixed", "precisions=bf16-true", "memory_formats=contiguous"):
        assert measured(config(f"benchmark.{options}"), steps=1)["status"] == "finished"
    (full, _), _, (mixed, mixed_out), _, (half, half_out), _, (contiguous, _), _ = inputs
    assert (full.dtype, mixed.dtype, mixed_out.dtype) == (torch.float32, torch.float32, torch.bfloat16)
    assert (half.dtype, half_out.dtype) == (torch.bfloat16, torch.bfloat16)
    assert full.stride() == (192, 1, 24, 3)
    assert contiguous.stride() == (192, 64, 8, 1)
    assert classifiers[0].network.conv1.weight.stride() == (27, 1, 9, 3)
    assert classifiers[3].network.conv1.weight.stride() == (27, 9, 3, 1)
    loss = classifiers[2].train_metrics.loss  # counted exactly even where the network has eight bits
    assert (loss.images, loss.total.dtype) == (32, torch.float32)


def test_what_goes_wrong_is_a_row(config):
    refused = measured(config("model.shortcut=X"))
    assert refused == {"status": "refused", "error": "model.shortcut=X is none of A, B, C, D, none"}
    assert measured(config("seed=x"))["status"] == "failed"


def test_the_spread_is_the_10th_to_the_90th_percentile():
    assert spread(torch.arange(11.0).flip(0)) == {"median": 5, "p10": 1, "p90": 9}


# memory

linux = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="not Linux")  # noqa: PTH110


@linux
def test_an_allocation_fails_at_the_limit_and_not_after_it():
    with limited_memory(CPU, 2000):  # the C library may still have up to a GiB of what was freed before
        torch.empty(1500 * 2**20, dtype=torch.uint8)
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(4000 * 2**20, dtype=torch.uint8)
    torch.empty(4000 * 2**20, dtype=torch.uint8)


@linux
def test_a_container_may_have_less_than_its_machine(tmp_path):
    whole = free_memory(tmp_path)
    assert 0 < whole < kilobytes("/proc/meminfo", "MemTotal") * 1024
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory(tmp_path) > 0.5 * whole
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    assert free_memory(tmp_path) == 3_000_000


@linux
def test_peak_memory_stays_after_what_was_freed():
    peak, now = peak_memory(CPU), kilobytes("/proc/self/status", "VmRSS") * 1024
    fresh = mmap.mmap(-1, peak - now + 50 * 2**20)  # from the system itself
    torch.frombuffer(fresh, dtype=torch.uint8).fill_(1)
    fresh = None
    assert peak_memory(CPU) - peak == pytest.approx(50 * 2**20, rel=0.1)
    assert kilobytes("/proc/self/status", "VmRSS") * 1024 < peak + 10 * 2**20


@pytest.mark.parametrize("start", [1, 7, 64])
@pytest.mark.parametrize("most", [0, 1, 2, 5, 63, 64, 100, 1000, 4097])
def test_the_largest_batch_is_found_to_a_sixteenth(start, most):
    tried = []
    largest, above = search_largest(lambda n: tried.append(n) or n <= most, start)
    assert largest <= most < above
    assert above - largest <= max(1, largest // 16)
    assert set(tried) >= {above, *([largest] if largest else [])}  # nothing is claimed that was not tried
    assert len(tried) == len(set(tried))


def test_the_search_tells_what_stopped_it(config, monkeypatch):
    def fake(settings):
        assert settings["trainer"]["max_steps"] == 2
        known = {"accelerator": "cpu", "run": {"precision": "32-true"}, "images_per_second": 1.0}
        batch_size = settings["data"]["batch_size"]
        if batch_size > 40:
            return {"status": "out of memory"}
        return {"status": "finished", "peak_memory_mb": 10 * batch_size, **known}

    monkeypatch.setattr(benchmarking, "in_own_process", fake)
    case = Case("auto", "auto", "contiguous", False, 16)
    found = benchmarking.find_largest_batch(config(), case)
    assert (found["batch_size"], found["peak_memory_mb"]) == (40, 400)
    assert (found["next"], found["reason"]) == (42, "out of memory")
    assert (found["accelerator"], found["memory_format"]) == ("cpu", "contiguous")


def test_a_process_that_was_ended_is_a_row():
    assert ended(-9) == {"status": "out of memory"}
    assert ended(-6) == {"status": "failed", "error": "its process ended with SIGABRT"}
    assert ended(3) == {"status": "failed", "error": "its process ended with exit status 3"}


# results


def test_devices_are_compared_where_all_else_is_equal():
    rows = [
        finished("cpu", 100.0), finished("cpu", 50.0, batch_size=8), finished("gpu", 3010.0),
        finished("gpu", 9000.0, compile=True), finished("gpu", 0.0, batch_size=8) | {"status": "out of memory"},
    ]  # fmt: skip
    (ratio,) = ratios(rows)
    assert ratio == {
        "faster": "gpu (bf16-mixed)", "slower": "cpu (32-true)", "ratio": 30.1,
        "precision": "auto", "memory_format": "channels_last", "compile": False, "batch_size": 64,
    }  # fmt: skip


def test_a_device_is_not_compared_with_itself_under_another_name():
    assert ratios([finished("cpu", 1.0), finished("cpu", 2.0) | {"device": "auto"}]) == []


def test_the_figures_of_a_row():
    medians = {"data": 1.0, "forward": 2.0, "backward": 4.0, "optimizer": 1.0}
    row = finished("gpu", 12345.6) | {
        "step_ms": {"median": 8.125, "p10": 7.5, "p90": 1234.5}, "peak_memory_mb": 2048.4,
        "parts_ms": {name: {"median": median} for name, median in medians.items()},
    }  # fmt: skip
    assert figures(row) == ["12,346", "8.12 (7.5-1,234)", "1", "2", "4", "1", "2,048"]
    assert {name: share(row, name) for name in medians} == {
        "data": 12.5, "forward": 25, "backward": 50, "optimizer": 12.5,
    }  # fmt: skip
    assert figures({"status": "out of memory"}) == ["", "out of memory"]


@linux
def test_the_command_measures_each_case_in_a_process_of_its_own(tmp_path):
    options = (
        "trainer.precision=32-true",
        "benchmark.batch_sizes=[16,4096]",
        "benchmark.steps=4",
        "benchmark.warmup_steps=1",
    )
    done = run("benchmark", "model=resnet8", "trainer=cpu", "benchmark.memory_limit_mb=200", *options, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["benchmark"]  # nothing beside it
    (folder,) = (tmp_path / "outputs" / "benchmark" / "resnet8-synthetic").iterdir()
    assert (folder / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    first, second = json.loads((folder / "benchmark.json").read_text())["cases"]
    assert (first["status"], first["batch_size"], first["run"]["precision"]) == ("finished", 16, "32-true")
    assert first["images_per_second"] == pytest.approx(16_000 / first["step_ms"]["median"])
    assert first["peak_memory_mb"] > 200  # torch itself
    assert (second["status"], second["batch_size"]) == ("out of memory", 4096)
    lines = done.stdout.splitlines()
    cells = [" ".join(line.split()) for line in lines]
    assert " ".join(["batch 16", *figures(first)]) in cells
    assert "batch 4096 out of memory" in cells
    assert lines[-1] == f"results: {folder.relative_to(tmp_path)} (benchmark.json, benchmark.png)"
