import json
import logging

import numpy as np
import pytest
import torch
from hydra import compose
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support
from torchvision.io import write_png

from reslab.commands.printing import print_evaluation
from reslab.errors import UserError
from reslab.inference.evaluation import class_table, evaluate
from reslab.training import fit


@pytest.fixture
def run(composed, trained):
    """Evaluate the trained digits as src/evaluate.py does. `composed` starts Hydra."""
    return lambda *overrides: evaluate(compose("evaluate", [f"checkpoint={trained.folder}", "trainer=cpu", *overrides]))


@pytest.fixture
def renamed(trained, tmp_path):
    """The options of an image folder that holds the test digits, with classes called d0 to d9."""
    for index, (image, label) in enumerate(zip(trained.images, trained.labels.tolist(), strict=True)):
        (tmp_path / "train" / f"d{label}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "test" / f"d{label}").mkdir(parents=True, exist_ok=True)
        write_png(image, str(tmp_path / "test" / f"d{label}" / f"{index}.png"))
    return ("data=imagefolder", f"data.root={tmp_path}", "data.image_size=8", "data.num_workers=0")


def assert_classes(table, true, predicted, names):
    assert [row["class"] for row in table] == names
    scores = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=0)
    for name, expected in zip(("precision", "recall", "f1", "images"), scores, strict=True):
        assert [row[name] for row in table] == pytest.approx(expected.tolist())


def test_the_class_table_is_sklearns():
    generator = np.random.default_rng(0)
    true, predicted = (
        generator.integers(0, 4, 200),
        generator.integers(1, 5, 200),
    )  # 0 is never predicted, 4 never occurs
    table = class_table(torch.from_numpy(confusion_matrix(true, predicted, labels=range(6))), list("abcdef"))
    assert_classes(table, true, predicted, list("abcdef"))
    assert table[5] == {"class": "f", "images": 0, "precision": 0, "recall": 0, "f1": 0}


def test_evaluation_repeats_the_runs_test(run, trained, tmp_path):
    result = run(f"output={tmp_path}/evaluation.json")
    assert result["metrics"] == {name: value for name, value in trained.result.items() if name.startswith("test/")}
    assert result["metrics"]["test/accuracy"] == pytest.approx(
        accuracy_score(trained.labels, trained.probabilities.argmax(1))
    )
    assert result["images"] == 359
    assert_classes(result["classes"], trained.labels, trained.probabilities.argmax(1), list("0123456789"))
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result


def test_evaluation_uses_the_precision_of_the_run_unless_one_is_given(run, trained):
    repeated = {name: value for name, value in trained.result.items() if name.startswith("test/")}
    assert run("trainer.precision=32-true")["metrics"] == repeated
    assert run("trainer.precision=bf16-mixed")["metrics"]["test/loss"] != repeated["test/loss"]


def test_the_table_on_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    row = {"class": "a [b] :cat:", "images": 1200.0, "precision": 0.5, "recall": 0.25, "f1": 1 / 3}
    print_evaluation({"data": "pets", "images": 1200, "metrics": {"test/accuracy": 0.25}, "classes": [row]})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "pets: 1,200 test images"
    assert [cell.strip() for cell in lines[4].strip("│").split("│")] == [
        "a [b] :cat:", "1200", "0.5000", "0.2500", "0.3333",
    ]  # fmt: skip
    assert lines[-1].split() == ["test/accuracy", "0.2500"]


def test_renamed_classes_are_tested_with_a_warning(run, renamed, trained, caplog):
    with caplog.at_level(logging.WARNING, logger="reslab"):
        result = run(*renamed)
    assert "other names than in training: d0, d1" in caplog.text
    assert result["metrics"] == pytest.approx(
        {name: value for name, value in trained.result.items() if name.startswith("test/")}, rel=1e-4
    )
    assert [row["class"] for row in result["classes"]] == list("0123456789")  # the names of training


def test_another_number_of_classes_is_one_line(run):
    with pytest.raises(UserError, match=r"knows 10 classes and data=synthetic has 7$"):
        run("data=synthetic", "data.num_classes=7", "data.num_images=70")


def test_no_test_set_is_one_line(run, renamed, tmp_path):
    (tmp_path / "test").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="data=imagefolder has no test set in"):
        run(*renamed)


def test_a_data_set_that_moved_is_found_at_root(composed, digit_files, tmp_path):
    (tmp_path / "then").symlink_to(digit_files[0].parents[1])
    config = composed(
        "model=resnet8", "trainer=cpu", "data=imagefolder", f"data.root={tmp_path}/then", "data.image_size=8",
        "data.num_workers=0", "trainer.max_epochs=1", "logger=none",
    )  # fmt: skip
    result = fit.train(config)
    (tmp_path / "then").rename(tmp_path / "now")
    options = [f"checkpoint={tmp_path}", "trainer=cpu"]
    with pytest.raises(UserError, match=r"there is no folder .*then: set data\.root"):
        evaluate(compose("evaluate", options))
    again = evaluate(compose("evaluate", [*options, f"root={tmp_path}/now"]))
    assert again["metrics"] == {name: result[name] for name in again["metrics"]}
