import ast
import csv
import errno
import json
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import SRC

from reslab.errors import UserError
from reslab.files import (
    FolderMovedError,
    RunLog,
    held_log,
    replaced,
    replaced_output,
    require_output_folder,
    sole_user,
    write_csv,
    write_json,
    write_text,
    write_valid_json,
)
from reslab.run import Run


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "new folder" / "a.json"
    write_json(path, {"a": [1, 2]})
    assert path.read_text() == '{\n  "a": [\n    1,\n    2\n  ]\n}\n'
    write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_when_writing_fails(tmp_path, failure):
    path, keep = tmp_path / "a", tmp_path / "before"
    write_text(path, "first")

    def fail():
        with replaced(path, keep) as partial:
            partial.write_text("half of the sec")
            raise failure

    with pytest.raises(failure):
        fail()
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_do_not_mix(tmp_path, monkeypatch):
    """E.g. two reports of one folder."""
    path = tmp_path / "report.csv"
    with replaced(path) as first:
        first.write_text("first")
        monkeypatch.setattr(os, "getpid", lambda: -1)  # of another process
        with replaced(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["report.csv"]


@pytest.mark.parametrize("lock", ["absent", "of another process"])
def test_nothing_is_written_into_a_folder_whose_lock_was_removed(tmp_path, lock):
    folder = tmp_path / "run"
    with sole_user(folder):
        write_text(folder / "a", "first")
        (folder / "a").unlink()
        (folder / ".lock").rename(tmp_path / "lock")  # so that a new one has another inode
        if lock == "of another process":
            (folder / ".lock").touch()
        with pytest.raises(FolderMovedError, match=r"^the files in .*run were removed while it was in use$"):
            write_text(folder / "a", "second")
        write_text(tmp_path / "elsewhere", "third")
    assert {path.name for path in folder.iterdir()} == ({".lock"} if lock == "of another process" else set())


def test_a_file_that_is_removed_while_it_is_written_is_one_of_the_folder(tmp_path):
    folder = tmp_path / "run"

    def lose():
        with replaced(folder / "checkpoints" / "last.ckpt") as partial:
            partial.touch()
            shutil.rmtree(folder / "checkpoints")

    with pytest.raises(FileNotFoundError):  # the folder is not locked
        lose()
    with sole_user(folder), pytest.raises(FolderMovedError, match=r"^the files in .*run were removed while it was in"):
        lose()


def test_what_was_there_is_kept_under_another_name(tmp_path):
    path, keep = tmp_path / "a", tmp_path / "before"
    for text in ("first", "second", "third"):
        with replaced(path, keep) as partial:
            partial.write_text(text)
    assert (path.read_text(), keep.read_text()) == ("third", "second")


def test_it_is_on_the_disk_before_it_takes_the_place(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: events.append(Path(f"/proc/self/fd/{fd}").readlink().name) or fsync(fd))
    monkeypatch.setattr(
        Path, "replace", lambda self, to: events.append(f"{self.name} to {to.name}") or replace(self, to)
    )
    write_text(tmp_path / "a", "text")
    partial = f".a.{os.getpid()}.partial"
    assert events == [partial, f"{partial} to a", tmp_path.name]


def test_an_error_of_reading_is_not_blamed_on_the_output(tmp_path):
    unread = OSError(errno.EIO, os.strerror(errno.EIO), "images/a.png")
    with pytest.raises(OSError, match=r"images/a\.png") as raised, replaced_output(tmp_path / "network.onnx"):
        raise unread
    assert raised.value is unread
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^output=.*/file/network\.onnx cannot be written: ") as raised:  # noqa: SIM117
        with replaced_output(tmp_path / "file" / "network.onnx"):
            raise AssertionError


def test_valid_json_has_null_for_what_is_no_number(tmp_path):
    nan, infinite = float("nan"), float("inf")
    value = {"a": [nan, {"b": (-infinite, 1, "nan")}], "c": None, "d": 0.5}
    write_valid_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, {"b": [None, 1, "nan"]}], "c": None, "d": 0.5}
    finite = {"a": [0.1, {"b": (1, "ü")}]}
    write_valid_json(tmp_path / "a.json", finite)
    write_json(tmp_path / "b.json", finite)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_csv(tmp_path):
    write_csv(tmp_path / "a.csv", [{"b": 2, "a": 1}, {"b": "x,y"}])
    assert list(csv.reader((tmp_path / "a.csv").open())) == [["b", "a"], ["2", "1"], ["x,y", ""]]


def test_a_table_without_rows_has_columns(tmp_path):
    write_csv(tmp_path / "a.csv", [], ("b", "a"))
    assert (tmp_path / "a.csv").read_text() == "b,a\n"
    write_csv(tmp_path / "a.csv", [{"c": 1}], ("b", "a"))
    assert (tmp_path / "a.csv").read_text() == "c\n1\n"


def test_a_spreadsheet_takes_no_cell_for_a_formula(tmp_path):
    write_csv(tmp_path / "a.csv", [{"=b": -2, "a": "=1"}, {"=b": -0.5, "a": Path("-x")}])
    assert list(csv.reader((tmp_path / "a.csv").open())) == [["'=b", "a"], ["-2", "'=1"], ["-0.5", "'-x"]]


def test_a_held_log_is_written_once_the_run_has_resumed_and_not_at_all_for_a_mistake(tmp_path):
    log_file, logger = RunLog(tmp_path / "train.log"), logging.getLogger("reslab")

    def lines_after(line, resumes, error):
        with suppress(type(error)), held_log(resumes):
            log_file.handle(record(line))
            raise error
        return (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()

    logger.addHandler(log_file)
    try:
        assert lines_after("Äpfel", False, UserError()) == ["Äpfel"]
        assert lines_after("a mistake", True, UserError()) == ["Äpfel"]
        log_file.handle(record("its traceback"))
        assert lines_after("a failure", True, RuntimeError()) == ["Äpfel", "a failure"]
        with held_log(resumes=True):
            log_file.handle(record("resuming"))
            Run(tmp_path).reopen()
            assert lines_after("resumed", False, RuntimeError()) == ["Äpfel", "a failure", "resuming", "resumed"]
    finally:
        logger.removeHandler(log_file)
        log_file.close()


def record(message):
    return logging.LogRecord("reslab", logging.INFO, "", 0, message, (), None)


def depends_on_the_locale(call):
    """Whether a call reads or writes text in the encoding of the locale."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = getattr(getattr(call.func, "value", None), "id", "")
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    mode = next((each for each in [keywords.get("mode"), *call.args[:2]] if is_mode(each)), None)
    binary = mode is not None and "b" in ast.literal_eval(mode)
    opens = name == "open" and owner not in ("os", "Image") and not binary
    reads = name in ("read_text", "write_text", "FileHandler") and not (owner == "" and name == "write_text")
    text = name in ("run", "Popen", "check_output") and {"text", "universal_newlines"} & keywords.keys()
    return bool(opens or reads or text) and "encoding" not in keywords


def is_mode(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and set(node.value) <= set("rwaxbt+")


def test_a_log_that_cannot_be_opened_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", False)
    RunLog(tmp_path / "absent" / "train.log").handle(logging.makeLogRecord({"msg": "a line"}))
    assert capsys.readouterr().err == ""


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"output={tmp_path}/file/a cannot be a folder: {tmp_path}/file is a file"):
        require_output_folder(f"{tmp_path}/file/a")
    require_output_folder(f"{tmp_path}/new/folder")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=f"output={tmp_path}/new cannot be written: Permission denied"):
        require_output_folder(f"{tmp_path}/new")


@pytest.mark.slow
def test_no_file_is_read_or_written_in_the_encoding_of_the_locale():
    found = [
        f"{path.relative_to(SRC)}:{node.lineno}"
        for path in SRC.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and depends_on_the_locale(node)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [("open(path)", True), ("path.open('w')", True), ("path.open('rb')", False), ("open(path, 'ab')", False),
     ("open(path, encoding='utf-8')", False), ("path.read_text()", True), ("os.open(path, 0)", False),
     ("subprocess.run(c, text=True)", True), ("subprocess.run(c, encoding='utf-8')", False)],
)  # fmt: skip
def test_a_call_that_depends_on_the_locale_is_found(code, expected):
    assert depends_on_the_locale(ast.parse(code).body[0].value) == expected
