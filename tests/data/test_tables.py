import sys

import pytest

from reslab.data.tables import read_table
from reslab.errors import UserError

NAMED = [("path", ["a.png", "b, c.png"]), ("label", ["cat", "dög"])]


def table_of(tmp_path, content, name="labels.csv"):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [tuple(column) for column in read_table(file)]


@pytest.mark.parametrize(
    "content",
    [
        'path,label\na.png,cat\n"b, c.png",dög\n',
        'path;label\r\na.png;cat\r\n"b, c.png";dög\r\n',
        "path\tlabel\na.png\tcat\nb, c.png\tdög",
        "path|label\na.png|cat\nb, c.png|dög\n",
        'path, label\n\n a.png , cat\n,\n"b, c.png", dög\n',
        '\ufeffpath,label\na.png,cat\n"b, c.png",dög\n',
        'path,label\na.png,cat\n"b, c.png",dög\n'.encode("utf-16"),
    ],
)
def test_a_table_is_read_with_any_delimiter_encoding_and_quotes(tmp_path, content):
    assert table_of(tmp_path, content) == NAMED


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ("a b.png cat\nc.png dog\n", [(None, ["a b.png", "c.png"]), (None, ["cat", "dog"])]),
        ("a.png,cat\nc.png,dog\n", [(None, ["a.png", "c.png"]), (None, ["cat", "dog"])]),
        ("n01/img_1 0\nn02/img_2\t10\n", [(None, ["n01/img_1", "n02/img_2"]), (None, ["0", "10"])]),
        ("a.png | cat\nmy c.png|dog\n", [(None, ["a.png", "my c.png"]), (None, ["cat", "dog"])]),
        ("a.png,cat|dog|owl\n", [(None, ["a.png"]), (None, ["cat|dog|owl"])]),
        ("a.png cat|dog|owl\n", [(None, ["a.png"]), (None, ["cat|dog|owl"])]),
        ("image label\nx/1 0\n", [("image", ["x/1"]), ("label", ["0"])]),
        ("path\na.png\n", [("path", ["a.png"])]),
        ("a\u2028b\x85.png cat\r\nc.png dog\r\n", [(None, ["a\u2028b\x85.png", "c.png"]), (None, ["cat", "dog"])]),
        ("a\u2028b.png,cat\nc.png,dog\n", [(None, ["a\u2028b.png", "c.png"]), (None, ["cat", "dog"])]),
    ],
)
def test_a_list_needs_no_names_of_columns(tmp_path, content, columns):
    assert table_of(tmp_path, content, "list.txt") == columns


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b",\n , \n", "is empty"),
        ("path,label\na.png,dög\n".encode("latin-1"), "is not text in UTF-8 (line 2): save it as UTF-8"),
        (b"path,label\na.png,\0\n", "is not text: "),
        (b"path,label\na.png,cat,dog\n", "line 2 has 3 values and the first line has 2"),
        (b"path,label\nb.png\n", "line 2 has 1 value and the first line has 2"),
        (b'path,label\n"a.png,cat\n', "is not a table (line 2: unexpected end of data)"),
        (b"x" * 200_000 + b"\n", "is not a table (line 1: field larger than field limit"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        table_of(tmp_path, content)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"labels.parquet needs pyarrow: pip install pyarrow"):
        table_of(tmp_path, b"PAR1", "labels.parquet")


def test_parquet_is_read_where_pyarrow_is_installed(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    file = tmp_path / "labels.parquet"
    parquet.write_table(pyarrow.table({"path": ["a.png", "b.png"], "label": [1, None]}), file)
    assert [tuple(column) for column in read_table(file)] == [("path", ["a.png", "b.png"]), ("label", ["1", ""])]
    parquet.write_table(pyarrow.table({}), file)
    with pytest.raises(UserError, match="is empty: a labels file has a line for each image"):
        read_table(file)
    with pytest.raises(UserError, match="is not a Parquet file"):
        table_of(tmp_path, b"PAR1", "broken.parquet")
