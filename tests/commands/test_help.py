import importlib
import os
import platform
from importlib.metadata import PackageNotFoundError

import pytest

from reslab.commands import help as help_module
from reslab.commands.help import CHOICES, asks_for_help, choices, help_text, version_text
from reslab.commands.main import COMMANDS
from reslab.configuration import CONF


def test_the_choices_are_those_of_conf_and_of_the_users_own_folders(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").touch()
    (tmp_path / "model" / "_base.yaml").touch()
    line = next(line for line in choices(["--config-dir", str(tmp_path)]) if line.startswith("model: "))
    names = line.removeprefix("model: ").split(", ")
    assert names == sorted([*(file.stem for file in (CONF / "model").glob("[!_]*.yaml")), "mine"])
    assert "mine" not in "".join(choices([]))


def test_the_choices_fit_the_terminal(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
    lines = help_text(f"Choices:\n{CHOICES}\n\nEnd\n", []).splitlines()
    assert lines[0] == "Choices:"
    assert lines[-1] == "End"
    assert max(map(len, lines)) <= 60
    joined = " ".join(line.strip() for line in lines)
    assert all(line in joined for line in choices([]))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns(monkeypatch, name):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    text = importlib.import_module(f"reslab.commands.{name}").HELP
    assert [line for line in help_text(text, []).splitlines() if len(line) > 80] == []


def test_help_may_stand_anywhere_on_the_command_line():
    assert asks_for_help(["model=resnet18", "-h"])
    assert asks_for_help(["--help"])
    assert not asks_for_help(["--hydra-help", "model=-h"])


def test_the_version_names_what_a_report_of_a_fault_needs(monkeypatch):
    def version(name):
        if name == "lightning":
            raise PackageNotFoundError
        return {"reslab": "0.1"}.get(name, "2.0")

    monkeypatch.setattr(help_module, "version", version)
    assert version_text() == (
        "reslab 0.1; torch 2.0, torchvision 2.0, lightning (not installed), hydra-core 2.0, "
        f"Python {platform.python_version()}"
    )
