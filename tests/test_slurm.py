"""hydra/launcher=slurm on a real SLURM: tests/slurm/start makes one of this machine."""

import json
import os
import subprocess
import sys

import pytest
from conftest import CONF, FP32, equal, last_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("slurm")]
TRAIN = CONF.parent / "src" / "train.py"
LAUNCHER = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10")
JOB = ("model=resnet8", "trainer=cpu", FP32)


def train(folder, *arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, TRAIN, *arguments], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment
    )


def test_each_job_of_a_sweep_is_one_of_slurm(tmp_path):
    sweep = train(
        tmp_path, "-m", *LAUNCHER, *JOB, "trainer.max_epochs=1", "data.batch_size=64,5000", "hydra.sweep.dir=sweep"
    )
    told, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 1
    assert "Submitted 2 jobs" in told
    assert "#1 failed: data.batch_size=5000 is more than the 1295 training images" in told
    first, second = sorted((tmp_path / "sweep").glob("[01]_*"))
    assert json.loads((first / "result.json").read_text())["status"] == "finished"
    assert json.loads((second / "result.json").read_text())["status"] == "failed"
    assert train(tmp_path, *JOB, "trainer.max_epochs=1", "hydra.run.dir=single").wait(timeout=300) == 0
    assert equal(last_weights(first), last_weights(tmp_path / "single"))


def test_a_preempted_job_goes_on_exactly(tmp_path):
    arguments = (*JOB, "trainer.max_epochs=100")
    assert train(tmp_path, *arguments, "hydra.run.dir=single").wait(timeout=300) == 0
    sweep = train(tmp_path, "-m", *LAUNCHER, *arguments, "hydra.sweep.dir=sweep")
    job = sweep.stdout.readline().split()[3].rstrip(",")  # Submitted 1 jobs, 12 to 12
    while not list((tmp_path / "sweep").glob("0_*/metrics.csv")):
        assert sweep.poll() is None
    urgent = [
        "sbatch",
        "--partition=high",
        "--exclusive",
        "--wait",
        f"--output={tmp_path}/urgent.txt",
        "--wrap=hostname",
    ]
    subprocess.run(urgent, check=True, capture_output=True, timeout=300)  # it preempts all of partition low
    (folder,) = (tmp_path / "sweep").glob("0_*")
    assert json.loads((folder / "result.json").read_text())["status"] == "interrupted"
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    assert "Restarts=1" in shown
    subprocess.run(["scontrol", "update", f"jobid={job}", "StartTime=now"], check=True)  # SLURM would wait two minutes
    told, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0
    assert "#0 finished" in told
    assert "resumed from" in (folder / "train.log").read_text()
    assert equal(last_weights(folder), last_weights(tmp_path / "single"))
