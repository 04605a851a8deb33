from types import SimpleNamespace

import pytest
import torch
from recorded_steps import Reexecution

from reslab.benchmarking import measuring
from reslab.benchmarking.cases import read_cases, training_settings
from reslab.benchmarking.measuring import measure, percentiles
from reslab.training.averaging import WeightAverage
from reslab.training.graph import StepGraphs


def measured(config, warmup_steps=1, steps=3):
    """Measure the only case of a configuration in this process."""
    (case,) = read_cases(config)
    return measure(training_settings(config, case, warmup_steps, steps))


class Clock:
    """A clock that advances only in the parts of a step, in each by its own power of two in seconds."""

    def __init__(self, monkeypatch):
        self.seconds = 0.0
        monkeypatch.setattr(measuring, "time", SimpleNamespace(perf_counter=lambda: self.seconds))
        build = measuring.build_classifier
        monkeypatch.setattr(measuring, "build_classifier", lambda *arguments: self.watch(build(*arguments)))

    def advance_in(self, register, seconds):
        def hook(*_):
            self.seconds += seconds

        register(hook)

    def watch(self, classifier):
        self.advance_in(classifier.augment.register_forward_hook, 1)
        self.advance_in(classifier.preprocess.register_forward_pre_hook, 2)
        self.advance_in(classifier.network.register_forward_hook, 4)
        self.advance_in(classifier.network.fc.weight.register_hook, 8)
        make_optimizer = classifier.optimizer

        def optimizer(groups):
            made = make_optimizer(groups)
            self.advance_in(made.register_step_post_hook, 16)
            return made

        classifier.optimizer = optimizer
        return classifier


def test_the_time_of_a_step_is_divided_into_its_parts(config, monkeypatch):
    Clock(monkeypatch)
    row = measured(config(), warmup_steps=2, steps=5)  # An epoch has four batches.
    parts = {name: part["median"] for name, part in row["parts_ms"].items()}
    assert parts == {"data": 3000, "forward": 4000, "backward": 8000, "optimizer": 16000}
    assert row["step_ms"] == {"median": 31000, "p10": 31000, "p90": 31000}
    assert row["images_per_second"] == pytest.approx(16 / 31)
    assert row["startup_seconds"] == 0


def test_warm_up_is_not_measured(config, monkeypatch):
    clock = Clock(monkeypatch)
    seen = []
    monkeypatch.setattr(measuring, "percentiles", lambda values: seen.append(len(values)) or percentiles(values))
    measured(config(), warmup_steps=3, steps=7)
    assert seen == [7] * 5
    assert clock.seconds == 31 * 10


def test_the_start_is_what_the_warm_up_took_longer_than_measured_steps(config, monkeypatch):
    clock = Clock(monkeypatch)
    step = measuring.Stopwatch.on_before_backward

    def slow_at_first(self, *arguments):
        clock.seconds += 100 * (len(self.marks) < 4)  # as a compiler would be
        step(self, *arguments)

    monkeypatch.setattr(measuring.Stopwatch, "on_before_backward", slow_at_first)
    assert measured(config(), warmup_steps=2, steps=3)["startup_seconds"] == 100


def test_a_gpu_is_timed_by_events_and_synchronised_once(monkeypatch):
    calls = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            calls.append("record")
            self.at = 0.5 * len(calls) ** 2  # The GPU knows it only after it was synchronised.

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


@pytest.mark.slow
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
    metrics = classifiers[2].train_metrics  # summed in 64 bits even where the weights have 16 bits
    assert (metrics.images, metrics.sums.dtype) == (32, torch.float64)


@pytest.mark.slow
def test_an_error_is_a_row(config):
    refused = measured(config("model.shortcut=X"))
    assert refused == {"status": "refused", "error": "model.shortcut=X must be one of A, B, C, D, none"}
    assert measured(config("seed=x"))["status"] == "failed"


def test_percentiles_are_the_10th_the_50th_and_the_90th():
    assert percentiles(torch.arange(11.0).flip(0)) == {"median": 5, "p10": 1, "p90": 9}


@pytest.mark.slow
def test_the_steps_of_a_benchmark_are_replayed_with_graph_true(config, monkeypatch):
    """The recorder is that of machines without a GPU. A graph is one part of a step."""
    recorders = []

    def make(config, classifier, trainer):
        recorders.append(Reexecution(classifier.network))
        return StepGraphs(classifier, None, lambda: recorders[-1])

    assert measured(config("graph=true"))["graph"] == "the device is cpu"
    monkeypatch.setattr(measuring, "build_graphs", make)
    row = measured(config(), warmup_steps=4, steps=5)
    assert row["graph"] is True
    assert recorders[-1].replayed == 4 + 5 - 3
    assert row["parts_ms"].keys() == {"data", "forward", "backward", "optimizer"}


def test_a_step_has_the_threads_and_the_average_that_were_asked_for(config, monkeypatch):
    updates = []
    update = WeightAverage.on_train_batch_end
    monkeypatch.setattr(
        WeightAverage, "on_train_batch_end", lambda *given: updates.append(torch.get_num_threads()) or update(*given)
    )
    before = torch.get_num_threads()
    row = measured(config("threads=3", "callbacks=ema"), warmup_steps=1, steps=3)
    assert (row["status"], row["threads"], updates) == ("finished", 3, [3, 3, 3, 3])
    assert torch.get_num_threads() == before
    assert measured(config())["threads"] == before
    assert len(updates) == 4
