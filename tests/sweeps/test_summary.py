import json
import os
import subprocess
import sys

import pytest
from conftest import CONF
from fake_runs import cells, make_run
from filelock import FileLock
from test_commands import no_torch, run  # noqa: F401

from reslab.sweeps.summary import print_summary

STOPS = ("trainer.max_epochs=-1", "trainer.max_steps=-1,5", "sweep.stop_on_failure=true", "hydra.sweep.dir=sweep")
STOPPED = "trainer.max_epochs=-1 and trainer.max_steps=-1 would never end: set one of them"


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    make_run(tmp_path / "0_model=resnet8", accuracy=0.5)
    make_run(tmp_path / "1_model=[x]", model__name="[x]", result={"status": "failed", "error": "data [x]: no files"})
    make_run(tmp_path / "2_model=resnet20", accuracy=0.75, model__name="resnet20")
    make_run(tmp_path / "10_model=resnet32", model__name="resnet32")
    (tmp_path / "multirun.yaml").write_text("")
    (tmp_path / "0_not_a_job").mkdir()
    return tmp_path


def test_a_sweep_without_seeds_ends_with_a_row_a_job(sweep, capsys):
    assert print_summary(sweep) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "2 runs by validation accuracy"
    assert cells(lines[2]) == ["run", "model", "val/accuracy", "test/accuracy", "seconds"]
    assert [cells(line) for line in lines if line.startswith("│")] == [
        ["job 2", "resnet20", "0.7500", "0.7400", "12.5"],
        ["job 0", "resnet8", "0.5000", "0.4900", "12.5"],
    ]
    assert lines[-4:] == [
        "job 1 failed: data [x]: no files",
        "job 10 unfinished: no result",
        f"sweep:  {sweep} (report.html, report.csv, runs.csv)",
        f"curves: tensorboard --logdir {sweep}",
    ]


def test_a_report_that_cannot_be_written_is_one_line_after_the_table(sweep, capsys):
    (sweep / "report.csv").mkdir()
    assert print_summary(sweep) == 2
    shown = capsys.readouterr()
    assert "job 2" in shown.out
    assert shown.out.splitlines()[-1] == f"curves: tensorboard --logdir {sweep}"
    assert shown.err == f"error: the report cannot be written into {sweep}: Is a directory\n"


def test_a_mistake_leaves_no_folder(tmp_path, no_torch):  # noqa: F811
    done = run("train", "-m", "model=resnet8,resnet88", cwd=tmp_path, **no_torch)
    line = "error: model=resnet88 does not exist: did you mean resnet8 or resnet18 or resnet9?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(tmp_path.glob("outputs/multirun/*")) == []


def test_what_is_wrong_in_any_job_is_told_before_the_first(tmp_path, no_torch):  # noqa: F811
    for mistake, line in (
        ("optimizer.lr=0.1,-1", "optimizer.lr=-1 must be a number above 0"),
        ("sweep.stop_on_failure=yes", "sweep.stop_on_failure=yes must be true or false"),
        ("label_smoothing=choice(0) trainer.max_epochs=-1", STOPPED),
        ("model=glob(none*)", "model=glob(none*) has no values"),
        ("outputs=", "outputs= must be a path (a number in quotes: \"'2024'\")"),
        ("outputs=a,b", "outputs=a,b must be one folder; a comma in its name needs quotes"),
        ("outputs=notes", "notes/multirun cannot be made (Not a directory): outputs=<folder> is another place"),
        ("hydra.sweeper.trials=3", "there is no option trials of this hydra.sweeper: hydra/sweeper=… chooses another"),
        ("hydra.sweeper.max_batch_size=0", "hydra.sweeper.max_batch_size=0 must be a whole number of at least 1, below "
         "2**31 or null"),
    ):  # fmt: skip
        (tmp_path / "notes").touch()
        done = run("train", "-m", "seed=1,2", *mistake.split(), cwd=tmp_path, **no_torch)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {line}\n")
        assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["notes"]


def test_a_mistake_leaves_what_was_there(tmp_path, no_torch):  # noqa: F811
    (tmp_path / "notes").write_text("mine")
    done = run("train", "-m", "model=resnet8,resnet88", f"hydra.sweep.dir={tmp_path}", cwd=tmp_path, **no_torch)
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_sweep_that_goes_on_is_kept(tmp_path, no_torch):  # noqa: F811
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text(
        "hydra: {overrides: {hydra: [hydra.mode=MULTIRUN], task: ['model=resnet8,no']}}"
    )
    done = run("train", "resume=sweep", cwd=tmp_path, **no_torch)
    assert (done.returncode, done.stderr.split(";")[0]) == (2, "error: model=no does not exist")
    assert (tmp_path / "sweep" / "multirun.yaml").is_file()


def test_a_sweep_that_a_failure_stops_tells_how_to_go_on(tmp_path, no_torch):  # noqa: F811
    done = run("train", "-m", *STOPS, cwd=tmp_path, **no_torch)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[lines.index(f"job 0 failed: {STOPPED}") + 1] == "1 of 2 jobs have not begun"
    assert done.stderr == "stopped by a failure: resume=sweep goes on with the sweep\n"
    assert json.loads((tmp_path / "sweep" / "result.json").read_text()) == {"status": "failed", "jobs": 1, "failed": 1}


def test_a_terminal_that_lacks_a_character_shows_the_rest(tmp_path, no_torch):  # noqa: F811
    ascii_only = no_torch | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("train", "-m", *STOPS[:-1], "hydra.sweep.dir=größe", cwd=tmp_path, **ascii_only)
    assert done.returncode == 1
    assert "sweep:  gr??e (report.html, report.csv, runs.csv)" in done.stdout.splitlines()


def test_a_sweep_that_another_process_runs_is_left_alone(tmp_path, no_torch):  # noqa: F811
    run("train", "-m", *STOPS, cwd=tmp_path, **no_torch)
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    train = str(CONF.parent / "src" / "train.py")
    script = (
        f"import reslab.files, runpy; reslab.files.LOCK_SECONDS = 0; runpy.run_path({train!r}, run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([no_torch["PYTHONPATH"], str(CONF.parent / "src")])}
    with FileLock(tmp_path / "sweep" / ".lock"):
        command = [sys.executable, "-c", script, "resume=sweep"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: sweep is in use: another process trains there\n")
    assert {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()} == before


def test_a_sweep_of_failures_has_no_table(tmp_path, capsys):
    make_run(tmp_path / "0_seed=1", result={"status": "interrupted", "error": "SIGTERM"})
    assert print_summary(tmp_path) == 1
    assert capsys.readouterr().out.splitlines()[0] == "job 0 interrupted: SIGTERM"


def test_a_sweep_without_jobs_is_silent(tmp_path, capsys):
    assert print_summary(tmp_path) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_records_whether_all_of_its_jobs_finished(tmp_path):
    make_run(tmp_path / "0", accuracy=0.5)  # `-m` alone
    make_run(tmp_path / "1_seed=2", result={"status": "failed", "error": "no files"})
    recorded = []
    for status in ("finished", "interrupted"):
        print_summary(tmp_path, status)
        recorded.append(json.loads((tmp_path / "result.json").read_text()))
    (tmp_path / "1_seed=2" / "result.json").write_text((tmp_path / "0" / "result.json").read_text())
    print_summary(tmp_path)
    recorded.append(json.loads((tmp_path / "result.json").read_text()))
    assert [(each["status"], each["jobs"], each["failed"]) for each in recorded] == [
        ("failed", 2, 1), ("interrupted", 2, 1), ("finished", 2, 0),
    ]  # fmt: skip
