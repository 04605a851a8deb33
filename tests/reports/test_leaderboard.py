import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import cells, make_run
from test_commands import SRC, no_torch, run  # noqa: F401

from reslab.errors import UserError
from reslab.reports.leaderboard import brief, leaderboard, print_report, read_report, summary_text
from reslab.reports.runs import find_runs
from reslab.reports.writing import write_report


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Two models, two seeds each, and a job that failed."""
    monkeypatch.setenv("COLUMNS", "200")
    sweep = tmp_path / "sweep"
    make_run(sweep / "0_resnet8", accuracy=0.5, curve=[(0.25, 0.5), (0.75, 0.25)])
    make_run(sweep / "1_resnet8", accuracy=0.7, seed=2, curve=[(0.5, 0.75)])
    make_run(sweep / "2_resnet20", accuracy=0.9, model__name="resnet20", curve=[(0.5, "")])
    make_run(sweep / "3_resnet20", accuracy=0.9, test=0.8, model__name="resnet20", seed=2)
    make_run(sweep / "4_resnet<b>", model__name="resnet<b>", result={"status": "failed", "error": "a < b"})
    return sweep


def printed(capsys, *folders):
    print_report(read_report(folders))
    return capsys.readouterr().out.splitlines()


def test_the_leaderboard_has_a_row_a_configuration(sweep, capsys):
    lines = printed(capsys, sweep)
    assert lines[0].strip() == "2 configurations (4 runs) by validation accuracy"
    assert cells(lines[3]) == ["run", "model", "n", "val/accuracy", "test/accuracy", "seconds"]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows == [
        ["job 2", "resnet20", "2", "0.9000 ± 0.0000", "0.8450 ± 0.0636", "12.5"],
        ["", "", "", "[0.9000, 0.9000]", "[0.2732, 1.4168]", ""],
        ["job 1", "resnet8", "2", "0.6000 ± 0.1414", "0.5900 ± 0.1414", "12.5"],
        ["", "", "", "[-0.6706, 1.8706]", "[-0.6806, 1.8606]", ""],
    ]
    assert lines[-2:] == [
        "accuracy: mean ± standard deviation over n seeds [95% confidence interval of the mean, Student's t]",
        "job 4 failed: a < b",
    ]


def test_runs_of_several_folders_are_told_apart(sweep, capsys):
    make_run(sweep.parent / "2026-01-31_12-00-00", accuracy=0.95, optimizer__lr=0.2)
    make_run(sweep.parent / "2026-01-31_12-00-01", accuracy=0.9, model__name="resnet20")
    lines = printed(capsys, sweep, sweep.parent)
    names = [cells(line)[0] for line in lines if line.startswith("│")]
    assert [name for name in names if name] == ["2026-01-31_", "12-00-00", "2026-01-31_", "12-00-01", "sweep/1"]
    assert "not counted, for a newer run has the same configuration and seed: sweep/2" in lines
    assert lines[-1] == "sweep/4 failed: a < b"


def test_jobs_that_failed_alike_are_one_line(sweep, capsys):
    for number in (5, 10):
        make_run(sweep / f"{number}_x", seed=number, result={"status": "failed", "error": "a < b"})
    make_run(sweep / "6_x", result={"status": "interrupted", "error": "SIGINT"})
    assert printed(capsys, sweep)[-2:] == ["job 4, job 5, job 10 failed: a < b", "job 6 interrupted: SIGINT"]


def test_runs_of_a_row_that_come_from_elsewhere_are_told(tmp_path, capsys):
    for number, (seed, lr) in enumerate([(1, 0.1), (2, 0.1), (1, 0.2), (2, 0.2), (1, 0.3), (2, 0.3)]):
        origin = {"git_commit": f"commit{seed if lr < 0.3 else 0}", "versions": {"torch": "2.11", "python": "3.12"}}
        result = {"status": "finished", "val/accuracy": seed / 10 + lr, **origin}
        make_run(tmp_path / f"{number}_x", result=result, seed=seed, optimizer__lr=lr)
    (tmp_path / "5_x" / "result.json").write_text(
        json.dumps(result | {"versions": {"torch": "2.12", "python": "3.12"}, "git_commit": "commit0"})
    )
    assert printed(capsys, tmp_path)[-2:] == [
        "runs of one row differ in versions.torch (2.11, 2.12): job 5",
        "runs of one row differ in git_commit (commit1, commit2): job 3, job 1",
    ]


def test_a_metric_that_some_runs_lack_shows_its_own_n(tmp_path, capsys):
    for seed in (1, 2):
        make_run(tmp_path / f"{seed}_", accuracy=seed / 4, test=0.5, seed=seed)
    make_run(tmp_path / "3_", result={"status": "finished", "val/accuracy": 0.75, "train/seconds": 1.0}, seed=3)
    rows = [cells(line) for line in printed(capsys, tmp_path) if line.startswith("│")]
    assert rows[0][:4] == ["3_", "3", "0.5000 ± 0.2500", "0.5000 ± 0.0000 (n=2)"]
    (row,) = leaderboard(read_report([tmp_path]))
    assert (row["n"], row["val/accuracy n"], row["test/accuracy n"]) == (3, 3, 2)


def test_image_folders_have_a_row_each_that_names_them(tmp_path, capsys):
    for number, root in enumerate(("cats", "dogs", "birds")):
        make_run(tmp_path / f"{number}_", accuracy=0.5 + number / 10, data__name="imagefolder", data__root=root)
    lines = printed(capsys, tmp_path)
    rows = [cells(line)[:2] for line in lines if line.startswith("│")]
    assert rows == [["2_", "birds"], ["1_", "dogs"], ["0_", "cats"]]
    assert not any("not counted" in line for line in lines)


def test_a_run_given_by_dots_has_its_folders_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(make_run(tmp_path / "resnet8", accuracy=0.5))
    (tmp_path / "resnet8" / "checkpoints").mkdir()
    for name in (".", "..", "checkpoints/.."):
        rows = [cells(line)[0] for line in printed(capsys, Path(name)) if line.startswith("│")]
        assert rows == ["resnet8"]


def test_without_validation_the_table_is_by_test_accuracy(tmp_path, capsys):
    make_run(tmp_path / "0_", result={"status": "finished", "test/accuracy": 0.5, "train/seconds": 2.0})
    lines = printed(capsys, tmp_path)
    assert lines[0].strip() == "1 run by test accuracy"
    assert cells(lines[2]) == ["run", "test/accuracy", "seconds"]


def test_what_is_not_a_number_ranks_last(tmp_path, capsys):
    for number, accuracy in enumerate((0.5, 0.75, float("nan"), 1.0)):
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, seed=number % 2, optimizer__lr=1.0 + number // 2)
    lines = printed(capsys, tmp_path)
    rows = [cells(line)[:4] for line in lines if line.startswith("│")]
    assert rows[0] == ["job 1", "1.0", "2", "0.6250 ± 0.1768"]
    assert rows[2:] == [["job 3", "2.0", "2", "nan"]]
    assert "nan" not in rows[1]


def test_a_long_number_is_shown_with_four_digits():
    assert [brief(value) for value in (0.00037960330329289693, 1e-05, 0.0001, 1024, 123456789, "a" * 30, True)] == [
        "0.0003796", "1e-05", "0.0001", "1024", "123456789", "a" * 30, "true",
    ]  # fmt: skip


def test_pruned_runs_are_counted_apart(sweep, capsys):
    make_run(sweep / "5_pruned", model__name="resnet20", result={"status": "pruned", "val/accuracy": 1.0})
    lines = printed(capsys, sweep)
    assert lines[0].strip() == "2 configurations (4 runs) by validation accuracy"
    assert lines[-2:] == ["not counted: 1 run that the search has pruned", "job 4 failed: a < b"]


def test_a_narrow_terminal_leaves_parameters_out(sweep, capsys, monkeypatch):
    for number in (5, 6):
        make_run(sweep / f"{number}_long", accuracy=0.3, optimizer__lr=number / 123456789, data__name="d" * 20)
    for columns, shown, left_out in ((93, ["model", "data", "lr"], ""), (92, ["model", "data"], "optimizer.lr")):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = printed(capsys, sweep)
        assert cells(next(line for line in lines if "┃run" in line))[1:-4] == shown
        table = [line for line in lines if line[0] in "│┃"]
        assert max(map(len, table)) <= columns
        assert any(line.startswith("┃best ") and "optimizer. " in line for line in table) == (not left_out)
        assert (f"differing too, and shown in report.html: {left_out}" in lines) == bool(left_out)


def test_the_files_have_all_numbers(sweep):
    write_report(read_report([sweep]), sweep.parent / "out")
    first, second = csv.DictReader((sweep.parent / "out" / "report.csv").open())
    assert (first["place"], first["model"], first["n"], first["best run"]) == (
        "1", "resnet20", "2", str(sweep / "2_resnet20"),
    )  # fmt: skip
    assert second["val/accuracy n"] == "2"
    assert float(second["val/accuracy mean"]) == pytest.approx(0.6)
    assert float(second["val/accuracy deviation"]) == pytest.approx(0.02**0.5)
    assert float(second["val/accuracy 95% low"]) == pytest.approx(0.6 - 1.27062, rel=1e-5)
    assert float(second["val/accuracy 95% high"]) == pytest.approx(0.6 + 1.27062, rel=1e-5)
    assert float(second["test/accuracy mean"]) == pytest.approx(0.59)
    runs = list(csv.DictReader((sweep.parent / "out" / "runs.csv").open()))
    assert [(run["model"], run["seed"], run["status"], run["val/accuracy"], run["error"]) for run in runs] == [
        ("resnet20", "1", "finished", "0.9", ""),
        ("resnet20", "2", "finished", "0.9", ""),
        ("resnet8", "2", "finished", "0.7", ""),
        ("resnet8", "1", "finished", "0.5", ""),
        ("resnet<b>", "1", "failed", "", "a < b"),
    ]
    assert runs[2]["folder"] == str(sweep / "1_resnet8")
    assert "versions" not in runs[0]  # plain values only


def test_a_report_changes_no_run(sweep):
    before = find_runs([sweep])
    write_report(read_report([sweep]), sweep)
    assert find_runs([sweep]) == before


def test_where_nothing_can_be_written_is_a_mistake(sweep):
    (sweep / "file").write_text("")
    with pytest.raises(UserError, match=r"^the report cannot be written into .*/file: (Not a directory|File exists)$"):
        write_report(read_report([sweep]), sweep / "file")


# the command


def test_the_command_needs_no_torch(sweep, no_torch):  # noqa: F811
    done = run("report", "sweep", cwd=sweep.parent, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["job 4 failed: a < b", "report: sweep (report.html, report.csv, runs.csv)"]
    assert (sweep / "report.html").is_file()
    done = run("report", "output=there", "sweep/0_resnet8", "sweep/1_resnet8", cwd=sweep.parent, **no_torch)
    assert done.stdout.splitlines()[-1] == "report: there (report.html, report.csv, runs.csv)"
    assert (sweep.parent / "there" / "report.csv").read_text().splitlines()[1].startswith("1,2,2,0.6,")


def test_what_a_search_was_for_is_a_column(tmp_path):
    objective = ["val/accuracy", "parameters", "val/loss"]
    for number, parameters in enumerate((77850, 272474)):
        folder = make_run(tmp_path / f"{number}_x", accuracy=0.5, objective=objective, optimizer__lr=number)
        result = json.loads((folder / "result.json").read_text()) | {"parameters": parameters}
        (folder / "result.json").write_text(json.dumps(result))
    report = read_report([tmp_path])
    assert report.metrics == ["val/accuracy", "test/accuracy", "parameters"]
    texts = {summary_text(configuration, "parameters") for configuration in report.configurations}
    assert texts == {"77850", "272474"}
    assert {row["parameters mean"] for row in leaderboard(report)} == {77850, 272474}


def test_a_report_on_several_folders_lies_in_the_one_that_holds_them(sweep, no_torch):  # noqa: F811
    first, second = (path.name for path in sorted(sweep.glob("*resnet8")))
    (sweep / "report.csv").write_text("an earlier one")
    done = run("report", first, second, "report.csv", cwd=sweep, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"report: {sweep} (report.html, report.csv, runs.csv)"
    assert (sweep / "report.csv").read_text().splitlines()[0].startswith("place,")
    assert len((sweep / "runs.csv").read_text().splitlines()) == 3
    assert not (sweep / first / "report.csv").exists()
    apart = run("report", first, "/proc/1", cwd=sweep, **no_torch)
    line = "error: these folders lie far apart: output=<folder> says where their report goes\n"
    assert (apart.returncode, apart.stdout, apart.stderr) == (2, "", line)


def test_the_command_compares(sweep, no_torch):  # noqa: F811
    pattern = [path.relative_to(sweep) for path in sorted(sweep.glob("*resnet8"))]
    done = run("report", *pattern, "versus", "2_resnet20", "3_resnet20", cwd=sweep, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [
        "A: 2 runs (seed 1, 2), the best one 1_resnet8",
        "B: 2 runs (seed 1, 2), the best one 2_resnet20",
    ]
    assert not (sweep / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "error: name a folder, e.g. python src/report.py outputs/multirun/2026-01-31_12-00-00"),
        (["swep"], "error: there is no folder swep: did you mean sweep?"),
        (["sweep", "--all"], "error: unrecognized argument --all: --help shows examples"),
        (["sweep", "output="], "error: output= must name a folder"),
        (["a", "versus", "b", "output=c"], "error: output=c: versus prints its comparison and writes no file"),
        (["sweep", "versus"], "error: versus stands between two groups of folders: python src/report.py A versus B"),
        (["sweep", "versus", "sweep"], "error: A is 2 configurations, which differ in model: name the runs of one"),
    ],
)
def test_a_mistake_is_one_line(sweep, no_torch, arguments, line):  # noqa: F811
    done = run("report", *arguments, cwd=sweep.parent, **no_torch)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line + "\n")


def test_a_reader_that_has_seen_enough_ends_it_without_a_word(sweep, no_torch):  # noqa: F811
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, SRC / "report.py", sweep]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch)
    os.close(write)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("argument", ["sweep", "--help"])
def test_output_on_a_full_disk_is_a_line(sweep, no_torch, argument):  # noqa: F811
    command, here = [sys.executable, SRC / "report.py", argument], sweep.parent
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, cwd=here, stdout=full, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch
        )
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")


def test_ctrl_c_is_no_traceback(sweep, no_torch):  # noqa: F811
    """It comes while result.json is read, a pipe into which nothing is written before."""
    result = sweep / "0_resnet8" / ".hydra" / "config.yaml"
    result.unlink()
    os.mkfifo(result)
    command = [sys.executable, SRC / "report.py", sweep]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | no_torch) as process:
        with result.open("w"):  # waits until it is read
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
        assert process.stderr.read() == ""


def test_what_the_terminal_cannot_show_stops_nothing(sweep, no_torch):  # noqa: F811
    """Neither a folder's name that is no text nor a terminal without ±; report.csv has the name as it is."""
    folder = sweep.rename(os.fsdecode(os.fsencode(sweep.parent) + b"/\xff"))
    command = [sys.executable, "-X", "utf8=0", SRC / "report.py", folder]
    environment = os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "COLUMNS": "200"} | no_torch
    done = subprocess.run(command, capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"0.6000 ? 0.1414" in done.stdout
    assert os.fsencode(folder / "1_resnet8") in (folder / "report.csv").read_bytes()
    assert "↕".encode() in (folder / "report.html").read_bytes()


def test_help_shows_examples(tmp_path, no_torch):  # noqa: F811
    done = run("report", "--help", cwd=tmp_path, **no_torch)
    assert (done.returncode, done.stderr) == (0, "")
    assert "  python src/report.py outputs/resnet20-digits versus outputs/resnet32-digits" in done.stdout.splitlines()
