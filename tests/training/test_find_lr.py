"""The range test: the rates that it tries, where it ends, what it suggests, and that it leaves no run behind."""

import csv
import math

import pytest
import torch
from conftest import run

from reslab.commands import train
from reslab.errors import RunError, UserError
from reslab.training.classifier import Classifier
from reslab.training.find_lr import HIGHEST, LOWEST, STEPS, Curve, draw, range_test, rate_at, suggested, write_curve
from reslab.training.options import TRAINING_SCHEMA

SMALL = (
    "model=resnet8", "model.widths=[4,8,8]", "data=digits", "trainer=cpu", "data.batch_size=32", "threads=1",
)  # fmt: skip


def curve_of(loss):
    rates = [rate_at(step) for step in range(STEPS)]
    return Curve(rates, [loss(rate) for rate in rates])


def test_the_rates_rise_by_one_factor():
    assert (rate_at(0), rate_at(STEPS - 1)) == (LOWEST, pytest.approx(HIGHEST))
    factors = [rate_at(step + 1) / rate_at(step) for step in range(STEPS - 1)]
    assert factors == pytest.approx([10 ** (7 / 99)] * (STEPS - 1))


def test_the_mean_has_no_bias_towards_zero():
    assert curve_of(lambda rate: 2.5).smoothed == pytest.approx([2.5] * STEPS)
    assert Curve([1.0, 2.0], [1.0, 3.0]).smoothed == pytest.approx([1.0, (0.9 * 1 + 3) / 1.9])


def test_the_suggestion_is_a_third_of_the_rate_where_the_mean_is_lowest():
    curve = curve_of(lambda rate: 2 - math.log10(rate / LOWEST) / 7 if rate < 0.1 else 5.0)
    assert curve.suggestion == pytest.approx(curve.rates[curve.smoothed.index(min(curve.smoothed))] / 3)
    assert 0.02 < curve.suggestion < 0.1
    assert suggested(curve) == float(f"{curve.suggestion:.1e}")
    with pytest.raises(RunError, match=r"did not fall at any learning rate from 1e-06 to 10"):
        suggested(curve_of(lambda rate: 2.0 + rate))


def test_the_test_ends_where_the_loss_is_four_times_its_lowest():
    assert not Curve([1.0, 2.0], [1.0, 1.0]).is_over
    assert Curve([1.0, 2.0], [1.0, 8.0]).is_over
    assert Curve([1.0, 2.0], [1.0, math.inf]).is_over


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("optimizer=adamw", "trainer.accumulate_grad_batches=2", "callbacks=ema")])
def test_a_network_is_tested_with_its_optimizer_and_without_its_schedule(composed, tmp_path, options):
    config = composed(*SMALL, *options, "scheduler=multi_step", "trainer.max_epochs=1", "find_lr=true")
    before = str(config)
    curve = range_test(config)
    assert str(config) == before
    assert curve.rates == [rate_at(step) for step in range(len(curve.rates))]
    assert curve.losses[0] == pytest.approx(2.6, abs=0.5)  # ten classes, and a rate that moves nothing
    assert 1e-4 < suggested(curve) < 1
    assert not (tmp_path / "checkpoints").exists()
    assert range_test(config) == curve


@pytest.mark.slow
def test_a_rate_at_which_everything_is_lost_ends_the_test(composed):
    curve = range_test(composed(*SMALL, "optimizer.momentum=0.99", "model.logit_scale=100", "data.batch_size=16"))
    assert len(curve.rates) < STEPS
    assert all(map(math.isfinite, curve.losses))


def test_a_first_loss_that_is_not_finite_is_one_line(composed, monkeypatch):
    monkeypatch.setattr(Classifier, "loss_and_sums", lose_everything)
    with pytest.raises(RunError, match=r"^the loss of the first step, at a learning rate of 1e-0., is not finite"):
        range_test(composed(*SMALL))


def lose_everything(self, images, labels, draw_mix):
    loss = self.network(self.preprocess(images)).sum() * math.nan
    return loss, self.train_metrics.of_batch(loss.detach(), torch.zeros(len(labels), len(self.classes)), labels)


def test_the_curve_is_a_table_and_a_picture(tmp_path):
    curve = curve_of(lambda rate: 2 - math.log10(rate / LOWEST) / 7)
    write_curve(curve, tmp_path)
    rows = list(csv.DictReader((tmp_path / "find_lr.csv").open()))
    assert [float(row["learning_rate"]) for row in rows] == curve.rates
    assert [float(row["mean_loss"]) for row in rows] == curve.smoothed
    assert (tmp_path / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    (axes,) = draw(curve).axes
    assert axes.get_legend_handles_labels()[1][-1] == f"suggestion: {suggested(curve):g}"


@pytest.mark.slow
def test_the_command_prints_a_line_to_paste_and_leaves_no_run(composed, tmp_path, monkeypatch, capsys):
    config = composed(*SMALL, "find_lr=true", f"outputs={tmp_path}/outputs")
    overrides = ["data=digits", "find_lr=true", "optimizer.lr=7"]
    monkeypatch.setattr("reslab.commands.printing.task_overrides", lambda: overrides)
    torch.manual_seed(0)
    train.run_train(config)
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["train"].endswith(f" data=digits {lines['suggests']}")
    assert "find_lr" not in lines["train"].rpartition("train.py")[2]
    assert sorted(path.name for path in (tmp_path / "outputs").rglob("*.*")) == ["find_lr.csv", "find_lr.png"]


def test_the_rates_of_a_run_that_continues_are_not_tested(composed):
    config = composed("find_lr=true", "resume=there")
    with pytest.raises(UserError, match=r"find_lr=true tests the rates of a new run: leave out resume="):
        TRAINING_SCHEMA.check(config)


@pytest.mark.slow
def test_the_command_writes_nothing_else(tmp_path):
    done = run("train", *SMALL, "find_lr=true", cwd=tmp_path)
    assert done.returncode == 0
    (folder,) = (tmp_path / "outputs" / "find_lr").iterdir()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {folder / "find_lr.csv", folder / "find_lr.png"}
