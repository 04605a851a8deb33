import csv

import pytest
from lightning.pytorch.loggers import TensorBoardLogger

from reslab import training

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "test=false")


def logged_steps(composed, tmp_path, monkeypatch, every):
    """(step, metrics) of every `step/…` point that reached the logger."""
    points = []
    log_metrics = TensorBoardLogger.log_metrics

    def record(self, metrics, step=None):
        if "step/loss" in metrics:
            points.append((step, metrics))
        return log_metrics(self, metrics, step)

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoardLogger, "log_metrics", record)
        training.train(composed(*QUICK, f"folder={tmp_path}/{every}", f"trainer.log_every_n_steps={every}"))
    return points


def test_a_logged_step_is_the_mean_of_the_steps_since_the_last_one(composed, tmp_path, monkeypatch):
    each = logged_steps(composed, tmp_path, monkeypatch, every=1)
    sixth = logged_steps(composed, tmp_path, monkeypatch, every=6)
    assert [step for step, _ in each] == list(range(40))
    assert [step for step, _ in sixth] == [5, 11, 17, 19, 25, 31, 37, 39]  # 20 steps an epoch, the last one always
    loss = [metrics["step/loss"] for _, metrics in each]
    accuracy = [metrics["step/accuracy"] for _, metrics in each]
    for (start, stop), (_, metrics) in zip([(0, 6), (6, 12), (12, 18), (18, 20), (20, 26)], sixth, strict=False):
        assert metrics["step/loss"] == pytest.approx(sum(loss[start:stop]) / (stop - start), rel=1e-4)
        assert metrics["step/accuracy"] == pytest.approx(sum(accuracy[start:stop]) / (stop - start), abs=1e-5)
    assert sixth[0][1]["step/learning_rate"] == each[5][1]["step/learning_rate"]


def test_metrics_csv_has_a_row_an_epoch(composed, tmp_path):
    result = training.train(composed(*QUICK, "trainer.max_epochs=3", "logger=none"))
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [(int(row["epoch"]), int(row["step"])) for row in rows] == [(0, 20), (1, 40), (2, 60)]
    best = max(rows, key=lambda row: float(row["val/accuracy"]))
    for name in ("val/accuracy", "val/loss", "train/loss", "train/accuracy"):
        assert float(best[name]) == pytest.approx(result[name])
    for row in rows:
        rate = 20 * 64 / float(row["train/epoch_seconds"])
        assert float(row["train/images_per_second"]) == pytest.approx(rate, rel=1e-4)
    assert sum(float(row["train/epoch_seconds"]) for row in rows) == pytest.approx(result["train/seconds"], rel=1e-4)
