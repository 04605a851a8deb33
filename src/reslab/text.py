"""Text of unknown origin, made safe for a terminal, a page, a table and the name of a file; and counts in words."""

import logging
import re
import shlex
from typing import Any

# Control characters, which a terminal obeys; separators of lines; characters that reverse the direction of a text; and
# the surrogates that stand for no byte of a file's name.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")
SURROGATES = re.compile("[\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet computes a cell that begins so


def counted(count: int, noun: str) -> str:
    """Return a count and its noun.

    Example:
        >>> counted(1, "image"), counted(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_order(digits: str) -> tuple[int, str]:
    """Return a sorting key that orders whole numbers by size: of two numbers, the one with more digits is larger.

    `int` does not take more than 4,300 digits.
    """
    plain = "".join(str(int(digit)) for digit in digits).lstrip("0")
    return len(plain), plain


def printable(text: object) -> str:
    r"""Return a text of one line in which an escape sequence stands for each control character.

    Example:
        >>> printable("two\nlines")
        'two\\nlines'
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def valid_text(text: str) -> str:
    r"""Return a text that can be encoded, in which an escape sequence stands for each byte of a name that is no text.

    Example:
        >>> valid_text("a\udcff.png")
        'a\\xff.png'
    """
    return SURROGATES.sub(escaped_surrogate, text)


def visible(text: object) -> str:
    """Return a text of one line that can be encoded: `printable` and `valid_text` in one."""
    return valid_text(printable(text))


def escaped_surrogate(found: re.Match[str]) -> str:
    number = ord(found[0])
    return rf"\x{number - 0xDC00:02x}" if 0xDC80 <= number <= 0xDCFF else rf"\u{number:04x}"


class LineFormatter(logging.Formatter):
    """Formats a message as one printable line, so that no name of a file can look like a line of its own.

    A traceback keeps its lines.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return printable(super().formatMessage(record).expandtabs())  # Hydra's own messages have tabs

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


def for_shell(argument: str) -> str:
    r"""Return an argument as a shell takes it, printable.

    Example:
        >>> print(for_shell("resume=it's"), for_shell("two\nlines"))
        'resume=it'"'"'s' $'two\u000alines'
    """
    if not UNSAFE.search(argument) and not SURROGATES.search(argument):
        return shlex.quote(argument)
    escaped = argument.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + valid_text(UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", escaped)) + "'"


def spreadsheet_text(text: str) -> str:
    """Return a cell of a table that a spreadsheet shows as it is: an apostrophe marks what looks like a formula.

    Source: OWASP, "CSV Injection". Numbers stay numbers.
    """
    return f"'{text}" if len(text) > 1 and text.startswith(FORMULA) and not is_number(text) else text


def file_name(number: int, name: str) -> str:
    """Return the name of a picture's file, which any system takes. No two numbers have the same.

    Example:
        >>> file_name(3, "T-shirt/top")
        '0003_T-shirt_top.png'
    """
    return f"{number:04}_{re.sub('[^A-Za-z0-9.-]+', '_', name)[:60]}.png"


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
