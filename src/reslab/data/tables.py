"""Tables in files: CSV, TSV and Parquet with named columns, and lists of a path and a label per line."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from reslab.data.images import SUFFIXES, suffix_of
from reslab.errors import UserError
from reslab.text import counted

# What the columns are called, in lower case and with underscores. Of several, the first one here counts.
COLUMNS = {
    "path": (
        "path", "filepath", "file_path", "filepaths", "image_path", "img_path", "filename", "file_name", "file",
        "image_file", "image_name", "img_name", "image", "img", "image_id", "img_id", "id",
    ),
    "label": (
        "label", "labels", "class", "class_name", "classname", "class_label", "category", "target", "y", "species",
        "label_name", "class_id", "label_id", "category_id",
    ),
    "split": ("split", "data_set", "dataset", "set", "subset", "partition", "phase"),
    "group": ("group",),
}  # fmt: skip
PARQUET = (".parquet", ".pq")
OTHERS = (".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".xml", ".yaml", ".yml", ".pkl", ".npy", ".feather")
FORMATS = "a labels file is a table (CSV, TSV, Parquet) or a list of paths and labels"
DELIMITERS = ",;\t"
BAR = "|"


class Column(NamedTuple):
    """A column of a table: its name, None where the file does not name it, and its values."""

    name: str | None
    values: list[str]


def read_table(file: Path) -> list[Column]:
    """Return the columns of a file. Raise UserError if it is no table, or has no row."""
    if file.suffix.lower() in OTHERS:
        raise UserError(f"{file} is of another format: {FORMATS}")
    columns = read_parquet(file) if file.suffix.lower() in PARQUET else read_lines(file)
    if not columns:
        raise UserError(f"{file} is empty: a labels file has a line for each image")
    return columns


def read_lines(file: Path) -> list[Column]:
    """Return the columns of a text file: a table with a delimiter, or a list of a path and a label per line."""
    text = decoded(file)
    all_lines = re.split("\r\n|\r|\n", text)  # str.splitlines also splits at U+2028, which a name may have
    first = next((line for line in all_lines if line.strip()), "")
    if not first:
        return []
    if delimiter := delimiter_of(first, file):
        return columns_of(csv_rows(text, delimiter, file), file)
    lines = ((number, line.rsplit(None, 1)) for number, line in enumerate(all_lines, 1))
    return columns_of(lines, file, names_columns=plain_name(first.split()[0]) in COLUMNS["path"])


def delimiter_of(first: str, file: Path) -> str | None:
    """Return the delimiter of a table, given its first line; None for a list of a path and a label per line.

    A | may also join labels. It is the delimiter where the line has no other one and a path stands alone beside it.
    """
    cells = {each: next(csv_rows(first, each, file, strict=False))[1] for each in DELIMITERS + BAR}
    widest = max(DELIMITERS, key=lambda each: len(cells[each]))
    if len(cells[widest]) > 1 or plain_name(first) in COLUMNS["path"]:
        return widest
    names_path = any(suffix_of(cell.strip()) in SUFFIXES or plain_name(cell) in COLUMNS["path"] for cell in cells[BAR])
    return BAR if len(cells[BAR]) > 1 and names_path else None


def decoded(file: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark, as spreadsheets write it."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file} is not text in UTF-8 (line {line}): save it as UTF-8") from error
    if "\0" in text:
        raise UserError(f"{file} is not text: {FORMATS}")
    return text


def csv_rows(text: str, delimiter: str, file: Path, strict: bool = True) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line and its values. Raise UserError for wrong quotes, unless `strict` is false."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict, skipinitialspace=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise UserError(f"{file} is not a table (line {reader.line_num}: {error})") from error


def columns_of(rows: Iterator[tuple[int, list[str]]], file: Path, names_columns: bool | None = None) -> list[Column]:
    """Return the columns of some rows.

    Args:
        rows: the number of a line and its values; a line without values does not count.
        file: where they are from, for messages.
        names_columns: whether the first row names the columns; None: if it does not have the path of an image.
    """
    rows = ((line, [cell.strip() for cell in cells]) for line, cells in rows if any(map(str.strip, cells)))
    _, first = next(rows, (0, []))
    if names_columns is None:
        names_columns = not any(suffix_of(cell) in SUFFIXES for cell in first)
    columns = [Column(cell, []) if names_columns else Column(None, [cell]) for cell in first]
    for line, cells in rows:
        if len(cells) != len(columns):
            raise UserError(
                f"{file}: line {line} has {counted(len(cells), 'value')} and the first line has {len(columns)}: put a "
                "value with a delimiter in it into quotes"
            )
        for column, cell in zip(columns, cells, strict=True):
            column.values.append(cell)
    return columns


def read_parquet(file: Path) -> list[Column]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{file} needs pyarrow: pip install pyarrow, or save the table as CSV") from error
    try:
        table = parquet.read_table(file)
    except Exception as error:  # pyarrow has many kinds of errors
        raise UserError(f"{file} is not a Parquet file: {' '.join(str(error).split())}") from error
    return [
        Column(name, ["" if value is None else str(value).strip() for value in table.column(name).to_pylist()])
        for name in table.column_names
    ]


def plain_name(name: str) -> str:
    return re.sub(r"[\s\-]+", "_", name.strip().lower())
