import json
import os
import signal
import subprocess

import pytest

from reslab.commands.resume import resumed_command_line
from reslab.errors import Interrupted, RunError, UserError
from reslab.interruption import signals
from reslab.reports.leaderboard import read_report
from reslab.run import Run
from reslab.sweeps.launchers.parallel import ParallelLauncher
from reslab.sweeps.summary import SweepFailed


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


def test_a_job_that_fails_or_is_killed_leaves_the_others_alone(launch):
    returned = launch(4, 5, 3, 7)
    assert [job.status.name for job in returned] == ["FAILED", "FAILED", "COMPLETED", "FAILED"]
    with pytest.raises(RunError, match=r"^the loss became nan$"):
        _ = returned[0].return_value
    with pytest.raises(RunError, match=r"^exit status -9, see .*5/output.txt$"):
        _ = returned[1].return_value
    with pytest.raises(RunError, match=r"^the folder is in use$"):
        _ = returned[3].return_value


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


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True])
def test_a_wrong_number_of_jobs_is_one_line(n_jobs):
    with pytest.raises(UserError, match=r"^hydra\.launcher\.n_jobs=\S+ must be an integer of at least 1"):
        ParallelLauncher(n_jobs)


def was_interrupted_before_the_third_job(sweep):
    status = json.loads((sweep / "0_model=resnet8_seed=6" / "result.json").read_text())["status"]
    return status == "interrupted" and not (sweep / "2_model=resnet8_seed=3").exists()


def test_a_failure_ends_the_sweep_if_it_should(launch, tmp_path):
    with pytest.raises(SweepFailed):
        launch(6, 4, 3, stop_on_failure=True)
    assert was_interrupted_before_the_third_job(tmp_path / "sweep")


def test_after_a_signal_the_running_jobs_save_and_no_other_begins(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "caught", None)  # restored at the end
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.listen()
    result = tmp_path / "sweep" / "0_model=resnet8_seed=6" / "result.json"
    sender = subprocess.Popen(["bash", "-c", f"while [ ! -f {result} ]; do :; done; kill -INT {os.getpid()}"])
    try:
        with pytest.raises(Interrupted):
            launch(6, 6, 3)
    finally:
        sender.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert was_interrupted_before_the_third_job(tmp_path / "sweep")
