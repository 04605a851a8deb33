import os
import sys
from contextlib import nullcontext

import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from reslab import machine
from reslab.commands.entry import command_line
from reslab.configuration import PACKAGE
from reslab.errors import UserError
from reslab.machine import (
    MOST_SPINS,
    RANK_VARIABLES,
    asked_threads,
    check_processes,
    command,
    foreign_variables,
    gpus,
    is_first_process,
    launched_by_slurm,
    processors,
    refuse_absent_gpu,
    share_of_processors,
    spin_variables,
)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_only_the_processors_that_this_process_may_use_are_counted():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("variable", "asked"), [("3", 3), ("4,2", 4), ("", None), ("0", None), ("-1", None), ("many", None)]
)
def test_threads_are_those_of_the_environment_or_a_share_of_the_processors(variable, asked, monkeypatch):
    monkeypatch.setattr(machine, "processors", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert asked_threads() == asked
    assert [share_of_processors(shares) for shares in (1, 3, 9)] == [asked or 8, asked or 2, asked or 1]


@pytest.mark.parametrize("variable", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_threads_soon_sleep_unless_the_user_has_said_how_they_wait(variable, monkeypatch):
    for each in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(each, raising=False)
    assert spin_variables() == {"GOMP_SPINCOUNT": MOST_SPINS}
    monkeypatch.setenv(variable, "active")
    assert spin_variables() == {}


def test_the_tests_see_no_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # tests/conftest.py: they expect the numbers of a CPU


@pytest.mark.parametrize(("visible", "seen"), [("3,5", ["3", "5"]), ("GPU-1f,GPU-2e", ["GPU-1f", "GPU-2e"]), ("", [])])
def test_only_the_gpus_that_this_process_may_use_are_named(visible, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen


SRUN = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
}
NOTEBOOK = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "jupyter"}
RANKS = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    """A function that sets variables of launchers and removes all others."""

    def make(variables):
        for name in [*os.environ]:
            if name.startswith(("SLURM_", "TORCHELASTIC_")) or name in RANK_VARIABLES:
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return make


@pytest.mark.parametrize(
    ("variables", "launched"),
    [
        (SRUN, True),
        (SRUN | {"SLURM_JOB_NAME": "interactive"}, True),  # srun within salloc
        (SRUN | {"SLURM_JOB_NAME": "bash"}, False),  # srun --pty bash
        (SRUN | {"SLURM_STEP_ID": "4294967290"}, False),  # a shell that salloc has started
        (SRUN | {"SLURM_STEP_NUM_TASKS": "1"}, False),  # one task of an allocation of four
        (NOTEBOOK, False),
        (NOTEBOOK | {"SLURM_JOB_NAME": "bash"}, False),
        (NOTEBOOK | {"SLURM_PROCID": "0"}, False),  # a batch script without srun
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_NTASKS": "1"}, False),
        ({}, False),
    ],
)
def test_only_one_of_several_tasks_of_srun_was_launched_by_slurm(environment, variables, launched):
    environment(variables)
    assert launched_by_slurm() == launched
    with command_line([], foreign_variables([])):
        assert SLURMEnvironment.detect() == launched  # what Lightning decides


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID"])
def test_a_rank_that_is_set_by_hand_counts(environment, name):
    environment({name: "0"})
    assert is_first_process()
    environment({name: "1"})
    assert not is_first_process()


@pytest.mark.parametrize(
    ("variables", "arguments", "removed"),
    [
        (RANKS, [], set(RANKS)),
        (RANKS, ["hydra.job.name=train_ddp_process_1"], set()),
        (RANKS, ["trainer.num_nodes=2"], set()),
        (RANKS | {"TORCHELASTIC_RUN_ID": "x"}, [], set()),
        (RANKS | NOTEBOOK, [], {*RANKS, "SLURM_NTASKS"}),
        (RANKS | SRUN, [], {"SLURM_JOB_NAME"}),
        ({}, [], set()),
    ],
)
def test_variables_of_a_launcher_that_has_not_started_this_process_are_removed(
    environment, variables, arguments, removed
):
    environment(variables)
    assert foreign_variables(arguments) == dict.fromkeys(removed)


@pytest.mark.parametrize(
    ("variables", "devices", "line"),
    [
        (SRUN, 1, "srun has started 4 processes, but trainer.devices=1 trainer.num_nodes=1 needs 1"),
        (RANKS | {"TORCHELASTIC_RUN_ID": "x"}, 1, "torchrun has started 2 processes, but trainer.devices=1 trainer"),
        (SRUN, 4, None),
        (SRUN, "auto", None),
        (RANKS | {"TORCHELASTIC_RUN_ID": "x"}, 2, None),
        (NOTEBOOK, 1, None),
    ],
)
def test_another_number_of_processes_than_the_options_ask_for_is_refused(environment, variables, devices, line):
    environment(variables)
    with pytest.raises(UserError, match=line) if line else nullcontext():
        check_processes(devices, 1)


def test_environment_variables_are_put_back(monkeypatch):
    monkeypatch.setenv("RESLAB_SET", "before")
    monkeypatch.delenv("RESLAB_ABSENT", raising=False)
    before = dict(os.environ)
    with machine.environment({"RESLAB_SET": "1", "RESLAB_ABSENT": "2"}):
        assert dict(os.environ) == before | {"RESLAB_SET": "1", "RESLAB_ABSENT": "2"}
    assert dict(os.environ) == before


# commands to paste


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with src/train.py and src/evaluate.py, and a Python with `reslab` in it, neither of them on the PATH."""
    (tmp_path / "my src" / "reslab").mkdir(parents=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("my src/evaluate.py", ".venv/bin/python", ".venv/bin/reslab"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    return tmp_path


@pytest.mark.parametrize(("on_path", "python"), [(False, ".venv/bin/python"), (True, "python")])
def test_a_script_is_called_as_this_one_was(checkout, monkeypatch, on_path, python):
    monkeypatch.setenv("PATH", str(checkout / ".venv" / "bin") if on_path else "/nowhere")
    monkeypatch.setattr(sys, "argv", ["my src/train.py", "seed=1"])
    assert command("evaluate", "checkpoint=a b") == f"{python} 'my src/evaluate.py' 'checkpoint=a b'"


@pytest.mark.parametrize(("on_path", "reslab"), [(False, ".venv/bin/reslab"), (True, "reslab")])
def test_the_installed_command_is_called_as_it_was(checkout, monkeypatch, on_path, reslab):
    monkeypatch.setenv("PATH", str(checkout / ".venv" / "bin") if on_path else "/nowhere")
    monkeypatch.setattr(sys, "argv", [str(PACKAGE / "commands" / "train.py")])
    assert command("evaluate", "checkpoint=a") == f"{reslab} evaluate checkpoint=a"


def test_a_package_without_its_command_is_called_by_its_file(checkout, monkeypatch):
    (checkout / ".venv" / "bin" / "reslab").unlink()
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["/there/commands/train.py"])
    assert command("report", "a") == ".venv/bin/python /there/commands/report.py a"


def test_a_gpu_of_which_linux_has_no_file_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "GPU_FILES", (str(tmp_path / "driver"),))
    line = r"^device=gpu, but torch \d\S+ finds no GPU here: device=cpu runs the same on the CPU$"
    with pytest.raises(UserError, match=line):
        refuse_absent_gpu("gpu", "device")
    for accelerator in ("auto", "cpu"):
        refuse_absent_gpu(accelerator, "device")
    (tmp_path / "driver").touch()  # torch knows whether it works
    refuse_absent_gpu("gpu", "device")
    monkeypatch.setattr(sys, "platform", "darwin")
    refuse_absent_gpu("mps", "device")
