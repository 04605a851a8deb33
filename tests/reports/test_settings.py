import json

from fake_runs import make_run

from reslab.reports.configurations import group_by_settings
from reslab.reports.entries import read_entries
from reslab.reports.settings import data_set, differing_settings, distinct_labels, rounded_text
from reslab.run import ABSENT


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


def test_the_settings_that_tell_most_are_first():
    grid = [{"mixup": 0.0, "trainer.max_epochs": epochs, "optimizer.lr": lr, "model": model, "freeze": False}
            for model in ("a", "b") for lr in (1, 2, 3) for epochs in (5, 9)]  # fmt: skip
    grid[0] |= {"mixup": 0.2}
    assert differing_settings(grid) == ["model", "optimizer.lr", "trainer.max_epochs", "mixup"]


def test_choices_have_the_name_of_their_group(tmp_path):
    make_run(tmp_path / "run", accuracy=0.5)
    settings = read_entries([tmp_path])[0].settings
    assert {name: value for name, value in settings.items() if name not in ABSENT} == {
        "model": "resnet8", "model.layers": [1, 1, 1], "data": "digits", "data.batch_size": 64, "loss": "cross_entropy",
        "optimizer": "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.9, "trainer.max_epochs": 2,
    }  # fmt: skip


def test_a_class_of_ones_own_makes_another_configuration(tmp_path):
    """It may have the name of another class, or be in the place of a model that keeps its name."""
    own = {"model": "mine.ResNet", "optimizer": "mine.SGD", "loss": "mine.cross_entropy"}
    make_run(tmp_path / "0", accuracy=0.5)
    for number, (group, name) in enumerate(own.items(), 1):
        options = {"loss": {"_target_": name}} if group == "loss" else {f"{group}___target_": name}
        make_run(tmp_path / str(number), accuracy=0.5, seed=number + 1, **options)
    entries = read_entries([tmp_path])
    assert len(group_by_settings(entries)) == 4
    assert sorted(differing_settings([entry.settings for entry in entries])) == ["loss", "model._target_", "optimizer"]
    shown = [entry.settings[name] for entry, name in zip(entries[1:], ("model._target_", *list(own)[1:]), strict=True)]
    assert shown == [*own.values()]


def test_an_option_that_is_newer_than_a_run_is_no_difference(tmp_path):
    make_run(tmp_path / "older", accuracy=0.5)
    make_run(tmp_path / "newer", accuracy=0.6, seed=2, model__classifier_bias=True, model__logit_scale=1, mixup=0)
    make_run(tmp_path / "other", accuracy=0.7, model__classifier_bias=False, model__logit_scale=1.0)
    entries = read_entries([tmp_path / "older", tmp_path / "newer"])
    assert differing_settings([entry.settings for entry in entries]) == []
    assert [len(configuration.entries) for configuration in group_by_settings(entries)] == [2]
    entries = read_entries([tmp_path])
    assert differing_settings([entry.settings for entry in entries]) == ["model.classifier_bias"]


def test_a_long_number_is_shown_with_four_digits():
    values = (0.00037960330329289693, 1e-05, 0.0001, 1024, 123456789, "a" * 30, True)
    assert [rounded_text(value) for value in values] == [
        "0.0003796", "1e-05", "0.0001", "1024", "123456789", "a" * 30, "true",
    ]  # fmt: skip


def test_a_run_that_was_resumed_for_longer_is_not_a_seed_of_the_others(tmp_path):
    for number in range(3):
        make_run(tmp_path / str(number), accuracy=0.5, seed=number)
    path = tmp_path / "2" / "result.json"
    requested = [{"step": 0, "trainer.max_epochs": 1}, {"step": 20, "trainer.max_epochs": 2}]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"requested": requested}))
    entries = read_entries([tmp_path])
    assert [len(configuration.entries) for configuration in group_by_settings(entries)] == [2, 1]
    assert differing_settings([entry.settings for entry in entries]) == ["resumed"]
    assert entries[2].settings["resumed"] == "max_epochs=1, from step 20 max_epochs=2"


def test_labels_name_only_what_differs():
    settings = [
        {"model": "resnet8", "model.weights": f"/home/me/weights/{name}.ckpt", "optimizer.lr": lr, "seed": 1}
        for name, lr in (("a", 0.1), ("b/c", 0.2))
    ]
    names = ["model", "model.weights", "optimizer.lr"]
    assert distinct_labels(settings, names) == ["weights=…/a.ckpt, lr=0.1", "weights=…/b/c.ckpt, lr=0.2"]
    assert distinct_labels(settings[:1], names) == ["resnet8"]
    same_end = [{"model.size": 1, "data.size": 2}, {"model.size": 2, "data.size": 1}]
    assert distinct_labels(same_end, ["model.size", "data.size"]) == [
        "model.size=1, data.size=2",
        "model.size=2, data.size=1",
    ]


def test_a_data_set_is_known_by_its_name_and_its_own_options():
    shared = {"data.batch_size": 64, "data.augment.flip": True, "data.background": [0, 0, 0], "data.val_fraction": 0.1}
    assert data_set({"data": "digits", "model": "resnet8"} | shared) == "digits"
    assert data_set({"data": "imagefolder", "data.root": "cats", "data.test_fraction": 0.2} | shared) == (
        "imagefolder root=cats test_fraction=0.2"
    )
    folds = {"data": "imagefolder", "data.root": "cats", "data.test_fraction": 0.2, "data.folds": 3}
    assert data_set(folds | shared) == "imagefolder folds=3 root=cats"
