"""hydra/launcher=slurm on a real SLURM cluster: tests/slurm/start makes one of this machine."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import FP32, SRC, equal, last_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]
TRAIN = SRC / "train.py"
LAUNCHER = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10")
JOB = ("model=resnet8", FP32)
ONE = (*JOB, "trainer=cpu", "trainer.max_epochs=60")
TWO = (*JOB, "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=20")


def train(folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, TRAIN, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    )


def slurm(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def submitted(sweep):
    """The ids of the jobs that a sweep has submitted, from its first line."""
    return sweep.stdout.readline().strip().partition(": ")[2].split()  # Submitted 2 jobs: 12_0 12_1


def until(condition):
    """Wait for a condition, without using a processor that a job needs."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def await_first_epoch(folder):
    until(lambda: list((folder / "sweep").glob("0_*/metrics.csv")))
    (job,) = (folder / "sweep").glob("0_*")
    return job


def start_again(job):
    """Start a job that was requeued; SLURM itself would wait for two minutes."""
    requeued = ("JobState=PENDING", "Restarts=1")
    until(lambda: all(each in slurm("scontrol", "show", "job", job) for each in requeued))
    slurm("scontrol", "update", f"jobid={job}", "StartTime=now")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single")
    assert train(folder, *ONE, "hydra.run.dir=single").wait(timeout=300) == 0
    return last_weights(folder / "single")


def test_each_job_of_a_sweep_is_a_job_of_slurm(tmp_path):
    sweep = train(
        tmp_path, "-m", *LAUNCHER, *JOB, "trainer=cpu", "trainer.max_epochs=1", "data.batch_size=64,5000",
        "hydra.sweep.dir=sweep",
    )  # fmt: skip
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1
    assert "Submitted 2 jobs" in printed
    assert "#1 failed: data.batch_size=5000 is more than the 1295 training images" in printed
    first, second = sorted((tmp_path / "sweep").glob("[01]_*"))
    assert json.loads((first / "result.json").read_text())["status"] == "finished"
    assert json.loads((second / "result.json").read_text())["status"] == "failed"
    assert train(tmp_path, *JOB, "trainer=cpu", "trainer.max_epochs=1", "hydra.run.dir=single").wait(timeout=300) == 0
    assert equal(last_weights(first), last_weights(tmp_path / "single"))


def test_a_preempted_job_ends_with_the_same_weights(tmp_path, uninterrupted):
    sweep = train(tmp_path, "-m", *LAUNCHER, *ONE, "hydra.sweep.dir=sweep")
    (job,) = submitted(sweep)
    folder = await_first_epoch(tmp_path)
    urgent = f"--output={tmp_path}/urgent.txt"
    slurm("sbatch", "--partition=high", "--exclusive", "--wait", urgent, "--wrap=hostname")  # preempts partition low
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    start_again(job)
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0
    assert "#0 finished" in printed
    assert "resumed from" in (folder / "train.log").read_text()
    assert equal(last_weights(folder), uninterrupted)


def test_a_job_that_is_out_of_time_is_requeued_as_often_as_it_may(tmp_path, uninterrupted):
    sweep = train(tmp_path, "-m", *LAUNCHER, *ONE, "hydra.launcher.max_requeues=1", "hydra.sweep.dir=sweep")
    (job,) = submitted(sweep)
    folder = await_first_epoch(tmp_path)
    slurm("scancel", "--signal=USR2", job)  # SLURM sends it slurm_signal_delay_s before the time is over
    start_again(job)
    until(lambda: "resumed from" in (folder / "train.log").read_text())
    slurm("scancel", "--signal=USR2", job)
    printed, _ = sweep.communicate(timeout=300)
    line = "failed: out of time after max_requeues=1 restarts; it continues when the sweep is resumed"
    assert f"#0 {line} (1 of 1)\n" in printed
    assert f"job 0 {line}\n" in printed
    assert sweep.returncode == 1
    assert train(tmp_path, "resume=sweep").wait(timeout=300) == 0
    assert (folder / "train.log").read_text().count("resumed from") == 2
    assert equal(last_weights(folder), uninterrupted)


def test_a_job_of_two_processes_that_is_out_of_time_ends_with_the_same_weights(tmp_path):
    assert train(tmp_path, *TWO, "hydra.run.dir=single").wait(timeout=300) == 0
    sweep = train(tmp_path, "-m", *LAUNCHER, *TWO, "hydra.launcher.tasks_per_node=2", "hydra.sweep.dir=sweep")
    (job,) = submitted(sweep)
    folder = await_first_epoch(tmp_path)
    slurm("scancel", "--signal=USR2", job)
    start_again(job)
    printed, _ = sweep.communicate(timeout=300)
    assert "#0 finished" in printed
    assert sweep.returncode == 0
    assert "resumed from" in (folder / "train.log").read_text()
    assert equal(last_weights(folder), last_weights(tmp_path / "single"))


def test_a_resumed_sweep_waits_for_jobs_in_the_queue_and_reports_those_that_were_cancelled(tmp_path):
    sweep = train(
        tmp_path, "-m", *LAUNCHER, *ONE, "seed=1,2", "hydra.launcher.slurm_array_parallelism=1", "hydra.sweep.dir=sweep"
    )
    jobs = submitted(sweep)
    await_first_epoch(tmp_path)
    sweep.send_signal(signal.SIGINT)
    printed, _ = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert f"2 jobs stay in SLURM's queue: scancel {' '.join(jobs)} cancels them\n" in printed
    sweep = train(tmp_path, "resume=sweep")
    assert sweep.stdout.readline() == f"Waiting for 2 jobs that were submitted before: {' '.join(jobs)}\n"
    slurm("scancel", *jobs)  # the second has not begun
    printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1
    for number, job in enumerate(jobs):
        output = tmp_path / "sweep" / ".submitit" / job / f"{job}_0_log.out"
        assert f"\njob {number} failed: SLURM ended the job before it finished, see {output}\n" in printed


NO_TIME = (
    "hydra.launcher.timeout_min=3 leaves a job no time: "
    "it must save slurm_signal_delay_s=120 seconds before the end, or up to 60 seconds earlier"
)
ONE_TASK = "trainer.devices=2 needs hydra.launcher.tasks_per_node=2, not 1: one task per device"


@pytest.mark.parametrize(("arguments", "line"), [(TWO, ONE_TASK), (["hydra.launcher.timeout_min=3"], NO_TIME)])
def test_a_job_that_could_not_run_is_refused(arguments, line, tmp_path):
    command = [sys.executable, TRAIN, "-m", *LAUNCHER, *arguments]
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert (refused.returncode, refused.stderr) == (2, f"error: {line}\n")
