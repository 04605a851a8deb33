import sys

import pytest
from hydra.core.utils import JobStatus

from reslab.files import FolderInUseError
from reslab.sweeps.launchers.commands import CommandJob, own_share


def command_job(folder, *overrides):
    options = {"objective": ["val/accuracy", "val/loss"], "resume": None, "seed": 3}
    return CommandJob(0, ["seed=3", *overrides], lambda: (folder, options))


def test_the_command_of_a_job_has_the_users_own_configuration_and_writes_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", "mine", "-m", "seed=3"])
    job = command_job(tmp_path / "it's", "hydra/launcher=parallel")
    place = f"hydra.run.dir='{tmp_path}/it\\'s'"
    run = ["hydra.mode=RUN", place]  # an experiment may ask for a sweep
    assert job.command == [sys.executable, "train.py", "--config-dir=mine", "seed=3", *run]
    monkeypatch.setattr(sys, "argv", ["train.py", "hydra.searchpath=[file:///mine]", "seed=3", "-m"])
    assert job.command == [sys.executable, "train.py", "hydra.searchpath=[file:///mine]", "seed=3", *run]


def test_a_command_that_is_started_again_resumes_its_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    new, resumed = command_job(tmp_path), command_job(tmp_path, "resume='folder'")
    assert new.restartable_command == [*new.command, "resume=auto"]
    assert resumed.restartable_command == resumed.command
    benchmark = CommandJob(0, ["seed=3"], lambda: (tmp_path, {"seed": 3}))  # it has no option resume
    assert benchmark.restartable_command == benchmark.command


def test_a_job_returns_its_objectives_or_its_error(tmp_path):
    finished, failed = command_job(tmp_path / "a"), command_job(tmp_path / "b")
    finished.run.finish({"val/accuracy": 0.5, "val/loss": 1.25})
    assert finished.end(None) == "#0 finished: val/accuracy 0.5000, val/loss 1.2500"
    assert finished.returned.return_value == [0.5, 1.25]
    assert failed.end("exit status -9") == "#0 failed: exit status -9"
    assert failed.run.result["error"] == "exit status -9"
    assert failed.run.overrides == ["seed=3"]
    assert failed.run.config == {"objective": ["val/accuracy", "val/loss"], "resume": None, "seed": 3}


def test_a_job_whose_folder_another_process_uses_writes_nothing_there(tmp_path):
    job = command_job(tmp_path / "a")
    job.folder.mkdir()
    assert job.end("a is in use: another process trains there").endswith(
        "failed: a is in use: another process trains there"
    )
    assert isinstance(job.returned._return_value, FolderInUseError)
    assert list(job.folder.iterdir()) == []


def test_a_benchmark_has_ended_without_objectives(tmp_path):
    job = command_job(tmp_path / "a")
    job.folder.mkdir()
    (job.folder / "benchmark.json").write_text('{"cases": [{"ms": 1}]}')
    assert job.end(None) == f"#0 finished: {tmp_path}/a/benchmark.json"
    assert job.returned.status == JobStatus.COMPLETED
    (job.folder / "benchmark.json").write_text('{"cases": [{"ms": 1}, {"error": "out of memory"}]}')
    assert job.end("exit status 1") == "#0 failed: out of memory"
    assert job.returned.status == JobStatus.FAILED


def test_an_error_is_the_exit_status_or_what_a_refused_command_printed(tmp_path):
    job = command_job(tmp_path)
    job.output.write_text("waiting\nerror: the folder is in use\n")
    errors = {status: job.error_of(status) for status in (0, 1, 2, -9)}
    assert errors == {
        0: None,
        1: f"exit status 1, see {tmp_path}/output.txt",
        2: "the folder is in use",
        -9: f"exit status -9, see {tmp_path}/output.txt",
    }


@pytest.mark.parametrize(
    ("devices", "slots", "shares"),
    [
        ("0123", 2, ["02", "13"]),
        ("012", 2, ["0", "1"]),
        ("01234567", 3, ["03", "14", "25"]),
        ("35", 2, ["3", "5"]),
        ("35", 3, ["3", "5", "3"]),
    ],
)
def test_jobs_share_the_gpus(devices, slots, shares):
    assert [own_share(list(devices), slot, slots) for slot in range(slots)] == [list(each) for each in shares]
