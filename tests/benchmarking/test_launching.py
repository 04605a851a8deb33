"""The times of the host and of the GPU, with a GPU that is simulated: it computes what is launched, in order."""

from types import SimpleNamespace

import pytest
import torch

from reslab.benchmarking import launching
from reslab.benchmarking.launching import LaunchTimes


class Gpu:
    """A host whose launches take time, and a GPU that computes them one after another as soon as it is free."""

    def __init__(self, monkeypatch, host, gpu):
        self.host, self.gpu, self.now, self.free_at = host, gpu, 0.0, 0.0
        self.synchronized = 0
        monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: Event(self))
        monkeypatch.setattr(torch.cuda, "synchronize", self.synchronize)
        monkeypatch.setattr(launching, "occupy_gpu", self.compute)
        monkeypatch.setattr(launching, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def compute(self, seconds):
        self.free_at = max(self.free_at, self.now) + seconds

    def synchronize(self):
        self.now, self.synchronized = max(self.now, self.free_at), self.synchronized + 1

    def step(self, pieces=4):
        for _ in range(pieces):
            self.now += self.host / pieces
            self.compute(self.gpu / pieces)


class Event:
    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.gpu.compute(0)
        self.at = self.gpu.free_at

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


def measured(gpu, after=3, steps=2, taken=20):
    times = LaunchTimes(after, steps)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)), global_step=0)
    times.on_train_start(trainer, None)
    for number in range(taken):
        gpu.step()
        trainer.global_step = number + 1
        times.on_train_batch_end(trainer, None, None, None, number)
    return times


@pytest.mark.parametrize(("host", "gpu"), [(0.008, 0.002), (0.001, 0.064)])
def test_both_times_are_measured_whichever_is_longer(monkeypatch, host, gpu):
    times = measured(Gpu(monkeypatch, host, gpu)).milliseconds()
    assert times == {"host_ms": pytest.approx(1000 * host), "gpu_ms": pytest.approx(1000 * gpu)}


def test_only_the_measured_steps_wait_for_the_gpu(monkeypatch):
    gpu = Gpu(monkeypatch, 0.008, 0.002)
    assert len(measured(gpu, after=3, steps=2, taken=20).events) == 2
    assert gpu.synchronized == 4
    gpu = Gpu(monkeypatch, 0.008, 0.002)
    assert measured(gpu, after=3, steps=0).milliseconds() == {}
    assert gpu.synchronized == 0


def test_nothing_is_measured_on_a_cpu(monkeypatch):
    times = LaunchTimes(after=0, steps=5)
    trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cpu")), global_step=7)
    times.on_train_start(trainer, None)
    times.on_train_batch_end(trainer, None, None, None, 0)
    assert times.milliseconds() == {}
