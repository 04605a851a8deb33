"""What runs without a cluster; test_slurm_cluster.py needs one."""

import json
import pickle
import signal
import subprocess
import sys

import pytest

from reslab.errors import RunError
from reslab.sweeps.launchers.slurm import REQUESTS_TO_END, SlurmLauncher, SlurmTask, setup_commands


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
    line = "out of time after max_requeues=1 restarts: resume=<the sweep> continues the job"
    with pytest.raises(RunError, match=f"^{line}$"):
        slurm_task(max_requeues=1)()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result.pop("ended")[10] == "T"
    assert result == {"status": "failed", "error": line, "folder": str(tmp_path)}


@pytest.mark.parametrize("number", [4, None])
def test_a_job_has_as_many_threads_as_processors(number):
    assert SlurmLauncher(max_requeues=1, cpus_per_task=number).threads() == number


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
