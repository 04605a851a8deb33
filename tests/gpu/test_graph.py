"""CUDA graphs of training steps: the same numbers as eager steps, bit for bit, with trainer.deterministic=true."""

import gc

import pytest
import torch
from recorded_steps import MATRIX, PARTS, SMALL, assert_equal, numbers_of

from reslab.training import fit
from reslab.training.classifier import Classifier

pytestmark = pytest.mark.gpu

GPU = (*SMALL, "trainer=gpu", "trainer.deterministic=true")
EVERYTHING = (
    "trainer.precision=bf16-mixed", "data.augment.crop=1", "data.augment.flip=true", "data.augment.erasing=0.5",
    "mixup=0.2", "cutmix=1", "model.dropout=0.1", "model.stochastic_depth=0.2", "callbacks=ema", "optimizer=adamw",
    "trainer.accumulate_grad_batches=5", "trainer.gradient_clip_val=0.1", "label_smoothing=0.1",
)  # fmt: skip
CASES = MATRIX | {"everything": EVERYTHING}


@pytest.fixture(autouse=True)
def fresh_workspaces():
    """Let cuBLAS allocate its memory within the first graph of a test, as in a process of its own."""
    torch._C._cuda_clearCublasWorkspaces()


@pytest.fixture
def both(composed, tmp_path):
    """Train with eager steps and with graphs, check that the results are equal, and return what they say of graphs."""

    def train(*options, parts=()):
        checkpoints, outcomes = [], []
        for name, graph in (("eager", "false"), ("graphs", "true")):
            folder = tmp_path / name
            for part in (*(parts if name == "graphs" else ()), None):
                resume = [f"resume={folder}"] if folder.exists() else []
                more = [part] if part else []
                result = fit.train(composed(*GPU, *options, f"graph={graph}", f"folder={folder}", *more, *resume))
            checkpoints.append(torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu"))
            outcomes.append(result["graph"])
        assert_equal(*(numbers_of(checkpoint) for checkpoint in checkpoints))
        assert outcomes[0] == "graph=false"
        return outcomes[1]

    return train


@pytest.mark.parametrize("name", CASES)
def test_two_hundred_steps_in_graphs_are_those_of_eager_steps(both, name):
    assert both("trainer.max_epochs=17", *CASES[name]) is True


@pytest.mark.parametrize("name", ["adamw", "everything", "frozen"])
def test_a_resumed_run_in_graphs_ends_as_an_uninterrupted_eager_one(both, name):
    options = ("trainer.max_epochs=10", "scheduler=constant", "optimizer.lr=0.01")
    assert both(*CASES[name], *options, parts=PARTS) is True


def test_a_capture_that_fails_leaves_everything_as_it_was(both, monkeypatch):
    """A step that reads the device cannot be captured. What it draws afterwards is as before."""
    step = Classifier.loss_and_sums

    def reading(self, *arguments):
        loss, sums = step(self, *arguments)
        if torch.cuda.is_current_stream_capturing():
            loss.item()
        return loss, sums

    monkeypatch.setattr(Classifier, "loss_and_sums", reading)
    assert both("trainer.max_epochs=17", *EVERYTHING).startswith("recording a step failed: ")


REAL = (
    "model=resnet20", "data.image_size=32", "data.batch_size=128", "data.num_images=2560", "trainer=gpu", "graph=true",
    "model.widths=[16,32,64]", "trainer.precision=bf16-mixed", "trainer.max_epochs=2",
)  # fmt: skip


@pytest.mark.parametrize("options", [(), ("compile=true",), ("data.augment.crop=4", "mixup=0.2", "cutmix=1")])
def test_graphs_work_while_cudnn_times_its_algorithms_and_with_a_compiled_network(composed, options):
    result = fit.train(composed(*SMALL, *REAL, *options))
    assert result["graph"] is True
    assert 0 < result["train/loss"] < 10


def test_the_memory_of_graphs_is_freed_and_its_peak_is_reported(composed, tmp_path, capsys):
    left, peaks = {}, {}
    for graph in ("false", "true"):
        allocated_memory()
        torch.cuda.reset_peak_memory_stats()
        fit.train(composed(*SMALL, *REAL, f"graph={graph}", f"folder={tmp_path}/{graph}"))
        peaks[graph] = torch.cuda.max_memory_reserved() / 2**20
        left[graph] = allocated_memory()
    with capsys.disabled():
        print(f"\npeak of resnet20, batch 128: {peaks['false']:.0f} MB eager, {peaks['true']:.0f} MB with graphs")
    assert left["true"] <= left["false"] + 2**20


def allocated_memory():
    """Return the bytes that are in use on the GPU, without what is only waiting to be collected."""
    gc.collect()  # a trainer refers to itself
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated()
