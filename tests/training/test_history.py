import csv
import shutil

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from reslab.run import Run
from reslab.training import fit
from reslab.training.history import History

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "test=false")


def logged(composed, tmp_path, monkeypatch, *options, name="step/loss"):
    """Return the step and metrics of every point with this metric that reached the logger."""
    points = []
    log_metrics = TensorBoardLogger.log_metrics

    def record(self, metrics, step=None):
        if name in metrics:
            points.append((step, metrics))
        return log_metrics(self, metrics, step)

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardLogger, "log_metrics", record)
        fit.train(composed(*QUICK, f"folder={tmp_path}/{options[-1].rpartition('=')[2]}", *options))
    return points


@pytest.mark.slow
def test_a_logged_step_is_the_mean_of_the_steps_since_the_last_one(composed, tmp_path, monkeypatch):
    each = logged(composed, tmp_path, monkeypatch, "trainer.log_every_n_steps=1")
    sixth = logged(composed, tmp_path, monkeypatch, "trainer.log_every_n_steps=6")
    assert [step for step, _ in each] == list(range(40))
    assert [step for step, _ in sixth] == [
        5,
        11,
        17,
        19,
        25,
        31,
        37,
        39,
    ]  # 20 steps in an epoch; the last one is always logged
    loss = [metrics["step/loss"] for _, metrics in each]
    accuracy = [metrics["step/accuracy"] for _, metrics in each]
    for (start, stop), (_, metrics) in zip([(0, 6), (6, 12), (12, 18), (18, 20), (20, 26)], sixth, strict=False):
        assert metrics["step/loss"] == pytest.approx(sum(loss[start:stop]) / (stop - start), rel=1e-4)
        assert metrics["step/accuracy"] == pytest.approx(sum(accuracy[start:stop]) / (stop - start), abs=1e-5)
    assert sixth[0][1]["step/learning_rate"] == each[5][1]["step/learning_rate"]


@pytest.mark.slow
def test_points_are_numbered_by_optimizer_steps(composed, tmp_path, monkeypatch):
    options = ("trainer.accumulate_grad_batches=3", "trainer.log_every_n_steps=6")
    points = logged(composed, tmp_path, monkeypatch, *options)
    assert [step for step, _ in points] == [1, 3, 5, 6, 8, 10, 12, 13]  # 20 batches are seven steps


@pytest.mark.slow
def test_an_epoch_that_max_steps_ends_is_a_point_one_step_later(composed, tmp_path, monkeypatch):
    points = logged(composed, tmp_path, monkeypatch, "trainer.max_steps=27", name="loss/train")
    assert [step for step, _ in points] == [19, 27]


def test_a_run_that_resumes_within_an_epoch_on_fewer_devices_continues_its_means(composed, tmp_path, monkeypatch):
    options = ("trainer.max_epochs=1", "trainer.limit_train_batches=4", "trainer.log_every_n_steps=1")
    options = (*options, "data.val_fraction=0")
    second = tmp_path / "second.ckpt"
    on_train_batch_end = History.on_train_batch_end

    def save_after(self, trainer, *args):
        on_train_batch_end(self, trainer, *args)
        if trainer.global_step == 2 and not second.exists():
            trainer.save_checkpoint(second)

    monkeypatch.setattr(History, "on_train_batch_end", save_after)
    whole = logged(composed, tmp_path, monkeypatch, *options, f"folder={tmp_path}/whole")
    checkpoint = torch.load(second, weights_only=True)  # as if two devices had shared its images unequally well
    (state,) = checkpoint["train_metrics"]
    shares = [state | {"sums": state["sums"] * share, "images": state["images"] // 2} for share in (0.25, 0.75)]
    checkpoint["train_metrics"] = shares
    history = checkpoint["callbacks"]["History"]
    history["logged_sums"] = {name: value / 2 for name, value in history["logged_sums"].items()}  # of the first one
    parts = shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    torch.save(checkpoint, parts / "checkpoints" / "last.ckpt")
    resumed = logged(composed, tmp_path, monkeypatch, *options, f"resume={parts}")
    for (step, metrics), (again, expected) in zip(resumed, whole[2:], strict=True):
        assert step == again
        for name in ("step/loss", "step/accuracy", "step/learning_rate"):
            assert metrics[name] == pytest.approx(expected[name], rel=1e-5)
    (before,), (now,) = (Run(folder).metrics for folder in (tmp_path / "whole", parts))
    for name in ("step", "train/loss", "train/accuracy"):
        assert now[name] == pytest.approx(before[name], rel=1e-6)


@pytest.mark.slow
def test_metrics_csv_has_one_row_per_epoch(composed, tmp_path):
    result = fit.train(composed(*QUICK, "trainer.max_epochs=3", "logger=none"))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(int(row["epoch"]), int(row["step"])) for row in rows] == [(1, 20), (2, 40), (3, 60)]
    best = max(rows, key=lambda row: float(row["val/accuracy"]))
    for name in ("val/accuracy", "val/loss", "train/loss", "train/accuracy"):
        assert float(best[name]) == pytest.approx(result[name])
    for row in rows:
        rate = 20 * 64 / float(row["train/epoch_seconds"])
        assert float(row["train/images_per_second"]) == pytest.approx(rate, rel=1e-4)
    assert sum(float(row["train/epoch_seconds"]) for row in rows) == pytest.approx(result["train/seconds"], rel=1e-4)


@pytest.mark.slow
def test_a_run_of_an_older_version_continues_with_its_epochs_from_1(composed, tmp_path):
    """Older versions numbered the epochs from 0, in metrics.csv and in the rows that a checkpoint holds."""
    fit.train(composed(*QUICK, "logger=none"))
    last = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    for row in checkpoint["callbacks"]["History"]["rows"]:
        row["epoch"] -= 1
    torch.save(checkpoint, last)
    fit.train(composed(*QUICK, "logger=none", "trainer.max_epochs=3", f"resume={tmp_path}"))
    assert [row["epoch"] for row in Run(tmp_path).metrics] == [1, 2, 3]
    assert [row["epoch"] for row in csv.DictReader((tmp_path / "metrics.csv").open())] == ["1", "2", "3"]


def test_the_running_means_are_those_of_the_present_epoch(tmp_path):
    history = History(Run(tmp_path))
    history.running = {"loss": 0.5}
    history.start_epoch()
    assert history.running == {}
