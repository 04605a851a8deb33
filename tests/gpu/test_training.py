"""Training, evaluation and prediction on a GPU: what repeats, what resumes, and how close it is to the CPU."""

import os

import pytest
import torch
from conftest import CONF, FP32, equal, last_weights
from hydra import compose
from torchvision.io import write_png

from reslab import internals
from reslab.benchmarking import benchmark
from reslab.data.batches import BatchOrder
from reslab.inference.evaluation import evaluate
from reslab.inference.prediction import predict
from reslab.newest import require_checkpoint
from reslab.training import fit, waiting

pytestmark = pytest.mark.gpu
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, and is deterministic only with it

DEVICE = "gpu"
GPU = f"trainer={DEVICE}"
DIGITS = ("model=resnet8", "data=digits", "logger=none", "test=false", "data.batch_size=128")  # 10 batches an epoch
DETERMINISTIC = ("trainer.deterministic=true", GPU)
RANDOM = (
    "trainer.precision=bf16-mixed", "callbacks=ema", "mixup=0.2", "cutmix=1", "data.augment.crop=1",
    "data.augment.erasing=0.5", "model.dropout=0.2", "checkpoint.every_minutes=0.0001",
)  # fmt: skip
# The relative error of one rounding: TF32 has 11 significant bits, bf16 has 8.
ROUNDING = {"32-true": 2**-11, "bf16-mixed": 2**-8}
# An update is computed through some 10 layers, there and back, with about three rounded operands each. Errors of 60
# roundings that are independent add up to 8 of one; batch norms of few values enlarge them.
ROUNDINGS = 32


class KilledError(Exception):
    """What ends a run in these tests."""


def test_deterministic_runs_repeat(composed, tmp_path):
    for name in ("a", "b"):
        fit.train(composed(*DIGITS, *DETERMINISTIC, *RANDOM, "trainer.max_epochs=3", f"folder={tmp_path}/{name}"))
    assert equal(last_weights(tmp_path / "a"), last_weights(tmp_path / "b"))


@pytest.mark.parametrize("graph", ["false", "true"])
def test_a_run_that_ends_anywhere_and_is_resumed_has_the_weights_of_one_that_does_not(
    composed, tmp_path, monkeypatch, graph
):
    """It is interrupted within the second epoch and at the end of the third."""
    options = (*DIGITS, *DETERMINISTIC, *RANDOM, "trainer.max_epochs=4", f"graph={graph}")
    fit.train(composed(*options, f"folder={tmp_path}/whole"))
    batches_of, parts = BatchOrder.batches_of, tmp_path / "parts"
    for batches in (14, 16):
        left = iter(range(batches))

        def stopping(self, order, left=left):
            for batch in batches_of(self, order):
                if self.shuffle and next(left, None) is None:
                    raise KilledError
                yield batch

        resume = [f"resume={parts}"] if parts.exists() else []
        with monkeypatch.context() as patch:
            patch.setattr(BatchOrder, "batches_of", stopping)
            with pytest.raises(KilledError):
                fit.train(composed(*options, f"folder={parts}", *resume))
    result = fit.train(composed(*options, f"folder={parts}", f"resume={parts}"))
    assert result["graph"] == (graph == "true" or "graph=false")
    assert equal(last_weights(tmp_path / "whole"), last_weights(parts))


@pytest.mark.parametrize("precision", ROUNDING)
def test_a_step_changes_the_weights_as_on_the_cpu(composed, tmp_path, precision):
    """The CPU computes in fp32. The step is the first one, because later ones enlarge any difference."""
    once = (*DIGITS, "data.augment=null", "trainer.max_steps=1", "scheduler=constant", "optimizer.lr=0.1")
    runs = {"cpu": ("trainer=cpu", FP32), "gpu": (GPU, f"trainer.precision={precision}")}
    changes = {}
    for name, device in runs.items():
        fit.train(composed(*once, *device, f"folder={tmp_path}/{name}"))
        fit.train(composed(*once, *device, f"folder={tmp_path}/{name}-still", "optimizer.lr=1e-12"))
        after, before = (last_weights(tmp_path / f"{name}{still}") for still in ("", "-still"))
        learned = [key for key in after if key.endswith(("weight", "bias"))]
        changes[name] = torch.cat([(after[key] - before[key]).cpu().flatten() for key in learned])
    difference = (changes["gpu"] - changes["cpu"]).norm() / changes["cpu"].norm()
    assert difference < ROUNDINGS * ROUNDING[precision]


def test_evaluation_is_that_of_the_cpu(composed, trained):
    options = ([f"checkpoint={trained.folder}", device] for device in ("trainer=cpu", GPU))
    cpu, gpu = (evaluate(compose("evaluate", given))["metrics"] for given in options)
    assert gpu["test/loss"] == pytest.approx(cpu["test/loss"], rel=ROUNDINGS * ROUNDING["32-true"])
    assert gpu["test/accuracy"] == pytest.approx(cpu["test/accuracy"], abs=1 / 359)  # one image may be on the fence


def test_predictions_are_those_of_the_cpu(trained, digit_files):
    files, checkpoint = [str(file) for file in digit_files], require_checkpoint(trained.folder)
    cpu, gpu = (predict(checkpoint, files, device=device, top=10) for device in ("cpu", DEVICE))
    by_class = [
        [{each["class"]: each["probability"] for each in row["classes"]} for row in rows] for rows in (cpu, gpu)
    ]
    # A probability p changes by p (1 - p) <= 1/4 of what its logit changes by; logits are up to 10.
    tolerance = 10 / 4 * ROUNDINGS * ROUNDING["32-true"]
    for one, other in zip(*by_class, strict=True):
        assert one == pytest.approx(other, abs=tolerance)


def test_the_host_and_the_gpu_are_measured(composed, tmp_path):
    config = compose(
        "benchmark",
        [
            f"folder={tmp_path}", "model=resnet20", "data.num_images=1024", "data.batch_size=128", GPU,
            "benchmark.precisions=bf16-mixed", "benchmark.steps=20",
        ],
    )  # fmt: skip
    (row,) = benchmark.run_benchmark(config)["cases"]
    # A step takes the longer one of both times. Measured alone, they do not overlap, and other noise is below a half.
    assert max(row["host_ms"], row["gpu_ms"]) == pytest.approx(row["step_ms"]["median"], rel=0.5)
    assert min(row["host_ms"], row["gpu_ms"]) > 0


def test_a_gpu_is_occupied_for_at_least_the_time_that_is_asked_for():
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    internals.occupy_gpu(0.02)
    end.record()
    torch.cuda.synchronize()
    assert begin.elapsed_time(end) >= 20


def test_the_wait_for_image_files_is_measured_on_the_gpu(composed, tmp_path, monkeypatch, caplog):
    for number in range(64):
        folder = tmp_path / "images" / "train" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_png(torch.full((3, 32, 32), number, dtype=torch.uint8), str(folder / f"{number}.png"))
    monkeypatch.setattr(waiting, "NOTABLE_SHARE", 0.0)  # any wait at all
    caplog.set_level("INFO", "reslab")
    options = ("data=imagefolder", f"data.root={tmp_path}/images", "data.image_size=32", "data.val_fraction=0", GPU)
    fit.train(composed(*DIGITS[:1], *options, "data.batch_size=8", "trainer.max_epochs=2", "test=false", "logger=none"))
    (line,) = [each.getMessage() for each in caplog.records if each.name == "reslab.training.waiting"]
    assert line.startswith("training waited for image files in ")


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "resnet50"])
def test_the_plain_loop_of_the_benchmark_can_be_recorded(monkeypatch, name):
    monkeypatch.syspath_prepend(CONF.parent / "benchmarks")
    import gpu_loops

    small = gpu_loops.WORKS[name].__class__(**(vars(gpu_loops.WORKS[name]) | {"batch": 8}))
    eager, graph = (gpu_loops.measure(small, torch.device("cuda"), kind, 20, 5) for kind in (False, True))
    assert 0 < graph["step_ms"] < eager["step_ms"]  # at eight images only launches count
