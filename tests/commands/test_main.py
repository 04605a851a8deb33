"""The console command `reslab`."""

import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONF

from reslab.commands.main import COMMANDS, USAGE, main
from reslab.interruption import ENDING_SIGNALS

RESLAB = [sys.executable, "-c", "from reslab.commands.main import main; main()"]


@pytest.fixture(autouse=True)
def own_handlers():
    """A command installs handlers of signals in its process, which is that of the tests here."""
    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def answer(capsys, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["reslab", *arguments])
    status = 0
    try:
        main()
    except SystemExit as stopped:
        status = stopped.code
    shown = capsys.readouterr()
    return status, shown.out, shown.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_usage_lists_every_command(capsys, monkeypatch, arguments):
    status, out, err = answer(capsys, monkeypatch, *arguments)
    assert (status, err) == (0, "")
    assert re.findall(r"^  (\w+)", out, re.MULTILINE) == list(COMMANDS)
    scripts = {path.stem for path in (CONF.parent / "src").glob("*.py")}
    assert scripts == set(COMMANDS)  # python src/<command>.py is the same


def test_the_package_is_the_command_too(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["reslab", "--help"])
    runpy.run_module("reslab", run_name="__main__", alter_sys=False)
    assert capsys.readouterr().out == USAGE + "\n"


def test_a_mistyped_command_is_one_line(capsys, monkeypatch):
    assert answer(capsys, monkeypatch, "trian") == (2, "", "error: there is no command trian: did you mean train?\n")


def test_a_python_without_the_packages_is_one_line(monkeypatch, capsys):
    absent = ("hydra", "torch")
    monkeypatch.setattr("reslab.commands.main.find_spec", lambda name: None if name in absent else name)
    status, out, err = answer(capsys, monkeypatch, "train")
    assert (status, out) == (2, "")
    assert err == (
        f"error: this Python, {sys.executable}, does not have hydra, torch: activate the environment in which ResLab "
        "is installed (. .venv/bin/activate), or install it (make .venv/installed)\n"
    )


def test_a_command_gets_its_arguments_and_its_file_as_the_script(monkeypatch, capsys):
    before = ["reslab", "report", "nowhere"]
    monkeypatch.setattr("reslab.commands.report.report", lambda folders: print(folders, Path(sys.argv[0]).name))
    assert answer(capsys, monkeypatch, *before[1:]) == (0, "['nowhere'] report.py\n", "")
    assert sys.argv == before


@pytest.mark.slow
def test_the_help_of_a_command_is_that_of_its_script():
    by_name = subprocess.run([*RESLAB, "train", "--help"], capture_output=True, text=True, check=True)
    by_file = subprocess.run(
        [sys.executable, CONF.parent / "src" / "train.py", "--help"], capture_output=True, text=True, check=True
    )
    assert by_name.stdout == by_file.stdout
    assert "resnet20" in by_name.stdout


@pytest.mark.parametrize(
    "command",
    [*([sys.executable, CONF.parent / "src" / f"{name}.py"] for name in COMMANDS), [*RESLAB, "train"],
     [sys.executable, CONF.parent / "src" / "reslab" / "commands" / "train.py"]],
    ids=[*COMMANDS, "reslab train", "a further process"],
)  # fmt: skip
def test_ctrl_c_while_modules_are_imported_is_one_line(tmp_path, command):
    """The first module that takes long to import presses it."""
    (tmp_path / "omegaconf.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    path = os.pathsep.join([str(tmp_path), str(CONF.parent / "src")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted (SIGINT)\n")
