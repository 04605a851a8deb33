"""Tables with one row per image, written part by part: a .csv or a .parquet file."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reslab.errors import UserError
from reslab.files import written_in_parts
from reslab.text import spreadsheet_text, valid_text

ROW_GROUP_BYTES = 32 << 20  # of a Parquet file; they are held until the group is written
PATH, TRUE, PREDICTED, PROBABILITY, LOSS = "path", "true_class", "predicted_class", "probability", "loss"

Column = Sequence[str] | Tensor  # texts, or float32 (N,)
Columns = Mapping[str, Column]  # by name, in their order
Write = Callable[[Columns], None]


def probability_columns(classes: Sequence[str], probabilities: Tensor) -> dict[str, Tensor]:
    """Return one column per class, whose name is no other column's and no formula.

    Args:
        classes: the names of the classes.
        probabilities: float32 (N, num_classes).

    Example:
        >>> list(probability_columns(["cat", "=1+1"], Tensor([[0.9, 0.1]])))
        ['probability:cat', 'probability:=1+1']
        >>> list(probability_columns(["cat", "cat"], Tensor([[0.9, 0.1]])))
        ['probability:0:cat', 'probability:1:cat']
    """
    names = [valid_text(name) for name in classes]
    if len({*names}) < len(names):
        names = [f"{label}:{name}" for label, name in enumerate(names)]
    return dict(zip([f"{PROBABILITY}:{name}" for name in names], probabilities.T.contiguous(), strict=True))


def table_file(path: Path, option: str = "output") -> AbstractContextManager[Write]:
    """Write a table to a .csv or a .parquet file. The file is there at the end of the block, or not at all.

    Args:
        path: the file.
        option: the option that names it.

    Returns:
        A context manager that yields a function, which adds rows, given as columns. All rows have the same columns.

    Raises:
        UserError: the file cannot be written, or pyarrow is missing.
    """
    return written_in_parts(path, parquet_file if path.suffix == ".parquet" else csv_file, option)


def require_writer(path: Path) -> None:
    """Raise UserError if what writes a table is missing."""
    if path.suffix == ".parquet":
        import_pyarrow()


def import_pyarrow() -> tuple[Any, Any]:
    """Return the modules pyarrow and pyarrow.parquet."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError("a .parquet file needs pyarrow: pip install pyarrow, or name a .csv file") from error
    return pyarrow, parquet


@contextmanager
def csv_file(path: Path) -> Iterator[Write]:
    """Write CSV. A text that a spreadsheet would take for a formula has an apostrophe before it.

    A number has nine digits, from which its float32 can be read back.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer, has_header = csv.writer(Returned()), False

        def write(columns: Columns) -> None:
            nonlocal has_header
            if not has_header:
                file.write(writer.writerow(map(spreadsheet_text, columns)))
                has_header = True
            first, numbers = split_columns([*columns.values()])
            # csv.writer itself would write 17 digits, and take 2.5 times as long for a thousand classes.
            form = ",%.9g" * numbers.shape[1] + "\r\n"
            for texts, row in zip(zip(*map(cells, first), strict=True), numbers, strict=True):
                file.write(writer.writerow(texts).removesuffix("\r\n") + form % tuple(row.tolist()))

        yield write


class Returned:
    """A file that returns what is written, as `csv.writer` then does."""

    def write(self, text: str) -> str:
        return text


def split_columns(columns: Sequence[Column]) -> tuple[Sequence[Column], Tensor]:
    """Return the first columns, and those after them that are all numbers, float32 (N, M)."""
    count = len(columns)
    while count > 1 and isinstance(columns[count - 1], Tensor):
        count -= 1
    numbers = [column for column in columns[count:] if isinstance(column, Tensor)]
    return columns[:count], torch.stack(numbers, 1) if numbers else torch.empty(len(columns[0]), 0)


def cells(column: Column) -> list[str]:
    if isinstance(column, Tensor):
        return [f"{number:.9g}" for number in column.tolist()]
    return [spreadsheet_text(valid_text(text)) for text in column]


@contextmanager
def parquet_file(path: Path) -> Iterator[Write]:
    """Write Parquet, in row groups, with texts as they are and numbers as float32."""
    pyarrow, parquet = import_pyarrow()
    with ExitStack() as stack:
        waiting, waiting_bytes, writer = list[Any](), 0, None

        def write_waiting() -> None:
            nonlocal writer, waiting_bytes
            table = pyarrow.concat_tables(waiting)
            if writer is None:
                texts = [column.name for column in table.schema if column.type == pyarrow.string()]
                writer = stack.enter_context(parquet.ParquetWriter(path, table.schema, use_dictionary=texts))
            writer.write_table(table)
            waiting.clear()
            waiting_bytes = 0

        def write(columns: Columns) -> None:
            nonlocal waiting_bytes
            waiting.append(pyarrow.table({name: array(column) for name, column in columns.items()}))
            waiting_bytes += waiting[-1].nbytes
            if waiting_bytes >= ROW_GROUP_BYTES:
                write_waiting()

        yield write
        if waiting:
            write_waiting()


def array(column: Column) -> Any:
    """Return a column as pyarrow takes it."""
    return column.numpy() if isinstance(column, Tensor) else [valid_text(text) for text in column]
