"""Text of unknown origin, made safe for a terminal, a page and a table."""

import re

# Control characters, which a terminal obeys; separators of lines; characters that reverse the direction of a text; and
# the surrogates that stand for no byte of a file's name.
UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet computes a cell that begins so


def printable(text: object) -> str:
    r"""Return a text of one line in which an escape sequence stands for each control character.

    Example:
        >>> printable("two\nlines")
        'two\\nlines'
    """
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def spreadsheet_text(text: str) -> str:
    """Return a cell of a table that a spreadsheet shows as it is: an apostrophe marks what looks like a formula.

    Source: OWASP, "CSV Injection". Numbers stay numbers.
    """
    return f"'{text}" if len(text) > 1 and text.startswith(FORMULA) and not is_number(text) else text


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
