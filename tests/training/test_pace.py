import logging
import math
from types import SimpleNamespace

import pytest
import torch

from reslab.training import fit, limits, pace
from reslab.training.limits import TrainingLimits
from reslab.training.pace import Pace, batches_left, brief_duration, ends_by_steps, validations_in_epoch


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now

    monotonic = perf_counter


def trainer(**options):
    defaults = {
        "max_epochs": 10, "max_steps": -1, "current_epoch": 0, "global_step": 0, "num_training_batches": 20,
        "num_val_batches": [6], "val_check_batch": 20, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1,
        "is_last_batch": False, "state": SimpleNamespace(fn="fit"), "sanity_checking": False,
        "strategy": SimpleNamespace(root_device=torch.device("cpu")), "callbacks": [TrainingLimits(-1, None)],
    }  # fmt: skip
    return SimpleNamespace(**(defaults | options))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(limits, "time", clock)
    return clock


def measured(clock, trainer, seconds, batches=5, **options):
    """Return a Pace that has seen batches of this length, after a first one that took a minute."""
    made = Pace(logging.INFO, **options)
    made.on_train_start(trainer, None)
    clock.now += 60
    for number in range(batches + 1):
        made.on_train_batch_end(trainer, None, None, None, number)
        clock.now += seconds
    return made


def test_the_first_estimate_counts_validation_as_forward_passes(clock):
    made = measured(clock, trainer(), 0.25)
    assert made.seconds_left == pytest.approx((200 - 6) * 0.25 + (200 - 6) / 20 * 6 * 0.25 / 3)
    double = measured(clock, trainer(), 0.25, forward_passes=2)
    assert double.seconds_left - made.seconds_left == pytest.approx((200 - 6) / 20 * 6 * 0.25 / 3)


def test_a_measured_validation_replaces_the_estimated_one(clock):
    made = measured(clock, trainer(), 0.25)
    made.on_validation_start(trainer(), None)
    clock.now += 30
    made.on_validation_end(trainer(), None)
    made.on_train_batch_end(trainer(), None, None, None, 6)
    assert made.seconds_left == pytest.approx((200 - 7) * 0.25 + (200 - 7) / 20 * 30)


def limit_of(clock, seconds, gone):
    """Return a limit of time in a run that was resumed after some seconds."""
    limit = TrainingLimits(-1, seconds)
    limit.load_state_dict({"seconds": gone})
    limit.started = clock.now
    return limit


@pytest.mark.parametrize("gone", [0.0, 480.0])
def test_the_time_that_has_gone_counts_in_the_limit(clock, caplog, gone):
    caplog.set_level(logging.INFO, "reslab")
    # The first batch takes a minute, and nine take half a minute each.
    of_run = trainer(max_epochs=60, callbacks=[limit_of(clock, 600.0 + gone, gone)])
    made = measured(clock, of_run, 30, batches=9, max_seconds=600.0 + gone)
    assert made.seconds_left == 600 - 60 - 9 * 30
    assert caplog.messages == ["60 epochs: about 11.0 h; trainer.max_time ends the run in 8 min"]
    clock.now += 1000  # a validation; the limit is obeyed after the next optimizer step
    made.on_train_batch_end(of_run, None, None, None, 10)
    assert made.seconds_left == 0


def test_a_limit_of_time_that_comes_later_is_not_mentioned(clock, caplog):
    caplog.set_level(logging.INFO, "reslab")
    made = measured(clock, trainer(callbacks=[limit_of(clock, 3600.0, 0.0)]), 0.5, max_seconds=3600.0)
    assert made.seconds_left == pytest.approx((200 - 6) * 0.5 + (200 - 6) / 20 * 6 * 0.5 / 3)
    assert caplog.messages == ["10 epochs: about 2 min"]


def test_a_run_whose_time_is_up_has_no_estimate(clock, caplog):
    caplog.set_level(logging.INFO, "reslab")
    limit = limit_of(clock, 61.0, 0.0)
    limit.time_is_up = True
    measured(clock, trainer(max_steps=2, callbacks=[limit]), 0.5, max_seconds=61.0)
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 195),
        ({"current_epoch": 3}, 135),
        ({"max_steps": 40, "global_step": 5}, 35),
        ({"max_steps": 40, "global_step": 5, "accumulate_grad_batches": 2}, 70),
        ({"max_epochs": -1, "max_steps": 40, "global_step": 41}, 0),
    ],
)
def test_the_batches_that_are_left(options, left):
    assert batches_left(trainer(**options), 5) == left


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1),
        ({"val_check_batch": 5}, 4),
        ({"check_val_every_n_epoch": 2}, 0.5),
        ({"num_val_batches": []}, 0),
        ({"val_check_batch": math.inf}, 0),
    ],
)
def test_the_validations_of_an_epoch(options, count):
    assert validations_in_epoch(trainer(**options)) == count


@pytest.mark.parametrize(
    ("seconds", "line"),
    [
        (0.5, "10 epochs: about 2 min"),
        (60, "10 epochs: about 3.6 h on this CPU; a GPU, a smaller model or a smaller trainer.max_epochs takes less"),
    ],
)
def test_the_estimate_is_one_line(clock, caplog, seconds, line):
    caplog.set_level(logging.INFO, "reslab")
    measured(clock, trainer(), seconds)
    assert caplog.messages == [line]


def test_a_resumed_run_says_which_epochs_it_trains(clock, caplog):
    caplog.set_level(logging.INFO, "reslab")
    measured(clock, trainer(current_epoch=7), 1.0)
    assert caplog.messages == ["epochs 8 to 10: about 64 s"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "10 epochs"),
        ({"max_epochs": 1}, "1 epoch"),
        ({"current_epoch": 9}, "epoch 10"),
        ({"max_steps": 100_000}, "10 epochs"),
        ({"max_steps": 200}, "10 epochs"),
        ({"max_steps": 199}, "199 steps"),
        ({"max_steps": 100, "accumulate_grad_batches": 3}, "10 epochs"),  # of seven steps each
        ({"max_steps": 69, "accumulate_grad_batches": 3}, "69 steps"),
        ({"max_steps": 64_000, "max_epochs": -1}, "64,000 steps"),
        ({"max_steps": 199, "current_epoch": 7, "global_step": 140}, "steps 141 to 199"),
        ({"max_steps": 199, "current_epoch": 9, "global_step": 198}, "step 199"),
    ],
)
def test_the_estimate_names_the_limit_that_comes_first(clock, caplog, options, named):
    caplog.set_level(logging.INFO, "reslab")
    measured(clock, trainer(**options), 1.0)
    assert caplog.messages[0].partition(":")[0] == named
    assert ends_by_steps(trainer(**options)) is ("step" in named)


def test_advice_on_a_long_run_names_the_limit_that_comes_first(clock, caplog):
    caplog.set_level(logging.INFO, "reslab")
    measured(clock, trainer(max_steps=199), 60)
    assert caplog.messages[0].endswith("a smaller trainer.max_steps takes less")


def test_durations_have_the_unit_that_suits_them():
    assert [brief_duration(seconds) for seconds in (0.3, 25.2, 754, 12_600, 400_000)] == [
        "1 s", "25 s", "13 min", "3.5 h", "4.6 days",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_run_announces_how_long_it_takes_once(composed, caplog):
    caplog.set_level(logging.INFO, "reslab")
    fit.train(composed("model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "test=false", "logger=none"))
    lines = [each.getMessage() for each in caplog.records if each.name == "reslab.training.pace"]
    assert len(lines) == 1
    assert lines[0].startswith("2 epochs: about ")
