import logging
import os
import subprocess
import sys

import pytest
import yaml

from reslab.configuration import CONF
from reslab.text import LineFormatter, file_name, for_shell, printable, spreadsheet_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 猫 ± $x$", "plain é 猫 ± $x$"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\nb\rc\td\0", r"a\nb\rc\td\x00"),
        ("\x7f\x9b", r"\x7f\x9b"),
        ("a\u2028b\u202ec\u2066", r"a\u2028b\u202ec\u2066"),
        ("\ud800", r"\ud800"),
        (os.fsdecode(b"\xff"), "\udcff"),  # the byte of a file's name
    ],
)
def test_control_characters_become_escape_sequences(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "-1 "])
def test_what_a_spreadsheet_would_compute_gets_an_apostrophe(text):
    assert spreadsheet_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["-0.5", "+1", "-1e-05", "-inf", "-", "", "a=b", "resnet8", "0.1", "[1, -1]"])
def test_numbers_and_plain_texts_stay(text):
    assert spreadsheet_text(text) == text


@pytest.mark.parametrize(
    "text", ["plain", "it's", "a\nb", "\x1b[31mred", "it's \x07 \\ \\n", "é\x85", "a\u2028b", "a\udcffb"]
)
def test_an_argument_for_a_shell_is_printable_and_itself(text):
    shown = for_shell(text)
    assert printable(shown) == shown
    shell = subprocess.run(
        ["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"}
    )
    assert os.fsdecode(shell.stdout) == text


def test_the_file_of_a_picture_has_a_name_that_any_system_takes():
    assert file_name(12, "../a b\0:ü") == "0012_.._a_b_.png"
    assert len(file_name(0, "x" * 500)) == 69


def test_a_line_of_the_log_is_one_line_and_a_traceback_keeps_its_lines():
    try:
        raise ValueError("forged\x1b[2J")
    except ValueError:
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%s was read", ("a\nepoch 1",), sys.exc_info())
    first, *traceback = LineFormatter("%(message)s").format(record).split("\n")
    assert first == r"a\nepoch 1 was read"
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1] == r"ValueError: forged\x1b[2J"


def test_every_log_of_the_commands_has_printable_lines():
    files = sorted(CONF.glob("hydra/*_logging/*.yaml"))
    formatters = [each for file in files for each in yaml.safe_load(file.read_text())["formatters"].values()]
    assert [each["class"] for each in formatters] == ["reslab.text.LineFormatter"] * 4
