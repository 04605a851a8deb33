"""Texts in figures: nothing is a formula, a font has each character, and long names keep both ends."""

import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reslab import drawing
from reslab.drawing import fonts_for, literal_text, report_undrawable, shortened, undrawable

needs_fonts = pytest.mark.skipif(
    not all(map(find_spec, drawing.FONT_PACKAGES)), reason="the fonts are absent: pip install -e '.[fonts]'"
)


def drawn(text: str) -> np.ndarray:
    with literal_text(text):
        figure = Figure(figsize=(4, 1))
        figure.text(0.5, 0.5, text, ha="center")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


@needs_fonts
@pytest.mark.parametrize("text", ["日本語", "中文", "हिन्दी", "العربية", "ไทย", "עברית", "🐱", "Ελλάδα", "Привет"])
def test_a_script_is_drawn_without_boxes(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Matplotlib warns of each box
        picture = drawn(text)
    assert picture.min() < 128
    assert undrawable([text]) == ""


def test_latin_text_needs_no_other_font() -> None:
    assert fonts_for("résnet_20 $x^$ \u200d") == []


@pytest.mark.parametrize("text", ["a_$x^$", "$\\frac{$", "_hidden", "100 $ or 200 $", "\\$"])
def test_no_text_is_a_formula(text: str) -> None:
    with literal_text(text):
        figure = Figure(figsize=(2, 1))
        written = figure.text(0.5, 0.5, text)
    FigureCanvasAgg(figure).draw()  # outside the block; a wrong formula would raise ValueError
    assert written.get_parse_math() is False


def test_characters_without_a_font_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "other_fonts", lambda: [])
    assert undrawable(["cat", "語日本", "日"]) == "語日本"  # in the order of the names


@pytest.mark.parametrize("installed", [True, False])
def test_characters_that_no_font_has_are_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, installed: bool
) -> None:
    monkeypatch.setattr("reslab.drawing.other_fonts", list)
    monkeypatch.setattr("reslab.drawing.find_spec", lambda package: installed or None)
    report_undrawable(["cat", "日本"], "boxes")
    report_undrawable(["cat", "dog"], "boxes")
    (line,) = caplog.messages
    assert line.startswith("no installed font has 日本: boxes")
    assert ("pip install 'reslab[fonts]'" in line) is not installed


def test_each_missing_character_brings_one_font(monkeypatch: pytest.MonkeyPatch) -> None:
    covered = {"a.ttf": frozenset({0x65E5}), "b.ttf": frozenset({0x65E5}), "c.ttf": frozenset({0x672C})}
    default = drawing.characters
    monkeypatch.setattr(drawing, "characters", lambda path: covered.get(path) or default(path))
    monkeypatch.setattr(drawing, "other_fonts", lambda: [SimpleNamespace(fname=f, name=f[0]) for f in covered])
    assert fonts_for("x日本") == ["a", "c"]


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("resnet20", 20, "resnet20"),
        ("x" * 20, 20, "x" * 20),
        ("resnet110_stochastic_depth", 20, "resnet110_…tic_depth"),
        ("a" * 49 + "b" * 49, 20, "a" * 10 + "…" + "b" * 9),
        ("日本語日本語", 12, "日本語日本語"),
        ("日本語日本語", 11, "日本…本語"),
        ("हिन्दीहिन्दी", 20, "हिन्दीहिन्दी"),
        ("two\nlines\t", 20, "two\ufffdlines\ufffd"),
        ("byte \udcff", 20, "byte \ufffd"),
        ("", 20, ""),
    ],
)
def test_a_long_text_keeps_both_ends(text: str, columns: int, expected: str) -> None:
    assert shortened(text, columns) == expected
    assert sum(map(drawing.width, expected)) <= columns
