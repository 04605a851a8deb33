import csv
import doctest
import sys

import pytest
import torch
from pyarrow import parquet

from reslab.errors import UserError
from reslab.inference import tables
from reslab.inference.tables import probability_columns, require_writer, table_file

NAMES = [
    "path",
    "true_class",
    "loss",
    "probability",
    "=1+1",
    "@a",
    "-2",
    "+",
    "cat",
    "猫",
    "a\nb",
    "probability:cat",
    "",
]


def test_the_example():
    assert doctest.testmod(tables) == (0, 2)


def test_a_class_of_any_name_has_a_column_of_its_own():
    columns = {"path": ["a.png"], "loss": torch.ones(1)} | probability_columns(NAMES, torch.rand(1, len(NAMES)))
    assert len(columns) == 2 + len(NAMES)
    assert not any(name.startswith(tuple("=+-@")) for name in columns)


@pytest.mark.parametrize("names", [["cat", "cat", "0:cat"], ["a\udc80", "a\\x80"], ["\ud800", "\\ud800"]])
def test_names_that_are_equal_have_columns_of_their_own(names):
    columns = probability_columns(names, torch.eye(len(names))[:1])
    assert len(columns) == len(names)
    assert [float(column) for column in columns.values()] == [1.0, *[0.0] * (len(names) - 1)]


def test_parquet_is_written_in_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_BYTES", 4 * 25)
    numbers = torch.rand(100)
    with table_file(tmp_path / "a.parquet") as write:
        for part in numbers.split(10):
            write({"number": part})
    assert parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 4  # of 30 rows, but for the last
    assert torch.equal(torch.tensor(parquet.read_table(tmp_path / "a.parquet")["number"].to_numpy()), numbers)


def test_a_csv_table_has_the_bytes_of_the_csv_module(tmp_path):
    numbers = torch.tensor([0.1, float("nan")])
    columns = {"path": ["x", 'y,"z"\n'], "first": -numbers, "class": ["=1", "猫"], "second": numbers, "third": numbers}
    with table_file(tmp_path / "a.csv") as write:
        for _ in range(2):
            write(columns)
    with (tmp_path / "expected.csv").open("w", newline="", encoding="utf-8") as file:
        cells = [["x", "-0.100000001", "'=1", *["0.100000001"] * 2], ['y,"z"\n', "nan", "猫", "nan", "nan"]]
        csv.writer(file).writerows([list(columns), *cells, *cells])
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()


def test_without_pyarrow_a_table_is_csv(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for write in (lambda path: require_writer(path), lambda path: table_file(path).__enter__()):
        with pytest.raises(
            UserError, match=r"^a \.parquet file needs pyarrow: pip install pyarrow, or name a \.csv file$"
        ):
            write(tmp_path / "a.parquet")
    require_writer(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []
