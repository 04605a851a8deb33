from fake_runs import make_run

from reslab.reports.entries import read_entries
from reslab.reports.settings import differing_settings, rounded_text


def test_settings_that_a_choice_determines_are_left_out():
    settings = [
        {"model": "resnet8", "model.layers": [1, 1, 1], "model.dropout": 0.0, "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "resnet20", "model.layers": [3, 3, 3], "model.dropout": 0.1, "optimizer": "SGD", "optimizer.lr": 0.2},
        {"model": "resnet20", "model.layers": [3, 3, 3], "model.dropout": 0.0, "optimizer": "SGD", "optimizer.lr": 0.2},
    ]
    assert differing_settings(settings) == ["model", "model.dropout", "optimizer.lr"]
    assert differing_settings(settings[:2]) == ["model", "optimizer.lr"]
    assert differing_settings(settings[1:]) == ["model.dropout"]
    assert differing_settings([{"a": 1}, {}]) == ["a"]


def test_choices_have_the_name_of_their_group(tmp_path):
    make_run(tmp_path / "run", accuracy=0.5)
    assert read_entries([tmp_path])[0].settings == {
        "model": "resnet8", "model.layers": [1, 1, 1], "data": "digits", "data.batch_size": 64, "optimizer": "SGD",
        "optimizer.lr": 0.1, "optimizer.momentum": 0.9, "trainer.max_epochs": 2,
    }  # fmt: skip


def test_a_long_number_is_shown_with_four_digits():
    values = (0.00037960330329289693, 1e-05, 0.0001, 1024, 123456789, "a" * 30, True)
    assert [rounded_text(value) for value in values] == [
        "0.0003796", "1e-05", "0.0001", "1024", "123456789", "a" * 30, "true",
    ]  # fmt: skip
