"""Text that a user wrote, in figures of Matplotlib: literally, in fonts that have its characters, and not too long."""

import logging
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import matplotlib
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

log = logging.getLogger(__name__)

DEFAULT_FONT = "DejaVu Sans"  # Matplotlib brings it: Latin, Greek, Cyrillic, Arabic, Hebrew and others
FONT_PACKAGES = ("matplotlib_fontja", "manimgx_fonts")  # the extra `fonts`: Japanese, and 19 other scripts
PLACEHOLDERS = "Last Resort"  # a font that Matplotlib brings, with a box for every character


@contextmanager
def literal_text(*texts: str) -> Iterator[None]:
    """Draw every text as it is, with no formula between dollar signs, and in fonts that have the characters of `texts`.

    Texts keep these settings after the block.
    """
    families = [DEFAULT_FONT, *fonts_for("".join(texts))]
    with matplotlib.rc_context({"text.parse_math": False, "font.family": families}):
        yield


def fonts_for(text: str) -> list[str]:
    """Return families of fonts for the characters that Matplotlib's default font does not have.

    A character that no installed font has is left out; it is drawn as a box.
    """
    families = []
    missing = missing_characters(text)
    for entry in other_fonts() if missing else ():
        if found := missing & characters(entry.fname):
            families.append(entry.name)
            missing -= found
        if not missing:
            break
    return families


def missing_characters(text: str) -> set[int]:
    """Return the code points that are visible and that Matplotlib's default font does not have."""
    visible = {ord(character) for character in text if unicodedata.category(character)[0] not in "CZ"}
    return visible - characters(font_manager.findfont(DEFAULT_FONT))


def undrawable(texts: Iterable[str]) -> str:
    """Return the characters that no installed font has, each once, in the order of the texts."""
    text = "".join(texts)
    missing = missing_characters(text)
    for entry in other_fonts() if missing else ():
        missing -= characters(entry.fname)
    return "".join(dict.fromkeys(each for each in text if ord(each) in missing))


def report_undrawable(texts: Iterable[str], effect: str) -> None:
    """Warn in one line about characters that no installed font has; `effect` says what is shown in their place."""
    if characters := undrawable(texts):
        advice = "" if has_font_packages() else "; pip install 'reslab[fonts]' brings fonts for many scripts"
        log.warning("no installed font has %s: %s%s", shortened(characters, 20), effect, advice)


def has_font_packages() -> bool:
    """Return whether the extra `fonts` is installed."""
    return all(find_spec(package) for package in FONT_PACKAGES)


@cache
def other_fonts() -> list[font_manager.FontEntry]:
    """Return the upright fonts of regular weight: those of `FONT_PACKAGES`, and those of the system."""
    for package in FONT_PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for file in sorted(Path(folder).rglob("*.ttf")):
                font_manager.fontManager.addfont(file)
    return [
        entry
        for entry in reversed(font_manager.fontManager.ttflist)  # those of the packages were added last
        if entry.style == "normal" and entry.weight == 400 and not entry.name.startswith(PLACEHOLDERS)
    ]


@cache
def characters(path: str) -> frozenset[int]:
    """Return the code points that a font has; none if Matplotlib cannot draw it, as fonts of coloured emoji."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(font.get_charmap()) if font.scalable else frozenset()


def shortened(text: str, columns: int) -> str:
    """Return the beginning and the end of a text that is too long: similar names differ in one of them.

    Args:
        text: one line; a control character becomes a replacement character.
        columns: the largest width, in Latin characters. A Chinese, Japanese or Korean character is two of them wide.
    """
    clean = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(each) in ("Cc", "Cs") else each for each in text
    )
    if sum(map(width, clean)) <= columns:
        return clean
    beginning = beginning_of(clean, columns // 2)
    end = beginning_of(clean[::-1], columns - columns // 2 - 1)[::-1]
    while end and width(end[0]) == 0:  # a mark whose character had no room
        end = end[1:]
    return f"{beginning}…{end}"


def beginning_of(text: str, columns: int) -> str:
    """Return as many of the first characters as have room in some columns."""
    used = 0
    for place, character in enumerate(text):
        used += width(character)
        if used > columns:
            return text[:place]
    return text


def width(character: str) -> int:
    """Return the columns of a character on a terminal: 0 for a mark that combines with the character before it."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
