"""What runs without a cluster; test_slurm_cluster.py needs one."""

import json
import os
import pickle
import signal
import subprocess
import sys

import pytest
import yaml
from omegaconf import OmegaConf

from reslab.configuration import CONF
from reslab.errors import Interrupted, RunError, UserError
from reslab.interruption import signals
from reslab.sweeps.launchers.slurm import REQUESTS_TO_END, SlurmLauncher, SlurmTask, refusal, setup_commands

OPTIONS = yaml.safe_load((CONF / "hydra/launcher/slurm.yaml").read_text(encoding="utf-8"))
del OPTIONS["_target_"]


@pytest.fixture
def slurm_task(tmp_path, monkeypatch):
    """A function that makes a task whose command sends SIGUSR2 to it, as SLURM does, and ends when it receives that.

    SLURM has started the job again once.
    """
    before = {number: signal.signal(number, lambda number, frame: None) for number in REQUESTS_TO_END}
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    command = "trap 'exit 140' USR2; for i in {1..1000}; do kill -USR2 $PPID; sleep 0.01; done; exit 3"
    yield lambda max_requeues: SlurmTask(["bash", "-c", command], tmp_path, max_requeues)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_job_that_is_out_of_time_is_requeued_when_its_command_has_saved(slurm_task, monkeypatch):
    called = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    monkeypatch.setattr(signal, "pause", lambda: sys.exit("SLURM ends it"))
    with pytest.raises(SystemExit, match="SLURM ends it"):
        slurm_task(max_requeues=2)()
    assert called == [["scontrol", "requeue", "12"]]


def test_a_job_that_was_restarted_too_often_fails_with_one_line(slurm_task, tmp_path):
    line = "out of time after max_requeues=1 restarts; it continues when the sweep is resumed"
    with pytest.raises(RunError, match=f"^{line}$"):
        slurm_task(max_requeues=1)()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result.pop("ended")[10] == "T"
    assert result == {"status": "failed", "error": line, "folder": str(tmp_path)}


@pytest.mark.parametrize("number", [4, None])
def test_a_job_has_as_many_threads_as_processors(number):
    assert SlurmLauncher(max_requeues=1, cpus_per_task=number).threads() == number


def test_a_job_that_was_refused_has_printed_why(tmp_path):
    log = tmp_path / "1_0_log.out"
    assert refusal(log) is None
    log.write_text("loading …\n")
    assert refusal(log) is None
    log.write_text("loading …\nerror: data.batch_size=5000 is too much\nsubmitit ERROR (…)\n  error: no line of ours\n")
    assert refusal(log) == "data.batch_size=5000 is too much"


def test_a_node_can_import_the_task(tmp_path):
    file = tmp_path / "task.pickle"
    file.write_bytes(pickle.dumps(SlurmTask(["true"], tmp_path, 1)))
    script = f"import pickle, os; print(pickle.load(open('{file}', 'rb')).command, os.environ['OMP_NUM_THREADS'])"
    commands = [*setup_commands(), f'{sys.executable} -c "{script}"']
    done = subprocess.run(
        ["bash", "-c", "; ".join(commands)], cwd=tmp_path, env={"SLURM_CPUS_PER_TASK": "3"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("['true'] 3\n", "")


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"timeout_min": "abc"}, "hydra.launcher.timeout_min=abc must be an integer of at least 1, or be null"),
        ({"nodes": 0}, "hydra.launcher.nodes=0 must be an integer of at least 1"),
        ({"mem_gb": -1}, "hydra.launcher.mem_gb=-1 must be a number above 0, or be null"),
        ({"max_requeues": None}, "hydra.launcher.max_requeues=null must be an integer of at least 0"),
    ],
)
def test_a_wrong_option_is_one_line(option, line):
    with pytest.raises(UserError, match=f"^{line}$"):
        SlurmLauncher(**OPTIONS | option)


@pytest.fixture
def slurm_commands(tmp_path, monkeypatch):
    """A function that puts an `sbatch` with the given script before SLURM's commands; squeue finds no job."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(sbatch):
        for name, script in {"sbatch": sbatch, "squeue": "true", "srun": "true", "scancel": "false"}.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return make


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ({"slurm_partition": "gpuu"}, "sbatch refused the jobs: sbatch: error: invalid partition specified: gpuu"),
        ({"slurm_constrain": "a100"}, "hydra.launcher: Unknown argument 'constrain' for executor 'slurm' "),
    ],
)
def test_what_slurm_refuses_is_one_line(launch, slurm_commands, option, line):
    pytest.importorskip("submitit")
    slurm_commands("echo 'sbatch: error: invalid partition specified: gpuu' >&2; exit 1")
    with pytest.raises(UserError, match=f"^{line}"):
        launch(1, launcher=SlurmLauncher(**OPTIONS | option))


def test_a_parameter_that_slurm_does_not_know_is_refused_before_the_sweeps_folder_changes(slurm_commands, tmp_path):
    pytest.importorskip("submitit")
    slurm_commands("exit 1")
    launcher = SlurmLauncher(**OPTIONS | {"slurm_constrain": "a100"})
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
    with pytest.raises(UserError, match=r"^hydra\.launcher: Unknown argument 'constrain'"):
        launcher.check_jobs([])
    assert not (tmp_path / "sweep").exists()


def test_jobs_that_slurm_takes_during_ctrl_c_are_not_forgotten(launch, slurm_commands, tmp_path, capsys, monkeypatch):
    pytest.importorskip("submitit")
    slurm_commands("kill -INT $PPID; echo Submitted batch job 12")
    monkeypatch.setattr(signals, "caught", None)
    before = signal.signal(signal.SIGINT, signals.receive)
    try:
        with pytest.raises(Interrupted):
            launch(1, launcher=SlurmLauncher(**OPTIONS | {"timeout_min": None}))
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().out.splitlines()[-1] == "1 jobs stay in SLURM's queue: scancel 12 cancels them"
    assert (tmp_path / "sweep/0_model=resnet8_seed=1/.slurm_id").read_text() == "12"
