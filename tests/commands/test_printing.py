import sys

import pytest
from omegaconf import OmegaConf

from reslab.commands.printing import longer, next_steps, print_next_steps

LENGTH = {"max_epochs": 2, "max_steps": -1}


def config(**trainer):
    return OmegaConf.create({"trainer": LENGTH | trainer})


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["src/train.py", "--config-dir", "my conf"])
    (tmp_path / "src" / "reslab").mkdir(parents=True)
    for name in ("report", "predict", "evaluate", "train"):
        (tmp_path / "src" / f"{name}.py").touch()
    (tmp_path / "a run").mkdir()
    return {"folder": str(tmp_path / "a run"), "epochs": 2, "steps": 40}


def test_the_last_lines_are_commands_to_paste(result, tmp_path):
    steps = {name: line.partition("src/")[2] for name, line in next_steps(result, config()).items()}
    assert steps == {
        "report": "report.py 'a run'",
        "predict": "predict.py '--config-dir=my conf' 'a run' photo.jpg",
        "evaluate": "evaluate.py '--config-dir=my conf' 'a run'",
        "train on": "train.py '--config-dir=my conf' 'resume=a run' trainer.max_epochs=4",
    }
    (tmp_path / "a run" / "events.out.tfevents.1").touch()
    assert next_steps(result, config())["curves"].endswith("tensorboard --logdir 'a run'")


def test_no_line_is_broken_at_the_width_of_the_terminal(result, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    print_next_steps(result, config())
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10].strip() for line in lines] == ["report", "predict", "evaluate", "train on"]
    assert len(lines[3]) > 80


@pytest.mark.parametrize(
    ("trainer", "option"),
    [
        ({}, "trainer.max_epochs=4"),
        ({"max_steps": 40}, "trainer.max_steps=80"),
        ({"max_epochs": 9}, None),  # early stopping or trainer.max_time has ended the run
    ],
)
def test_a_run_can_train_on_where_its_length_has_ended_it(result, trainer, option):
    assert longer(result, config(**trainer)) == option
