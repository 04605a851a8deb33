import json
import os
import signal
import subprocess
from types import SimpleNamespace

import pytest

from reslab.commands.resume import resumed_command_line
from reslab.errors import Interrupted, RunError, UserError
from reslab.interruption import signals
from reslab.reports.leaderboard import read_report
from reslab.run import Run
from reslab.sweeps.folder import Sweep
from reslab.sweeps.launchers import commands
from reslab.sweeps.launchers.commands import CommandJob
from reslab.sweeps.launchers.parallel import ParallelLauncher
from reslab.sweeps.summary import SweepFailed


@pytest.mark.slow
def test_jobs_run_two_at_a_time_each_with_its_share(launch, results, tmp_path):
    returned = launch(1, 2, 3)
    assert [job.return_value for job in returned] == [[0.1], [0.2], [0.3]]
    assert [path.name for path in sorted((tmp_path / "sweep").glob("*_*"))] == [
        f"{number}_model=resnet8_seed={number + 1}" for number in range(3)
    ]
    noted = results()
    assert [result["given"] for result in noted] == [{"model": "resnet8", "seed": str(seed)} for seed in (1, 2, 3)]
    assert {result["environment"]["OMP_NUM_THREADS"] for result in noted} == {"4"}
    assert [result["environment"]["CUDA_VISIBLE_DEVICES"] for result in noted[:2]] == ["3", "5"]
    assert {result["environment"]["HYDRA_FULL_ERROR"] for result in noted} == {None}


def test_jobs_divide_the_threads(monkeypatch, script):
    assert [ParallelLauncher(n_jobs=number).threads() for number in (1, 3, 9)] == [8, 2, 1]
    assert [ParallelLauncher(n_jobs=number).threads(processes=2) for number in (1, 3, 9)] == [4, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert ParallelLauncher(n_jobs=2).threads(processes=2) == 3


@pytest.mark.parametrize(("devices", "threads"), [(1, "8"), (2, "4"), ([0, 1, 2, 3], "2"), ("auto", "8")])
def test_the_processes_of_a_job_divide_its_threads(script, tmp_path, devices, threads):
    started = []
    guard = SimpleNamespace(start=lambda command, env, **files: started.append(env))
    options = {"trainer": {"devices": devices}}
    CommandJob(0, [], lambda: (tmp_path / "job", options)).start(guard, slot=0, slots=1)
    assert started[0]["OMP_NUM_THREADS"] == threads


@pytest.mark.slow
def test_a_job_that_fails_or_is_killed_leaves_the_others_alone(launch):
    returned = launch(4, 5, 3, 7)
    assert [job.status.name for job in returned] == ["FAILED", "FAILED", "COMPLETED", "FAILED"]
    with pytest.raises(RunError, match=r"^the loss became nan$"):
        _ = returned[0].return_value
    with pytest.raises(RunError, match=r"^exit status -9, see .*5/output.txt$"):
        _ = returned[1].return_value
    with pytest.raises(RunError, match=r"^the folder is in use$"):
        _ = returned[3].return_value


@pytest.mark.slow
def test_a_job_that_was_killed_before_it_began_is_in_the_report_and_can_be_resumed(launch, tmp_path):
    launch(5)
    (entry,) = read_report([tmp_path / "sweep"]).not_finished
    assert entry.failure == f"failed: exit status -9, see {entry.folder / 'output.txt'}"
    assert entry.settings["model"] == "resnet8"
    resumed = resumed_command_line([f"resume={entry.folder}"])
    assert resumed[:2] == ["model=resnet8", "seed=5"]


def test_a_job_that_fails_after_it_has_written_its_result_has_finished(launch, results):
    (job,) = launch(9)
    assert (job.status.name, job.return_value) == ("COMPLETED", [0.9])
    assert [result["status"] for result in results()] == ["finished"]


def test_the_failure_of_an_earlier_start_is_not_reported_again(launch, results, tmp_path):
    Run(tmp_path / "sweep" / "0_model=resnet8_seed=7").fail("an earlier failure")
    launch(7)
    assert [result["error"] for result in results()] == ["the folder is in use"]


def test_a_job_whose_folder_disappears_is_the_only_one_that_fails(launch, results):
    returned = launch(10, 3)
    assert [job.status.name for job in returned] == ["FAILED", "COMPLETED"]
    with pytest.raises(RunError, match=r"^exit status 1, see .*10/output.txt$"):
        _ = returned[0].return_value
    assert [result["status"] for result in results()] == ["failed", "finished"]


@pytest.mark.slow
def test_a_job_that_cannot_be_started_is_the_only_one_that_fails(launch, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "0_model=resnet8_seed=1").touch()
    returned = launch(1, 3)
    assert [job.status.name for job in returned] == ["FAILED", "COMPLETED"]
    with pytest.raises(RunError, match=r"^its command cannot be started: .*File exists"):
        _ = returned[0].return_value


@pytest.mark.slow
def test_a_job_that_succeeds_without_a_result_has_failed(launch, results, tmp_path):
    (job,) = launch(11)
    error = f"it ended without a result, see {tmp_path}/sweep/0_model=resnet8_seed=11/output.txt"
    assert (job.status.name, results()[0]["error"]) == ("FAILED", error)
    with pytest.raises(SweepFailed):
        launch(11, 11, 11, 3, stop_on_failure=True)


@pytest.mark.slow
def test_a_job_that_is_out_of_time_saves_and_has_failed(launch, results):
    saved, finished = launch(6, 3, launcher=ParallelLauncher(n_jobs=1, timeout_min=0.05))
    assert [saved.status.name, finished.status.name] == ["FAILED", "COMPLETED"]
    error = "out of time after hydra.launcher.timeout_min=0.05; it continues when the sweep is resumed"
    assert [result.get("error") for result in results()] == [error, None]


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True])
def test_a_wrong_number_of_jobs_is_one_line(n_jobs):
    with pytest.raises(UserError, match=r"^hydra\.launcher\.n_jobs=\S+ must be an integer from 1 to 1024"):
        ParallelLauncher(n_jobs)
    with pytest.raises(
        UserError, match=r"^hydra\.launcher\.timeout_min=0 must be a number from 1e-09 to 1e\+07, or be null"
    ):
        ParallelLauncher(1, timeout_min=0)


def was_interrupted_before_the_third_job(sweep):
    status = json.loads((sweep / "0_model=resnet8_seed=6" / "result.json").read_text())["status"]
    return status == "interrupted" and not (sweep / "2_model=resnet8_seed=3").exists()


def test_a_failure_ends_the_sweep_if_it_should(launch, tmp_path):
    with pytest.raises(SweepFailed):
        launch(6, 4, 3, stop_on_failure=True)
    assert was_interrupted_before_the_third_job(tmp_path / "sweep")


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """A function that sends Ctrl-C to this process each time a file of job 0 appears."""
    monkeypatch.setattr(signals, "caught", None)  # restored at the end
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.listen()
    senders = []

    def send(seed, *files):
        folder = tmp_path / "sweep" / f"0_model=resnet8_seed={seed}"
        script = "".join(f"while [ ! -f {folder / file} ]; do :; done; kill -INT {os.getpid()}; " for file in files)
        senders.append(subprocess.Popen(["bash", "-c", script]))
        return folder

    yield send
    for sender in senders:
        sender.wait()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
def test_after_a_signal_the_running_jobs_save_and_no_other_begins(launch, tmp_path, interrupted, capfd):
    interrupted(6, "result.json")
    with pytest.raises(Interrupted):
        launch(6, 6, 3)
    assert was_interrupted_before_the_third_job(tmp_path / "sweep")
    line = "Waiting up to 60 s until #0, #1 have saved; Ctrl-C again kills them"
    assert capfd.readouterr().out.splitlines().count(line) == 1


@pytest.mark.slow
def test_a_job_that_is_ended_before_it_has_written_anything_has_begun(launch, results, interrupted):
    folder = interrupted(12, "began", "asked")
    with pytest.raises(Interrupted):
        launch(12, 3, launcher=ParallelLauncher(n_jobs=1))
    (result,) = results()
    assert result["status"] == "interrupted"
    assert [run.folder for run in Sweep(folder.parent).jobs] == [folder]


def processes_of(folder):
    """Return the command lines of the processes that belong to a job."""
    found = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in found if str(folder) in line and not line.startswith("Z")]


@pytest.mark.slow
@pytest.mark.parametrize("twice", [False, True])
def test_a_job_that_hangs_is_killed_with_all_its_processes(launch, interrupted, monkeypatch, twice):
    monkeypatch.setattr(commands, "SAVING_SECONDS", 3600 if twice else 0.2)
    folder = interrupted(12, *["began", "asked"][: 1 + twice])
    with pytest.raises(Interrupted):
        launch(12, 3, launcher=ParallelLauncher(n_jobs=1))
    assert processes_of(folder) == []
    assert not (folder.parent / "1_model=resnet8_seed=3").exists()


@pytest.mark.slow
def test_a_job_that_hangs_is_killed_when_it_is_out_of_time(launch, results, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "SAVING_SECONDS", 0.2)
    launch(12, 3, launcher=ParallelLauncher(n_jobs=1, timeout_min=0.03))
    assert [result["status"] for result in results()] == ["failed", "finished"]
    assert processes_of(tmp_path / "sweep") == []
