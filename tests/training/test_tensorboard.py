import csv
import errno
import re
import threading

import numpy as np
import pytest
from outcomes import curves_of
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.summary.writer.event_file_writer import _AsyncWriter

from reslab.run import older_options
from reslab.training import ending, fit
from reslab.training.tensorboard import TensorBoardCurves, log_writer_error

SHORT = ("model=resnet8", "trainer=cpu", "test=false")
STEPS = [5, 11, 17, 19]  # those of an epoch's 20 steps that are logged: every sixth, and the last


@pytest.mark.parametrize(
    ("group_by", "tags"),
    [
        ("metric", {"loss/train": 1.0, "mixed_accuracy/train": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}),
        ("split", {"train/loss": 1.0, "train/mixed_accuracy": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}),
    ],
)
def test_the_tags_and_the_files_of_a_run(tmp_path, group_by, tags):
    logger = TensorBoardCurves(group_by=group_by, save_dir=tmp_path, name="", version="")
    metrics = {"train/loss": 1.0, "train/mixed_accuracy": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}
    logger.log_metrics(metrics | {"epoch": 3}, step=7)
    logger.finalize("success")
    assert curves_of(tmp_path) == {tag: [[7, pytest.approx(value)]] for tag, value in tags.items()}
    assert [file.name.partition(".")[0] for file in tmp_path.iterdir()] == ["events"]


@pytest.mark.slow
@pytest.mark.parametrize("group_by", ["metric", "split"])
def test_a_resumed_run_has_one_point_per_epoch(composed, tmp_path, group_by):
    """Where step 27 ended the first part, its unfinished epoch was a point, which the resumed run replaces."""
    options = (*SHORT, f"logger.tensorboard.group_by={group_by}", "trainer.max_epochs=3")
    fit.train(composed(*options, "trainer.max_steps=27"))
    fit.train(composed(*options, f"resume={tmp_path}"))
    curves = curves_of(tmp_path)
    for tag in ("loss/train", "accuracy/train") if group_by == "metric" else ("train/loss", "train/accuracy"):
        assert [step for step, _ in curves[tag]] == [19, 39, 59]


def test_an_older_run_keeps_the_tags_of_its_curves():
    oldest = {"logger._target_": "lightning.pytorch.loggers.TensorBoardLogger", "logger.name": ""}
    today = {"logger.tensorboard.group_by": "metric"}
    assert "logger.tensorboard.group_by=split" in older_options(oldest, today)
    assert not [each for each in older_options(oldest, {"logger": None}) if each.startswith("logger")]
    assert not [each for each in older_options(oldest | {"logger.group_by": "split"}, today) if "group_by" in each]


# the curves of a run


@pytest.fixture(scope="module")
def history(trained):
    rows = csv.DictReader((trained.folder / "metrics.csv").open())
    return [{name: float(value) for name, value in row.items()} for row in rows]


def points(events, tag):
    return [(event.step, event.value) for event in events.Scalars(tag)]


def tag_of(name):
    """Return the tag of a metric of metrics.csv."""
    split, _, metric = name.partition("/")
    return f"{metric}/{split}" if metric in ("loss", "accuracy", "top5_accuracy") else name


def test_these_scalars_are_shown_and_no_others(events, history, trained):
    steps = {f"step/{name}" for name in ("loss", "accuracy", "learning_rate", "images_per_second")}
    tested = {name for name in trained.result if name.startswith("test/") and "/images" not in name}
    final = {f"result/{name}" for name in ending.HPARAMS_METRICS}
    epochs = {tag_of(name) for name in history[0].keys() - {"epoch", "step", "val/images"}}
    assert set(events.Tags()["scalars"]) == steps | epochs | tested | final
    assert tested == {f"test/{n}" for n in ("loss", "accuracy", "top5_accuracy", "f1_macro", "calibration_error")}


def test_tensorboard_opens_on_accuracy_and_loss(events):
    """Of the groups of tags, which are in alphabetical order, it opens the first two."""
    tags = sorted(tag for kind in ("scalars", "images") for tag in events.Tags()[kind])
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert groups[:2] == ["accuracy", "loss"]
    assert tags[:4] == ["accuracy/train", "accuracy/val", "loss/train", "loss/val"]


def test_a_chart_has_the_training_and_the_validation_curve(events):
    (event,) = events.Tensors("custom_scalars__config__")
    (category,) = Layout.FromString(event.tensor_proto.string_val[0]).category
    tags = sorted(events.Tags()["scalars"])
    shown = {
        chart.title: [tag for tag in tags for pattern in chart.multiline.tag if re.match(pattern, tag)]
        for chart in category.chart
    }
    assert shown == {name: [f"{name}/train", f"{name}/val"] for name in ("accuracy", "loss")}


def test_every_epoch_is_a_point_at_its_last_step(events, history):
    for name in history[0].keys() - {"epoch", "step", "val/images"}:
        expected = [(row["step"] - 1, pytest.approx(row[name])) for row in history]
        assert points(events, tag_of(name)) == expected


def test_steps_add_up_to_the_epoch(events, history):
    loss = points(events, "step/loss")
    assert [step for step, _ in loss] == [epoch * 20 + step for epoch in range(4) for step in STEPS]
    values = np.array([value for _, value in loss]).reshape(4, 4)
    assert values @ [6, 6, 6, 2] / 20 == pytest.approx([row["train/loss"] for row in history], rel=1e-4)


def test_the_test_is_a_point_at_the_last_step(events, trained):
    for name in ("test/accuracy", "test/loss", "test/f1_macro", "test/calibration_error", "test/top5_accuracy"):
        assert points(events, name) == [(80, pytest.approx(trained.result[name]))]


# the thread that writes


def test_an_error_of_the_thread_that_writes_is_raised_by_the_training_alone(monkeypatch, capsys):
    class FullDisk:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(threading, "excepthook", log_writer_error)  # pytest has its own
    writer = _AsyncWriter(FullDisk())
    writer.write(b"a record")
    writer._worker.join()
    with pytest.raises(OSError, match="No space left on device"):
        writer.flush()
    assert capsys.readouterr().err == ""
