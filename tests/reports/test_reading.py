"""Runs of others, whose files hold what no run writes: each is one line, and the report shows the other runs."""

import csv
import json
import os
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from fake_runs import CONFIG, make_run

from reslab.reports.entries import read_entry
from reslab.reports.leaderboard import read_report
from reslab.reports.reading import MAX_REASON
from reslab.reports.terminal import print_report
from reslab.reports.writing import write_report
from reslab.run import Run

PAIRS = [f"{new}: &{new} [*{old}, *{old}]" for old, new in pairwise("abcdefghijklmnopqrstuvwxyz")]
LAUGHS = "\n".join(["seed: 1", "a: &a [x, x]", *PAIRS])  # z stands for 2**26 values
CONTENT = [
    (
        "result.json",
        "{",
        "result.json: it is not JSON: Expecting property name",
    ),
    ("result.json", "7", "result.json: it is not a result with a status"),
    ("result.json", "{}", "result.json: it is not a result with a status"),
    ("result.json", b'{"status": "\xff"}', "result.json: it is not text"),
    ("result.json", "[" * 100_000, "result.json: it nests too deeply"),
    ("result.json", " " * 300_000, "result.json: it is larger than 256 KB"),
    ("metrics.csv", "step,val/accuracy\n20,0.5\n", "metrics.csv: row 1 has no epoch"),
    ("metrics.csv", "epoch,val/accuracy\n0,0.5\nnan,0.5\n", "metrics.csv: row 2: epoch is nan"),
    ("metrics.csv", "epoch,step\n0,0.5\n", "metrics.csv: row 1: step is 0.5"),
    ("metrics.csv", "epoch,val/accuracy\n0,high\n", "metrics.csv: line 2: could not convert string to float: 'high'"),
    ("metrics.csv", "epoch,val/accuracy\n0,0.5,0.7\n", "metrics.csv: line 2 has 3 cells, and there are 2 columns"),
    ("metrics.csv", b"epoch\n\xff", "metrics.csv: it is not text"),
    (".hydra/config.yaml", "a: [", "config.yaml: while parsing"),
    (".hydra/config.yaml", "", "config.yaml: it is not a configuration"),
    (".hydra/config.yaml", "model: {name: resnet8}", "config.yaml: it has no seed"),
    (".hydra/config.yaml", LAUGHS, "config.yaml: it has an alias, *a"),
    (".hydra/config.yaml", "[" * 200_000, "config.yaml: it nests deeper than 100 levels"),
    (".hydra/config.yaml", "seed: 1\nwhen: 2026-01-31", "config.yaml: when is a date"),
    (".hydra/config.yaml", f"seed: {'1' * 400}", "config.yaml: seed is too large for a number"),
    (".hydra/config.yaml", f"seed: {'1' * 5000}", "config.yaml: Exceeds the limit"),
    (".hydra/config.yaml", b"seed: 1\nmodel: \xff", "config.yaml: "),
]
RESULTS = [
    ({"val/accuracy": None}, "val/accuracy is null, not a number"),
    ({"val/accuracy": "0.5"}, 'val/accuracy is "0.5", not a number'),
    ({"test/loss": [0.5]}, "test/loss is [0.5], not a number"),
    ({"train/seconds": True}, "train/seconds is true, not a number"),
    ({"val/images": {}}, "val/images is {}, not a number"),
    ({"val/images": float("nan")}, "val/images is NaN, not a finite number"),
    ({"test/images_available": float("inf")}, "test/images_available is Infinity, not a finite number"),
    ({"epochs": float("-inf")}, "epochs is -Infinity, not a finite number"),
    ({"parameters": "many"}, 'parameters is "many", not a number'),
    ({"test/loss": 10**400}, "test/loss is too large for a number"),
    ({"ended": "yesterday"}, 'ended is "yesterday", not a date and time'),
    ({"ended": 1800000000}, "ended is 1800000000, not a date and time"),
    ({"seed": "1"}, 'seed is "1", not an integer'),
    ({"status": ["finished"]}, 'status is ["finished"], not a text'),
    ({"error": 1}, "error is 1, not a text"),
    ({"requested": [{"trainer.max_epochs": 2}]}, "requested is not a list of steps and limits"),
    ({"requested": 7}, "requested is not a list of steps and limits"),
]
OPTIONS = [
    ({"seed": [1, 2]}, "seed is [1, 2], not an integer"),
    ({"seed": None}, "seed is null, not an integer"),
    ({"seed": True}, "seed is true, not an integer"),
    ({"objective": {"a": 1}}, 'objective is [{"a": 1}], not a list of names'),
    ({"optimizer": {"_target_": 3}}, "optimizer._target_ is 3, not the name of a class"),
]


def run_with(folder, **options):
    return make_run(folder, accuracy=0.5, curve=[(0.5, 0.5)], **options)


def failure(folder):
    return read_entry(Run(folder)).failure


@pytest.mark.parametrize(("file", "content", "reason"), CONTENT)
def test_a_file_of_another_content_is_unreadable(tmp_path, file, content, reason):
    folder = run_with(tmp_path / "run")
    assert read_entry(Run(folder)).is_finished
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert failure(folder).startswith(f"unreadable: {reason}")
    assert len(failure(folder).splitlines()) == 1


@pytest.mark.parametrize(("entries", "reason"), RESULTS)
def test_a_value_of_another_type_in_the_result_is_unreadable(tmp_path, entries, reason):
    folder = run_with(tmp_path / "run")
    result = json.loads((folder / "result.json").read_text()) | entries
    (folder / "result.json").write_text(json.dumps(result))
    assert failure(folder) == f"unreadable: result.json: {reason}"


@pytest.mark.parametrize(("options", "reason"), OPTIONS)
def test_a_value_of_another_type_in_the_configuration_is_unreadable(tmp_path, options, reason):
    assert failure(run_with(tmp_path / "run", **options)) == f"unreadable: config.yaml: {reason}"


def test_an_objective_that_is_no_number_is_unreadable(tmp_path):
    assert failure(run_with(tmp_path / "run", objective="device", result={"device": "cpu"})) == (
        'unreadable: result.json: device is "cpu", not a number'
    )


@pytest.mark.parametrize("file", ["result.json", "metrics.csv", ".hydra/config.yaml"])
@pytest.mark.parametrize(
    ("replace", "reason"),
    [
        (os.mkfifo, "it is not a regular file"),  # to read one would wait for ever
        (Path.mkdir, "Is a directory"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: (path.touch(), os.truncate(path, 10**9)), "it is larger than"),
    ],
)
def test_what_is_no_plain_file_of_usual_size_is_unreadable(tmp_path, file, replace, reason):
    path = run_with(tmp_path / "run") / file
    path.unlink()
    replace(path)
    assert failure(tmp_path / "run").startswith(f"unreadable: {path.name}: {reason}")


def test_numbers_that_training_may_give_are_no_mistakes(tmp_path):
    numbers = {"test/loss": float("nan"), "val/loss": float("inf"), "best_step": None, "git_commit": None}
    entry = read_entry(Run(run_with(tmp_path / "run", result=numbers)))
    assert entry.is_finished
    assert entry.result["val/loss"] == float("inf")


def test_broken_runs_leave_the_report_of_the_others(tmp_path, capsys):
    for number, (file, content, _) in enumerate(CONTENT):
        folder = run_with(tmp_path / f"{number}_x")
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    for number in (100, 101):
        run_with(tmp_path / f"{number}_x", optimizer__lr=number / 10)
    report = read_report([tmp_path])
    print_report(report)
    write_report(report, tmp_path)
    assert len(report.configurations) == 2
    assert len(report.not_finished) == len(CONTENT)
    assert "2 runs by validation accuracy" in capsys.readouterr().out
    assert len(list(csv.DictReader((tmp_path / "runs.csv").open()))) == len(CONTENT) + 2


RAW = "\x1b]0;title\x07\n\x9b2J\u202e\ud800"
SHOWN = r"\x1b]0;title\x07\n\x9b2J\u202e\ud800"


def test_control_characters_are_shown_and_not_obeyed(tmp_path, capsys):
    config = {**CONFIG, f"x{RAW}": f"y{RAW}"}
    folders = [make_run(tmp_path / f"{number}\x1b[2J\n", accuracy=0.5, curve=[(0.5, 0.5)]) for number in range(2)]
    (folders[0] / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    make_run(tmp_path / "failed", result={"status": f"failed{RAW}", "error": f"z{RAW}"})
    report = read_report([tmp_path])
    print_report(report)
    write_report(report, tmp_path / "report")
    texts = {path.name: path.read_bytes().decode() for path in (tmp_path / "report").iterdir()}
    texts |= {"terminal": capsys.readouterr().out}
    for name, text in texts.items():
        ends_of_lines = set("\r\n" if name.endswith("csv") else "\n")
        unsafe = {character for character in text if not character.isprintable()} - ends_of_lines
        assert not unsafe, name
    assert f"x{SHOWN}" in texts["report.csv"]
    assert f"failed failed{SHOWN}: z{SHOWN}" in texts["terminal"]
    assert f"y{SHOWN}" in texts["report.html"]
    assert r"0\x1b[2J\n" in texts["report.html"]


def test_a_long_message_is_cut(tmp_path):
    folder = make_run(tmp_path / "run", result={"status": "failed", "error": "x" * 10_000})
    assert len(failure(folder)) == MAX_REASON
