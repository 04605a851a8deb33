"""The training step in graphs, whose recorder runs it again in Python here; tests/gpu/test_graph.py has CUDA's own."""

import logging
from contextlib import contextmanager, nullcontext
from itertools import count
from unittest.mock import Mock

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from recorded_steps import MATRIX, PARTS, SMALL, Reexecution, assert_equal, numbers_of
from torch import nn

from reslab.data.batches import MemoryLoader
from reslab.training import fit, graph
from reslab.training.graph import SHORT_RUN, CudaRecorder, Inputs, Recording, StepGraphs, reason_for_eager


@pytest.fixture
def recorders(monkeypatch):
    """Let every run record its steps, and return the recorders."""
    made = []

    def build(config, classifier, trainer):
        made.append(Reexecution(classifier.network))
        return StepGraphs(classifier, None, lambda: made[-1])

    monkeypatch.setattr(fit, "build_graphs", build)
    return made


@pytest.fixture
def both(composed, monkeypatch, tmp_path, recorders):
    """Train with the plain loop and with recorded steps, check that the results are equal, and return the recorder."""
    recorded = fit.build_graphs

    def train(*options, parts=()):
        checkpoints = []
        for name, build in (("plain", graph.build_graphs), ("graphs", recorded)):
            monkeypatch.setattr(fit, "build_graphs", build)
            folder = tmp_path / name
            for part in parts if name == "graphs" else ():  # it ends early and is resumed
                resume = [f"resume={folder}"] if folder.exists() else []
                fit.train(composed(*SMALL, "trainer=cpu", *options, part, f"folder={folder}", *resume))
            resume = [f"resume={folder}"] if folder.exists() else []
            fit.train(composed(*SMALL, "trainer=cpu", *options, f"folder={folder}", *resume))
            checkpoints.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True))
        assert_equal(*(numbers_of(checkpoint) for checkpoint in checkpoints))
        return recorders[-1]

    return train


@pytest.mark.slow
def test_a_replayed_step_computes_what_the_plain_loop_does(both):
    recorder = both("trainer.max_epochs=2", "data.augment.crop=1", "data.augment.erasing=0.5", "model.dropout=0.2")
    assert (recorder.recorded, recorder.replayed) == (1, 2 * 12 - 3)


@pytest.mark.slow
def test_each_kind_of_step_has_its_graph(both):
    """Twelve batches are two optimizer steps of five and one of two: the first batch of each and the later ones."""
    recorder = both("trainer.max_epochs=4", "trainer.accumulate_grad_batches=5", "model.dropout=0.2")
    # Of the first batches, 5 of 8 and 1 of 4; of the later ones, which also wait for a first one in a graph, 20 and 1.
    assert (recorder.recorded, recorder.replayed) == (4, 27)


@pytest.mark.slow
def test_the_result_says_whether_steps_were_replayed(composed, recorders, tmp_path):
    assert fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_steps=4"))["graph"] is True
    assert (
        fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_steps=3", f"folder={tmp_path}/short"))["graph"]
        == SHORT_RUN
    )
    assert recorders[0].replayed == 1


def test_a_hook_of_a_module_is_called_in_every_step(composed, recorders, monkeypatch):
    calls = []
    build = fit.build_classifier

    def build_with_hook(*arguments):
        classifier = build(*arguments)
        classifier.network.layer1.register_forward_hook(lambda *_: calls.append(1))
        return classifier

    monkeypatch.setattr(fit, "build_classifier", build_with_hook)
    result = fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_epochs=1"))
    assert len(calls) == 12
    assert result["graph"] == "a module has a hook, which needs Python in every step"


@pytest.mark.parametrize(
    ("options", "device", "changes", "reason"),
    [
        (("graph=true",), "cuda", {}, None),
        ((), "cuda", {}, "graph=auto does not record steps yet"),
        (("graph=false",), "cpu", {}, "graph=false"),
        (("graph=true",), "cpu", {}, "the device is cpu"),
        (("graph=true",), "cuda", {"strategy": DDPStrategy}, "several processes train together"),
        (("graph=true",), "cuda", {"precision": "16-mixed"}, "trainer.precision=16-mixed scales the loss"),
        (("graph=true", "trainer.detect_anomaly=true"), "cuda", {}, "trainer.detect_anomaly=true"),
    ],
)
def test_where_steps_run_eagerly_there_is_one_reason(composed, options, device, changes, reason):
    strategy = Mock(spec=changes.get("strategy", SingleDeviceStrategy), root_device=torch.device(device))
    trainer = Mock(strategy=strategy, precision=changes.get("precision", "bf16-mixed"))
    assert reason_for_eager(composed(*options), trainer) == reason


def lines_of_graphs(caplog):
    """Return what the module has logged. Another test of this process may have turned on the others' lines."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "reslab.training.graph" and record.levelno >= logging.INFO
    ]


@pytest.mark.slow
def test_only_who_asked_for_a_graph_sees_why_there_is_none(composed, caplog, tmp_path):
    with caplog.at_level(logging.INFO, "reslab.training.graph"):
        assert fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_steps=1"))["graph"] == "the device is cpu"
        assert lines_of_graphs(caplog) == []
        fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_steps=1", "graph=true", f"folder={tmp_path}/asked"))
    assert lines_of_graphs(caplog) == ["training steps run eagerly: the device is cpu"]


@pytest.mark.parametrize("fails", [False, True])
def test_graphs_are_freed_when_training_ends(composed, recorders, monkeypatch, fails):
    made, parts = [], []
    build, run = fit.build_graphs, Recording.run
    monkeypatch.setattr(fit, "build_graphs", lambda *arguments: made.append(build(*arguments)) or made[0])

    def failing(self, *arguments):
        parts.append(len(made[0].recordings))
        if fails and len(parts) == 2:
            raise ZeroDivisionError
        return run(self, *arguments)

    monkeypatch.setattr(Recording, "run", failing)
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        fit.train(composed(*SMALL, "trainer=cpu", "trainer.max_steps=5"))
    assert parts == [1, 1]
    assert made[0].recordings == {}


def test_graphs_do_not_share_memory_with_those_that_were_freed_before():
    """The memory of a pool without graphs is gone in torch 2.11, and a capture into it fails."""
    network, recorders = nn.Linear(1, 1), []

    def record(step):
        recorders[-1].append("recorded")
        return (lambda: None), step()

    def new_recorder():
        recorders.append([])
        return record

    graphs = StepGraphs(network, None, new_recorder)

    def step(inputs):
        loss = network(inputs.images).sum()
        loss.backward()
        return loss.detach(), loss.detach()

    for network.weight.requires_grad in (False, True):
        for _ in range(5):
            graphs.run(step, Inputs(torch.ones(1, 1), torch.zeros(1), None), 1.0, accumulates=False)
    assert recorders == [[], ["recorded"], ["recorded"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", MATRIX)
def test_two_hundred_steps_in_graphs_are_those_of_the_plain_loop(both, name):
    assert both("trainer.max_epochs=17", *MATRIX[name]).replayed > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "ema", "mixed", "random depth", "accumulated", "frozen", "bf16-mixed"])
def test_a_resumed_run_in_graphs_ends_as_an_uninterrupted_one_of_the_plain_loop(both, recorders, name):
    # A schedule depends on the length of the run, which differs between the parts.
    options = ("trainer.max_epochs=10", "scheduler=constant", "optimizer.lr=0.01")
    both(*MATRIX[name], *options, parts=PARTS)
    assert len(recorders) == 4
    assert sum(recorder.replayed for recorder in recorders) > 10


@pytest.mark.slow
def test_a_batch_of_another_size_runs_eagerly(both, monkeypatch):
    batches = MemoryLoader.batches

    def with_a_smaller_one(self):
        for number, batch in enumerate(batches(self)):
            yield tuple(part[1:] for part in batch) if number == 6 else batch

    monkeypatch.setattr(MemoryLoader, "batches", with_a_smaller_one)
    recorder = both("trainer.max_epochs=3", "trainer.accumulate_grad_batches=4")
    # 6 of the 9 first batches of an optimizer step, and 16 of the 24 later ones of this size
    assert (recorder.recorded, recorder.replayed) == (2, 22)


@pytest.mark.slow
def test_gradients_of_eager_and_replayed_batches_add_up(both, monkeypatch):
    """The first batch of an optimizer step, a later one and the last one run eagerly in turn."""
    run = StepGraphs.run
    numbers = count()

    def sometimes(self, *arguments, **named):
        number = next(numbers)
        return None if number > 12 and number % 5 in (0, 1) else run(self, *arguments, **named)

    monkeypatch.setattr(StepGraphs, "run", sometimes)
    assert both("trainer.max_epochs=4", "trainer.accumulate_grad_batches=3", "mixup=0.2", "cutmix=1").replayed > 5


@pytest.mark.slow
def test_a_step_that_cannot_be_recorded_runs_eagerly_with_one_line(both, monkeypatch, caplog):
    def fail(self, step):
        self.without_effect(step, [])
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Reexecution, "__call__", fail)
    with caplog.at_level(logging.INFO, "reslab.training.graph"):
        both("trainer.max_epochs=2", "trainer.accumulate_grad_batches=3")
    reason = "recording a step failed: operation not permitted when stream is capturing"
    assert lines_of_graphs(caplog) == [f"training steps run eagerly: {reason}"]


def test_a_capture_that_fails_gives_back_stream_generator_and_memory(monkeypatch):
    """Stand-ins for the parts of CUDA: torch leaves them as a capture has set them."""
    present = {"stream": "default", "generator": "before", "captures": 0}

    @contextmanager
    def capture(_, pool, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        present.update(stream="side", generator="capturing", captures=1)
        yield
        present.update(stream="default", generator="before", captures=0)

    generator = Mock(clone_state=lambda: present["generator"])
    generator.graphsafe_set_state = lambda state: present.update(generator=state)
    for name, value in {
        "default_generators": [generator], "current_device": lambda: 0, "graph_pool_handle": lambda: "pool",
        "CUDAGraph": Mock, "graph": capture, "current_stream": lambda: present["stream"],
        "set_stream": lambda stream: present.update(stream=stream),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    end = lambda device, pool: present.update(captures=0)  # noqa: E731
    monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end, raising=False)
    record = CudaRecorder()
    assert record(lambda: "outputs")[1] == "outputs"
    with pytest.raises(ZeroDivisionError):
        record(lambda: 1 / 0)
    assert present == {"stream": "default", "generator": "before", "captures": 0}
