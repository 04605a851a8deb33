import os

import pytest

from reslab.text import printable, spreadsheet_text


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
