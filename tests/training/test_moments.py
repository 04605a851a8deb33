"""All figures of a row, of result.json and of a checkpoint speak of the same weights."""

import csv
import shutil
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from conftest import equal, last_weights
from hydra import compose
from torch.nn import functional as F

from reslab.errors import RunError, UserError
from reslab.inference.evaluation import evaluate
from reslab.inference.loading import load_classifier
from reslab.run import Run
from reslab.training import build, fit
from reslab.training.checkpoints import BestCheckpoint
from reslab.training.classifier import Classifier

# An epoch has 20 steps of 64 images.
DIGITS = ("model=resnet8", "model.widths=[8,8,16]", "trainer=cpu", "logger=none", "test=false")
RESTLESS = ("optimizer.lr=0.3", "scheduler=constant")  # the accuracy goes up and down


def validation_of(checkpoint, config):
    """Return the accuracy and the loss of a checkpoint on the validation images, with torch alone."""
    classifier = load_classifier(checkpoint).classifier
    split = build.build_data(config, stages=("fit",)).splits["val"]
    images, labels = split.images[split.indices], split.labels[split.indices]
    with torch.inference_mode():
        logits = classifier(images)
    return (logits.argmax(1) == labels).float().mean().item(), F.cross_entropy(logits, labels).item()


def rows_of(folder):
    return list(csv.DictReader((folder / "metrics.csv").open()))


def assert_speaks_of_its_best_checkpoint(result, config, folder):
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    accuracy, loss = validation_of(folder / "checkpoints" / "best.ckpt", config)
    assert result["val/accuracy"] == pytest.approx(accuracy)
    assert result["val/loss"] == pytest.approx(loss, rel=1e-4)
    assert result["best_step"] == checkpoint["global_step"]
    (row,) = (row for row in rows_of(folder) if int(row["step"]) == result["best_step"])
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        assert result[name] == float(row[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps", "validated"),
    [
        (("trainer.max_steps=50",), [20, 40, 50], [20, 40, 50]),
        (("trainer.max_steps=7",), [7], [7]),
        (("trainer.max_epochs=5", "trainer.check_val_every_n_epoch=2"), [20, 40, 60, 80, 100], [40, 80, 100]),
        (("trainer.max_epochs=2", "+trainer.val_check_interval=0.25"), list(range(5, 41, 5)), list(range(5, 41, 5))),
        (("trainer.max_steps=27", "+trainer.val_check_interval=10"), [10, 20, 27], [10, 20, 27]),
        (
            ("trainer.max_epochs=1", "+trainer.val_check_interval=6", "trainer.accumulate_grad_batches=3"),
            [2, 4, 6, 7],
            [2, 4, 6, 7],
        ),
        (("trainer.max_epochs=2", "trainer.limit_val_batches=0"), [20, 40], []),
        (
            (
                "trainer.max_epochs=3",
                "callbacks.best_checkpoint.monitor=val/loss",
                "callbacks.best_checkpoint.mode=min",
            ),
            [20, 40, 60],
            [20, 40, 60],
        ),
        (("trainer.max_steps=27", "callbacks=ema", "trainer.accumulate_grad_batches=2"), [10, 20, 27], [10, 20, 27]),
    ],
)
def test_each_row_is_of_one_moment_and_the_result_of_the_best(composed, tmp_path, options, steps, validated):
    config = composed(*DIGITS, *RESTLESS, *options)
    result = fit.train(config)
    rows = rows_of(tmp_path)
    assert [int(row["step"]) for row in rows] == steps
    assert [int(row["step"]) for row in rows if row.get("val/accuracy")] == validated
    if not validated:
        assert "val/accuracy" not in result
        assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
        assert result["best_step"] is None
        return
    assert_speaks_of_its_best_checkpoint(result, config, tmp_path)
    monitor, choose = config.callbacks.best_checkpoint.monitor, {"max": max, "min": min}
    values = [float(row[monitor]) for row in rows if row[monitor]]
    assert result[monitor] == choose[config.callbacks.best_checkpoint.mode](values)
    assert result["val/images"] == 143  # round(0.1 * n) of each class


@pytest.mark.slow
def test_the_last_row_measures_the_last_weights(composed, tmp_path):
    config = composed(*DIGITS, *RESTLESS, "trainer.max_steps=27")
    fit.train(config)
    accuracy, loss = validation_of(tmp_path / "checkpoints" / "last.ckpt", config)
    last = rows_of(tmp_path)[-1]
    assert float(last["val/accuracy"]) == pytest.approx(accuracy)
    assert float(last["val/loss"]) == pytest.approx(loss, rel=1e-4)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by one second whenever the limits look at it."""
    ticks: Iterator[int] = iter(range(10**6))
    monkeypatch.setattr("reslab.training.limits.time.monotonic", lambda: float(next(ticks)))


@pytest.mark.slow
@pytest.mark.usefixtures("clock")
def test_max_time_ends_a_run_after_a_whole_optimizer_step(composed, tmp_path, caplog):
    caplog.set_level("INFO")
    options = (*DIGITS, *RESTLESS, "trainer.max_time=00:00:00:12", "trainer.accumulate_grad_batches=3")
    result = fit.train(composed(*options))
    assert result["status"] == "finished"
    assert result["stopped"] == "trainer.max_time is over"
    assert [line for line in caplog.messages if line.startswith("stopped")] == [
        f"stopped after step {result['steps']} of 420: trainer.max_time is over"
    ]
    assert_speaks_of_its_best_checkpoint(result, composed(*options), tmp_path)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == result["steps"]
    more = fit.train(composed(*options, f"resume={tmp_path}", "trainer.max_time=null", "trainer.max_epochs=2"))
    assert "stopped" not in more
    resumed = last_weights(tmp_path)
    fit.train(composed(*DIGITS, *RESTLESS, options[-1], f"folder={tmp_path}/whole", "trainer.max_epochs=2"))
    assert equal(resumed, last_weights(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [10, 27])
def test_a_run_without_validation_images_keeps_its_last_weights(composed, tmp_path, steps):
    """Also where val_check_interval would ask for a validation, after which the checkpoint would be written."""
    options = (*DIGITS, "data.val_fraction=0", "+trainer.val_check_interval=5", f"trainer.max_steps={steps}")
    result = fit.train(composed(*options))
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == result["steps"] == steps


@pytest.mark.slow
def test_the_validation_at_a_limit_changes_nothing_in_a_run_that_is_resumed(composed, tmp_path):
    options = (*DIGITS, *RESTLESS, "trainer.max_epochs=3", "test=true")
    whole = fit.train(composed(*options, f"folder={tmp_path}/whole"))
    parts = tmp_path / "parts"
    for limit in ("trainer.max_steps=7", "trainer.max_steps=20", "trainer.max_steps=33", "trainer.max_steps=-1"):
        resume = [f"resume={parts}"] if parts.exists() else []
        result = fit.train(composed(*options, f"folder={parts}", limit, *resume))
    same = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "best_step", "steps", "train/loss")
    assert {name: result[name] for name in same} == {name: whole[name] for name in same}
    assert equal(last_weights(tmp_path / "whole"), last_weights(parts))
    assert [row["step"] for row in rows_of(parts)] == [row["step"] for row in rows_of(tmp_path / "whole")]
    assert not Run(parts).best_before_end.exists()


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_last_validation_repeats_it(composed, tmp_path, monkeypatch):
    options = (*DIGITS, *RESTLESS, "trainer.max_steps=27", "test=true")
    whole = fit.train(composed(*options, f"folder={tmp_path}/whole"))

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fit, "validate_last_weights", kill)
        with pytest.raises(KeyboardInterrupt):
            fit.train(composed(*options, f"folder={tmp_path}/parts"))
    result = fit.train(composed(*options, f"folder={tmp_path}/parts", f"resume={tmp_path}/parts"))
    same = ("val/accuracy", "val/loss", "test/accuracy", "best_step", "steps", "train/loss", "epochs")
    assert {name: result[name] for name in same} == {name: whole[name] for name in same}


@pytest.mark.parametrize("options", [(), ("+trainer.val_check_interval=7",), ("callbacks=ema",)])
def test_every_checkpoint_continues_to_the_same_weights(composed, tmp_path, options):
    options = (*DIGITS, *RESTLESS, *options)
    whole, begun = tmp_path / "whole", tmp_path / "begun"
    fit.train(composed(*options, "trainer.max_epochs=3", f"folder={whole}"))
    fit.train(composed(*options, "trainer.max_epochs=2", f"folder={begun}"))
    columns = ("epoch", "step", "train/loss", "val/accuracy", "val/loss")
    for checkpoint in ("best.ckpt", "previous.ckpt", "last.ckpt"):
        parts = shutil.copytree(begun, tmp_path / checkpoint)
        resume = f"resume={parts}/checkpoints/{checkpoint}"
        fit.train(composed(*options, "trainer.max_epochs=3", f"folder={parts}", resume))
        assert equal(last_weights(whole), last_weights(parts)), checkpoint
        rows = [[[row[name] for name in columns] for row in rows_of(folder)] for folder in (whole, parts)]
        assert rows[0] == rows[1], checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("validation", [(), ("data.val_fraction=0",), ("trainer.check_val_every_n_epoch=2",)])
def test_more_steps_after_a_complete_epoch(composed, tmp_path, validation):
    options = (*DIGITS, *RESTLESS, *validation)
    fit.train(composed(*options, "trainer.max_steps=45", f"folder={tmp_path}/whole"))
    parts = tmp_path / "parts"
    fit.train(composed(*options, "trainer.max_steps=20", f"folder={parts}"))
    result = fit.train(composed(*options, "trainer.max_steps=45", f"folder={parts}", f"resume={parts}"))
    assert result["steps"] == 45
    assert equal(last_weights(tmp_path / "whole"), last_weights(parts))


@pytest.mark.slow
@pytest.mark.parametrize(("option", "done"), [("max_steps=5", "27 steps"), ("max_epochs=1", "3 epochs")])
def test_less_than_was_trained_is_refused(composed, tmp_path, option, done):
    limit = "trainer.max_steps=27" if "steps" in option else "trainer.max_epochs=3"
    fit.train(composed(*DIGITS, limit))
    with pytest.raises(UserError, match=rf"^trainer\.{option} is less than the {done} that the run has begun$"):
        fit.train(composed(*DIGITS, limit, f"resume={tmp_path}", f"trainer.{option}"))


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [
        ("max", [0.5, 0.7, 0.6, 0.7, 0.1], 4),  # of equal values the latest
        ("min", [0.5, 0.7, 0.5, 0.6], 3),
        ("max", [float("nan"), 0.1, float("nan")], 2),
        ("min", [0.3, float("nan")], 1),
    ],
)
def test_the_best_of_several_validations(mode, scores, best):
    checkpoint = BestCheckpoint(monitor="val/accuracy", mode=mode)
    for step, score in enumerate(scores, start=1):
        checkpoint.is_best(score, step)
    assert checkpoint.best_step == best


@pytest.mark.slow
def test_evaluate_measures_what_the_run_has_tested(composed, tmp_path):
    for number, options in enumerate(
        [("trainer.max_steps=27",), ("data.validate_on_test=true", "trainer.max_epochs=3"), ("callbacks=ema",)]
    ):
        folder = tmp_path / str(number)
        result = fit.train(
            composed(*DIGITS, *RESTLESS, "test=true", "trainer.max_epochs=2", *options, f"folder={folder}")
        )
        again = evaluate(compose("evaluate", overrides=[f"checkpoint={folder}", "trainer=cpu"]))
        assert again["metrics"] == pytest.approx({name: result[name] for name in again["metrics"]})
        assert result["test/images"] == again["images"] == 359


@pytest.mark.slow
def test_early_stopping_is_not_forgotten(composed, tmp_path, monkeypatch):
    options = (*DIGITS, "callbacks=early_stopping", "callbacks.early_stopping.patience=2", "test=true")
    options = (*options, "optimizer.lr=0.5", "scheduler=constant", "trainer.max_epochs=12")
    whole = fit.train(composed(*options, f"folder={tmp_path}/whole"))
    assert whole["epochs"] < 12
    values = [float(row["val/accuracy"]) for row in rows_of(tmp_path / "whole")]
    assert max(values[:-2]) >= max(values[-2:])  # two validations without improvement

    def kill(*_):
        raise KeyboardInterrupt

    for kill_at in ("validate_last_weights", "test"):
        parts = tmp_path / kill_at
        with monkeypatch.context() as patch:
            patch.setattr(fit, kill_at, kill)
            with pytest.raises(KeyboardInterrupt):
                fit.train(composed(*options, f"folder={parts}"))
        result = fit.train(composed(*options, f"folder={parts}", f"resume={parts}"))
        same = ("epochs", "steps", "best_step", "val/accuracy", "test/accuracy")
        assert {name: result[name] for name in same} == {name: whole[name] for name in same}, kill_at


@pytest.mark.slow
def test_a_run_that_a_nan_has_ended_does_not_train_further(composed, tmp_path, monkeypatch):
    """Its checkpoint is written, and a kill comes before its result."""
    options = (*DIGITS, "callbacks=early_stopping", "callbacks.early_stopping.monitor=val/loss", "trainer.max_epochs=4")
    options = (*options, "callbacks.early_stopping.mode=min", "trainer.limit_train_batches=4")

    def with_nan(classifier, images, original=Classifier.evaluation_logits):
        return original(classifier, images) * (torch.nan if classifier.trainer.global_step == 8 else 1)

    monkeypatch.setattr(Classifier, "evaluation_logits", with_nan)
    whole = fit.train(composed(*options, f"folder={tmp_path}/whole"))
    assert (whole["steps"], "finite" in whole["stopped"]) == (8, True)
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(fit, "validate_last_weights", mock.Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit.train(composed(*options, f"folder={parts}"))
    resumed = fit.train(composed(*options, f"folder={parts}", f"resume={parts}"))
    assert (resumed["steps"], resumed["stopped"]) == (8, whole["stopped"])


@pytest.mark.slow
def test_a_best_checkpoint_is_kept_where_a_resumed_run_chooses_none(composed, tmp_path, caplog):
    options = (*DIGITS, "trainer.limit_train_batches=4")
    fit.train(composed(*options, "trainer.max_epochs=1"))
    best, kept = (tmp_path / "checkpoints" / name for name in ("best.ckpt", "kept_best.ckpt"))
    content = best.read_bytes()
    fit.train(composed(*options, "trainer.max_epochs=2", f"resume={tmp_path}", "~callbacks.best_checkpoint"))
    assert (best.exists(), kept.read_bytes() == content) == (False, True)
    line = f"no validation chooses weights any more: best.ckpt, which one chose before, is {kept} now"
    assert line in caplog.messages


@pytest.mark.slow
def test_more_patience_lets_a_stopped_run_continue(composed, tmp_path):
    options = (*DIGITS, "callbacks=early_stopping", "optimizer.lr=0.5", "scheduler=constant", "trainer.max_epochs=9")
    stopped = fit.train(composed(*options, "callbacks.early_stopping.patience=1"))
    assert stopped["epochs"] < 9
    more = fit.train(composed(*options, "callbacks.early_stopping.patience=9", f"resume={tmp_path}"))
    assert more["epochs"] == 9


@pytest.mark.parametrize("options", [("optimizer=adam", "optimizer.lr=3e38"), ("optimizer=sgd", "optimizer.lr=1e39")])
def test_no_checkpoint_holds_a_value_that_is_not_finite(composed, tmp_path, options):
    options = (*options, "data.batch_size=1294", "scheduler=constant")
    with pytest.raises(RunError, match=r"no longer finite after step 1, .* no checkpoint was written yet$"):
        fit.train(composed(*DIGITS, *options, "trainer.max_epochs=2"))
    assert list((tmp_path / "checkpoints").glob("*.ckpt")) == []


@pytest.mark.slow
def test_a_run_that_was_resumed_for_longer_says_so(composed, tmp_path):
    options = (*DIGITS, "trainer.max_epochs=1")
    assert "requested" not in fit.train(composed(*options))
    assert "requested" not in fit.train(composed(*options, f"resume={tmp_path}"))
    fit.train(composed(*options, f"resume={tmp_path}", "trainer.max_epochs=2"))
    result = fit.train(composed(*options, f"resume={tmp_path}", "trainer.max_steps=50", "trainer.max_epochs=-1"))
    length = ("step", "trainer.max_epochs", "trainer.max_steps")
    requested = [(0, 1, -1), (20, 2, -1), (40, -1, 50)]
    assert result["requested"] == [dict(zip(length, values, strict=True)) for values in requested]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("callbacks.best_checkpoint.monitor=val/top5_accuracy", "val/top5_accuracy needs more than 5 classes"),
        ("objective=test/top5_accuracy", "test/top5_accuracy needs more than 5 classes"),
    ],
)
def test_a_metric_that_will_not_exist_is_refused_before_training(composed, tmp_path, option, told):
    options = ("data=synthetic", "data.num_classes=5", "test=true")
    with pytest.raises(UserError, match=told):
        fit.train(composed(*DIGITS, *options, option))
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mixing", ["mixup=1", "cutmix=1"])
def test_the_accuracy_of_mixed_images_has_a_name_of_its_own(composed, tmp_path, mixing):
    result = fit.train(composed(*DIGITS, "trainer.max_epochs=1", mixing))
    (row,) = rows_of(tmp_path)
    assert result["train/mixed_accuracy"] == float(row["train/mixed_accuracy"])
    assert not {"train/accuracy", "train/top5_accuracy"} & (result.keys() | row.keys())
    assert {"train/loss", "train/mixed_top5_accuracy", "val/accuracy"} <= result.keys()


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 2, 3])
def test_a_limited_validation_says_how_many_images_it_used(composed, batches):
    limits = (f"trainer.limit_val_batches={batches}", f"trainer.limit_test_batches={batches}")
    result = fit.train(composed(*DIGITS, "trainer.max_epochs=1", "test=true", *limits))
    used = {name: result[name] for name in result if "/images" in name and not name.startswith("train/")}
    assert used == {
        "val/images": min(64 * batches, 143), "val/images_available": 143,
        "test/images": 64 * batches, "test/images_available": 359,
    }  # fmt: skip


@pytest.mark.parametrize(("options", "fold_split"), [((), None), (("data.folds=5", "data.fold=0"), "test")])
def test_the_result_of_a_fold_says_which_split_it_is(composed, options, fold_split):
    result = fit.train(composed(*DIGITS, "trainer.max_epochs=1", "trainer.limit_train_batches=1", *options))
    assert result.get("fold_split") == fold_split


@pytest.mark.slow
@pytest.mark.parametrize("options", [("callbacks=ema",), ("trainer.check_val_every_n_epoch=2",), ()])
def test_a_run_with_nothing_left_to_train_has_the_same_result_again(composed, tmp_path, options):
    options = (*DIGITS, *RESTLESS, *options, "test=true", "trainer.max_epochs=3")
    first = fit.train(composed(*options))
    Run(tmp_path).answers_file.unlink()  # an older version wrote none, so the run is tested again
    again = fit.train(composed(*options, f"resume={tmp_path}"))
    times = ("train/seconds", "train/images_per_second", "train/epoch_seconds")
    assert {name: first[name] for name in first if name not in times} == {
        name: again[name] for name in again if name not in times
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["previous.ckpt", "best.ckpt"])
def test_an_earlier_checkpoint_with_nothing_left_to_train_is_tested_itself(composed, tmp_path, name):
    options = (*DIGITS, *RESTLESS, "trainer.max_epochs=4", "data.val_fraction=0.1")
    fit.train(composed(*options))
    path = tmp_path / "checkpoints" / name
    step = torch.load(path, weights_only=True)["global_step"]
    accuracy, _ = validation_of(path, composed(*options))
    result = fit.train(composed(*options, f"resume={path}", f"trainer.max_epochs={step // 20}"))
    assert result["steps"] == step
    assert float(rows_of(tmp_path)[-1]["step"]) == step
    assert float(rows_of(tmp_path)[-1]["val/accuracy"]) == pytest.approx(accuracy)
    assert_speaks_of_its_best_checkpoint(result, composed(*options), tmp_path)


@pytest.mark.slow
def test_a_validation_within_an_epoch_is_not_left_out_by_a_resumed_run(composed, tmp_path):
    options = (*DIGITS, *RESTLESS, "trainer.max_epochs=1", "+trainer.val_check_interval=5")
    whole = fit.train(composed(*options, f"folder={tmp_path}/whole"))
    for steps in (5, 10, 14, 15):
        parts = tmp_path / str(steps)
        fit.train(composed(*options, f"trainer.max_steps={steps}", f"folder={parts}"))
        result = fit.train(composed(*options, f"folder={parts}", f"resume={parts}"))
        assert [row["step"] for row in rows_of(parts)] == [row["step"] for row in rows_of(tmp_path / "whole")]
        assert (result["best_step"], result["val/loss"]) == (whole["best_step"], whole["val/loss"])


@pytest.mark.slow
def test_another_monitor_keeps_the_best_checkpoint_until_a_better_one(composed, tmp_path):
    options = (*DIGITS, *RESTLESS, "trainer.max_epochs=3")
    before = fit.train(composed(*options))
    loss = ("callbacks.best_checkpoint.monitor=val/loss", "callbacks.best_checkpoint.mode=min")
    result = fit.train(composed(*options, *loss, f"resume={tmp_path}", "trainer.max_epochs=5"))
    assert_speaks_of_its_best_checkpoint(result, composed(*options), tmp_path)
    assert result["val/loss"] <= before["val/loss"]
    later = [float(row["val/loss"]) for row in rows_of(tmp_path) if int(row["step"]) > 60]
    assert result["val/loss"] == min([before["val/loss"], *later])


@pytest.mark.slow
def test_a_limit_of_no_test_batches_is_no_test(composed):
    result = fit.train(composed(*DIGITS, "trainer.max_epochs=1", "test=true", "trainer.limit_test_batches=0"))
    assert result["status"] == "finished"
    assert not [name for name in result if name.startswith("test/")]


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("+trainer.val_check_interval=21", "val_check_interval=21 is more than the 20 batches of an epoch"),
        ("~callbacks.last_checkpoint", "callbacks.last_checkpoint cannot be removed"),
        (
            "+callbacks.x={_target_:lightning.pytorch.callbacks.GradientAccumulationScheduler,scheduling:{0:2}}",
            "GradientAccumulationScheduler changes the steps of a run",
        ),
    ],
)
def test_what_a_run_cannot_do_is_refused_before_training(composed, tmp_path, option, told):
    with pytest.raises(UserError, match=told):
        fit.train(composed(*DIGITS, option))
    assert not (tmp_path / "metrics.csv").exists()


@pytest.mark.slow
def test_a_finished_run_is_not_overwritten_by_a_process_that_waited_for_it(composed, tmp_path):
    fit.train(composed(*DIGITS, "trainer.max_epochs=1"))
    before = (tmp_path / "result.json").read_bytes()
    with pytest.raises(UserError, match="holds a finished run"):
        fit.train(composed(*DIGITS, "trainer.max_epochs=1", "seed=7"))
    assert (tmp_path / "result.json").read_bytes() == before
