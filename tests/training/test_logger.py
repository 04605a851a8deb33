import pytest
from outcomes import curves_of

from reslab.run import older_options
from reslab.training import fit
from reslab.training.logger import Curves

SHORT = ("model=resnet8", "trainer=cpu", "test=false")


@pytest.mark.parametrize(
    ("group_by", "tags"),
    [
        ("metric", {"loss/train": 1.0, "mixed_accuracy/train": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}),
        ("split", {"train/loss": 1.0, "train/mixed_accuracy": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}),
    ],
)
def test_the_tags_and_the_files_of_a_run(tmp_path, group_by, tags):
    logger = Curves(group_by=group_by, save_dir=tmp_path, name="", version="")
    metrics = {"train/loss": 1.0, "train/mixed_accuracy": 0.5, "train/learning_rate": 0.1, "step/loss": 2.0}
    logger.log_metrics(metrics | {"epoch": 3}, step=7)
    logger.finalize("success")
    assert curves_of(tmp_path) == {tag: [[7, pytest.approx(value)]] for tag, value in tags.items()}
    assert [file.name.partition(".")[0] for file in tmp_path.iterdir()] == ["events"]


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
