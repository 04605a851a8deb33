import json

import pytest
from fake_runs import cells, make_run

from reslab.sweeps.folder import Sweep
from reslab.sweeps.summary import print_summary


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    make_run(tmp_path / "0_model=resnet8", accuracy=0.5)
    make_run(tmp_path / "1_model=[x]", model__name="[x]", result={"status": "failed", "error": "data [x]: no files"})
    make_run(tmp_path / "2_model=resnet20", accuracy=0.75, model__name="resnet20")
    make_run(tmp_path / "10_model=resnet32", model__name="resnet32")
    (tmp_path / "multirun.yaml").write_text("")
    (tmp_path / "0_not_a_job").mkdir()
    return Sweep(tmp_path)


def test_a_sweep_without_seeds_ends_with_one_row_per_job(sweep, capsys):
    assert print_summary(sweep, planned=4) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "resnet20 and resnet8 on digits: 2 runs by validation accuracy"
    assert cells(lines[2]) == ["run", "model", "val/accuracy", "test/accuracy", "seconds"]
    assert [cells(line) for line in lines if line.startswith("│")] == [
        ["job 2", "resnet20", "0.7500", "0.7400", "12.50"],
        ["job 0", "resnet8", "0.5000", "0.4900", "12.50"],
    ]
    assert lines[-4:] == [
        "job 1 failed: data [x]: no files",
        "job 10 unfinished: no result",
        f"sweep:  {sweep.folder} (report.html, report.csv, runs.csv)",
        f"curves: tensorboard --logdir {sweep.folder}",
    ]


def test_the_folder_of_a_sweep_is_printed_as_a_shell_takes_it(tmp_path, capsys):
    folder = tmp_path / "my sweep, <b>"
    make_run(folder / "0_model=resnet8", accuracy=0.5)
    (folder / "multirun.yaml").write_text("")
    print_summary(Sweep(folder), planned=1)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"sweep:  '{folder}' (report.html, report.csv, runs.csv)",
        f"curves: tensorboard --logdir '{folder}'",
    ]


def test_jobs_that_have_not_begun_are_counted(sweep, capsys):
    print_summary(sweep, planned=6)
    assert "2 of 6 jobs have not begun" in capsys.readouterr().out.splitlines()


def test_finished_trials_whose_folders_are_missing_are_not_called_new(sweep, capsys):
    print_summary(sweep, planned=6, lost=1)
    shown = capsys.readouterr().out.splitlines()
    assert "the folder of 1 finished trial is missing" in shown
    assert "1 of 6 jobs has not begun" in shown
    print_summary(sweep, planned=6, lost=2)
    shown = capsys.readouterr().out
    assert "the folders of 2 finished trials are missing\n" in shown
    assert "not begun" not in shown


def test_a_report_that_cannot_be_written_is_one_line_after_the_table(sweep, capsys):
    (sweep.folder / "report.csv").mkdir()
    assert print_summary(sweep, planned=4) == 2
    shown = capsys.readouterr()
    assert "job 2" in shown.out
    assert shown.out.splitlines()[-1] == f"curves: tensorboard --logdir {sweep.folder}"
    assert shown.err == f"error: the report cannot be written into {sweep.folder}: Is a directory\n"


def test_a_sweep_whose_jobs_all_failed_has_no_table(tmp_path, capsys):
    make_run(tmp_path / "0_seed=1", result={"status": "interrupted", "error": "SIGTERM"})
    assert print_summary(Sweep(tmp_path), planned=1) == 1
    assert capsys.readouterr().out.splitlines()[0] == "job 0 interrupted: SIGTERM"


def test_a_sweep_without_jobs_prints_and_writes_nothing(tmp_path, capsys):
    assert print_summary(Sweep(tmp_path), planned=1) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_records_whether_all_of_its_jobs_finished(tmp_path):
    make_run(tmp_path / "0", accuracy=0.5)  # the folder of a job without overrides
    make_run(tmp_path / "1_seed=2", result={"status": "failed", "error": "no files"})
    recorded = []
    for status in ("finished", "interrupted"):
        print_summary(Sweep(tmp_path), 2, status)
        recorded.append(json.loads((tmp_path / "result.json").read_text()))
    (tmp_path / "1_seed=2" / "result.json").write_text((tmp_path / "0" / "result.json").read_text())
    print_summary(Sweep(tmp_path), 2)
    recorded.append(json.loads((tmp_path / "result.json").read_text()))
    assert [(each["status"], each["jobs"], each["failed"]) for each in recorded] == [
        ("failed", 2, 1), ("interrupted", 2, 1), ("finished", 2, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["leaderboard.read_report", "terminal.print_report", "writing.write_report"])
def test_an_error_of_the_report_does_not_hide_how_the_sweep_ended(sweep, capsys, monkeypatch, part):
    """An OverflowError ended a sweep without a result, because gradient_clip_val was 1e300."""

    def fail(*arguments):
        raise OverflowError("cannot convert \x1b[5mfloat infinity\nto integer")

    monkeypatch.setattr(f"reslab.reports.{part}", fail)
    assert print_summary(sweep, planned=5, unrecorded=1) == 3
    shown = capsys.readouterr()
    reason = "OverflowError: cannot convert \\x1b[5mfloat infinity to integer"
    assert shown.err == f"error: a part of the report of {sweep.folder} failed ({reason})\n"
    assert ("report.html" in shown.out) == (part == "terminal.print_report")
    assert shown.out.splitlines()[-1] == f"curves: tensorboard --logdir {sweep.folder}"
    result = json.loads((sweep.folder / "result.json").read_text())
    assert result == {"status": "failed", "jobs": 4, "failed": 3}
