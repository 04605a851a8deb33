import logging
import math
from types import SimpleNamespace

import pytest
import torch

from reslab.training import fit, pace
from reslab.training.pace import Pace, batches_left, brief_duration, validations_in_epoch


class Clock:
    now = 100.0

    def perf_counter(self):
        return self.now


def trainer(**options):
    defaults = {
        "max_epochs": 10, "max_steps": -1, "current_epoch": 0, "global_step": 0, "num_training_batches": 20,
        "num_val_batches": [6], "val_check_batch": 20, "check_val_every_n_epoch": 1, "accumulate_grad_batches": 1,
        "is_last_batch": False, "state": SimpleNamespace(fn="fit"), "sanity_checking": False,
        "strategy": SimpleNamespace(root_device=torch.device("cpu")),
    }  # fmt: skip
    return SimpleNamespace(**(defaults | options))


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
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


def test_a_limit_of_time_shortens_the_estimate(clock):
    assert measured(clock, trainer(), 0.25, max_seconds=12.0).seconds_left == 12


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
