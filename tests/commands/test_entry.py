import errno
import itertools
import json
import logging
import os
import signal
import sys
import time
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from reslab.commands.entry import (
    as_own_command,
    check,
    checked_task,
    command_line,
    fail,
    forget_variables,
    print_interruption,
    record_failure,
    recorded_failure,
    use_present_names,
)
from reslab.commands.resolvers import job_folder, new_folder
from reslab.configuration import initialized_hydra
from reslab.errors import FULL_ERROR, Interrupted, RunError, UserError, one_line
from reslab.files import FolderMovedError, RunLog
from reslab.inference.options import PREDICT_SCHEMA
from reslab.internals import run_hydra_job
from reslab.machine import LIGHTNING_PROCESS
from reslab.processes import FAILURES, LostProcessError, read_failure
from reslab.run import Run
from reslab.training.options import TRAINING_SCHEMA


def make_folder(parent):
    """Within a run the resolver gives the same folder again."""
    return new_folder.__wrapped__(parent)


@pytest.mark.parametrize(
    ("error", "line", "status", "lines"),
    [
        (UserError("no such thing:\n  do this"), "error: no such thing:; do this", 2, 1),
        (RuntimeError("no such kernel"), "error: RuntimeError: no such kernel", 1, 2),
        (OSError(errno.ENOSPC, "No space left", "a"), "error: the disk is full: free some space", 1, 1),
    ],
)
def test_the_exit_status_tells_mistakes_from_failures(capsys, error, line, status, lines):
    with pytest.raises(SystemExit) as stopped:
        fail(error, "config")
    assert stopped.value.code == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == line
    assert len(shown.err.splitlines()) == lines  # a failure also tells how to see the traceback
    assert "the run's log" not in shown.err  # there is none


def test_the_error_of_a_job_keeps_nothing_that_the_job_has_made():
    class Network:
        pass

    alive = weakref.WeakSet()

    def step():
        activations = Network()
        alive.add(activations)
        raise MemoryError

    def job():
        network = Network()
        alive.add(network)
        try:
            step()
        except MemoryError as error:
            raise RunError("out of memory") from error

    try:
        job()
    except RunError as error:
        kept = error
    assert len(alive) == 2
    forget_variables(kept)
    assert len(alive) == 0


def test_a_failure_names_the_log_of_its_run(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("reslab"), "handlers", [RunLog(tmp_path / "train.log")])
    for end in ("the traceback; the run's log has it too", "the traceback"):
        (tmp_path / "train.log").touch()
        if end == "the traceback":
            (tmp_path / "train.log").unlink()
        with pytest.raises(SystemExit):
            fail(RuntimeError("no such kernel"), "config")
        assert capsys.readouterr().err.splitlines()[1] == f"HYDRA_FULL_ERROR=1 shows {end}"


def test_a_folder_that_was_removed_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended:
        fail(FolderMovedError("run was removed"), "config")
    assert (ended.value.code, capsys.readouterr().err) == (1, "error: run was removed\n")


@pytest.mark.parametrize(
    ("checkpoint", "effect"),
    [("last.ckpt", "this continues the run"), (None, "nothing was saved yet, and this starts the run again")],
)
@pytest.mark.parametrize(
    ("number", "problem"),
    [
        (errno.ENOSPC, "the disk is full: free some space"),
        (errno.EIO, "the disk fails at a (why)"),
    ],
)
def test_what_ends_a_run_on_the_disk_names_what_continues_it(tmp_path, capsys, checkpoint, effect, number, problem):
    folder = tmp_path / "my run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".hydra").mkdir()
    if checkpoint:
        (folder / "checkpoints" / checkpoint).touch()
    config = OmegaConf.create({"resume": None})
    with (
        pytest.raises(RunError) as failed,
        recorded_failure(TRAINING_SCHEMA, Run(folder), False, config, lambda path: f"train.py 'resume={path}'"),
    ):
        raise OSError(number, "why", "a")
    line = f"{problem}; {effect}: train.py 'resume={folder}'"
    assert (str(failed.value), Run(folder).result["error"]) == (line, line)
    with pytest.raises(SystemExit):
        fail(failed.value, "config")
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    ("resume", "left", "continues"),
    [
        (None, ["checkpoints/last.ckpt"], True),
        (None, ["checkpoints/best.ckpt"], False),  # it has not trained long enough
        (None, ["checkpoints/last.ckpt", "result.json"], False),  # it has ended
        ("run", ["checkpoints/last.ckpt"], False),  # it has not resumed
        ("run", ["checkpoints/last.ckpt", ".hydra/overrides.yaml"], True),
    ],
)
def test_a_mistake_in_training_that_can_be_undone_names_what_continues_the_run(tmp_path, resume, left, continues):
    (tmp_path / ".hydra").mkdir()

    def mistake():
        with recorded_failure(
            TRAINING_SCHEMA, Run(tmp_path), False, OmegaConf.create({"resume": resume}), lambda path: f"train {path}"
        ):
            for name in left:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text('{"status": "finished"}')
            raise UserError("cannot read a: put it back")

    with pytest.raises(UserError) as failed:
        mistake()
    more = f"; this continues the run: train {tmp_path}" if continues else ""
    assert str(failed.value) == f"cannot read a: put it back{more}"


@pytest.mark.parametrize(("error", "status"), [(UserError("do that"), 2), (ValueError("not mine"), 1)])
def test_a_further_process_leaves_its_error_to_the_first_one(capsys, tmp_path, monkeypatch, error, status):
    monkeypatch.setattr(sys, "argv", ["train.py", f"{LIGHTNING_PROCESS}1"])
    monkeypatch.setenv(FAILURES, str(tmp_path / "failures"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    run = Run(tmp_path / "run")
    run.hydra_folder.mkdir(parents=True)
    record_failure(error, "config", run, records_mistakes=False)
    with pytest.raises(SystemExit) as stopped:
        fail(error, "config")
    assert (stopped.value.code, capsys.readouterr().err, run.status) == (status, "", "unfinished")
    left = read_failure(tmp_path / "failures", 1)
    assert (isinstance(left, UserError), str(left)) == (status == 2, one_line(error, "config"))


@pytest.mark.parametrize("error", [LostProcessError(), Interrupted(signal.SIGTERM)])
def test_a_process_that_lost_another_does_not_hide_why(tmp_path, monkeypatch, error):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    run = Run(tmp_path)
    run.hydra_folder.mkdir()
    record_failure(ValueError("of rank 1"), "config", run, records_mistakes=False)
    record_failure(error, "config", run, records_mistakes=False)
    assert run.result["error"] == "ValueError: of rank 1"


@pytest.mark.parametrize("chosen", [None, "1"])
def test_the_processes_of_a_run_inherit_what_the_user_has_chosen_about_tracebacks(tmp_path, monkeypatch, chosen):
    seen = []
    monkeypatch.delenv(FULL_ERROR, raising=False)
    with command_line(["train.py"], {FULL_ERROR: chosen}):
        task = checked_task(TRAINING_SCHEMA, lambda config: seen.append(os.environ.get(FULL_ERROR)))
        with command_line(["train.py"], {FULL_ERROR: "1"}), initialized_hydra():  # what this process sets for Hydra
            run_hydra_job("config", task, [f"hydra.run.dir={tmp_path}/run"])
    assert seen == [chosen]


def test_the_processes_of_a_job_find_the_users_own_configuration_and_train_one_run(tmp_path, monkeypatch, sweep_job):
    """Lightning starts them with the command line of this process."""
    own = ["--config-dir=mine", f"hydra.searchpath=['file://{tmp_path}']"]
    monkeypatch.setattr(sys, "argv", ["train.py", own[0], "-m", "optimizer.lr=0.1,0.2", own[1]])
    with as_own_command(None):
        assert sys.argv == ["train.py", *own, "optimizer.lr=0.1", "hydra.mode=RUN"]
    assert sys.argv[2] == "-m"
    assert HydraConfig.get().run.dir == str(tmp_path)


@pytest.fixture
def sweep_job(tmp_path, monkeypatch):
    """Let Hydra run the job `optimizer.lr=0.1` of a sweep, in a folder that exists."""
    options = {"mode": RunMode.MULTIRUN, "runtime": {"output_dir": str(tmp_path)}, "run": {"dir": "."}}
    config = OmegaConf.create(options | {"overrides": {"task": ["optimizer.lr=0.1"]}})
    OmegaConf.set_readonly(config, True)
    monkeypatch.setattr(HydraConfig, "get", lambda: config)


def test_what_must_be_given(composed):
    with pytest.raises(UserError, match=r"^checkpoint, images must be given, e\.g\. checkpoint=latest images=photos$"):
        check(compose("predict"), PREDICT_SCHEMA, [])
    with pytest.raises(UserError, match=r"^images must be given"):
        check(compose("predict", overrides=["checkpoint=a"]), PREDICT_SCHEMA, [])
    check(compose("predict", overrides=["checkpoint=a", "images=b"]), PREDICT_SCHEMA, [])


@pytest.mark.parametrize(
    ("before", "error", "in_sweep", "after"),
    [
        ("finished", Interrupted(signal.SIGTERM), False, "finished"),
        ("pruned", RuntimeError("the logger"), True, "pruned"),
        ("failed", UserError("in use"), False, "failed"),
        ("failed", UserError("in use"), True, "in use"),
        (None, UserError("in use"), False, None),
        (None, UserError("in use"), True, "in use"),
        (None, RuntimeError("lost"), False, "RuntimeError: lost"),
        (None, Interrupted(signal.SIGTERM), False, "SIGTERM"),
    ],
)
def test_a_failure_takes_no_result_from_a_run_that_has_one(tmp_path, before, error, in_sweep, after):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / "checkpoints").mkdir()
    if before:
        (tmp_path / "result.json").write_text(json.dumps({"status": before}))
    record_failure(error, "config", Run(tmp_path), in_sweep)
    result = Run(tmp_path).result
    assert (result.get("error") or result["status"]) == (after or "unfinished")


@pytest.mark.parametrize(
    ("status", "saved", "says"),
    [
        ("finished", True, None),
        ("pruned", True, None),
        ("interrupted", True, "this continues the run"),
        ("interrupted", False, "nothing was saved yet, and this starts the run again"),
    ],
)
def test_a_signal_after_the_end_of_a_run_has_interrupted_nothing(tmp_path, capsys, status, saved, says):
    (tmp_path / "result.json").write_text(json.dumps({"status": status}))
    run = Run(tmp_path)
    run.checkpoints.mkdir()
    if saved:
        run.last.touch()
    print_interruption(Interrupted(signal.SIGTERM), run, True, lambda path: f"train.py resume={path}")
    lines = [f"interrupted (SIGTERM); {says}:", f"train.py resume={tmp_path}"]
    assert capsys.readouterr().err.splitlines() == (lines if says else [])


def test_an_experiment_chooses_its_sweeper(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults: [override /hydra/sweeper: optuna]\nhydra: {sweeper: {trials: 7}}\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    mine = ["experiment=mine", f"hydra.searchpath=[file://{tmp_path}]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        chosen, default = (
            compose("config", overrides=overrides, return_hydra_config=True).hydra.sweeper for overrides in (mine, [])
        )
    assert (chosen._target_.split(".")[-1], chosen.trials) == ("OptunaSweeper", 7)
    assert default._target_.split(".")[-1] == "GridSweeper"


# folders


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "2026-01-31_12-00-00")
    folders = [Path(make_folder(str(tmp_path / "runs"))).name for _ in range(3)]
    assert folders == ["2026-01-31_12-00-00", "2026-01-31_12-00-00_2", "2026-01-31_12-00-00_3"]


def test_a_tilde_before_no_users_name_is_a_part_of_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(make_folder("~nobody_of_this_name/x")).parent.resolve() == tmp_path / "~nobody_of_this_name" / "x"


def test_a_run_keeps_its_folder(tmp_path):
    assert new_folder(str(tmp_path)) == new_folder(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "pool", [ThreadPoolExecutor, partial(ProcessPoolExecutor, mp_context=get_context("fork"))], ids=["threads", "forks"]
)
def test_no_two_runs_at_once_share_a_folder(tmp_path, monkeypatch, pool):
    monkeypatch.setattr(time, "strftime", lambda _: "now")  # in the forked processes too
    with pool(4) as workers:
        folders = list(workers.map(make_folder, itertools.repeat(str(tmp_path / "runs"), 60)))
    assert len(set(folders)) == 60
    assert sorted(map(Path, folders)) == sorted((tmp_path / "runs").iterdir())


def test_a_thousand_runs_in_a_second_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    for name in ("now", *(f"now_{number}" for number in range(2, 1000))):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="a thousand runs"):
        make_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("model=resnet20,seed=2", "3_model=resnet20_seed=2"),
        ("optimizer.lr=1e-05,+trainer.x=-1", "3_optimizer.lr=1e-05_+trainer.x=-1"),
        ("data.root=/my data/../x", "3_data.root=_my_data_.._x"),
        ("model.layers=[2, 2]", "3_model.layers=_2_2"),
        ("data.root=фото", "3_data.root="),  # 120 characters of two bytes would be too many for a file system
        ("", "3"),
    ],
)
def test_a_jobs_folder_reads_like_its_overrides(overrides, name):
    assert job_folder(3, overrides) == name


@pytest.mark.parametrize("overrides", ["x=" + "long" * 100, "x=" + "ü/" * 200, "a=b"])
def test_a_jobs_folder_is_one_short_path_component_of_its_number(tmp_path, overrides):
    folders = [job_folder(number, overrides) for number in (1, 2, 10, 11, 100)]
    assert [folder.split("_")[0] for folder in folders] == ["1", "2", "10", "11", "100"]
    for folder in folders:
        assert len(folder) <= 120
        (tmp_path / folder).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders)


def test_the_resolvers_are_known_to_the_configuration(tmp_path):
    config = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/a}}", "job": "${job_folder:7,'a=1,b=2'}"})
    assert config.job == "7_a=1_b=2"
    assert config.dir == config.dir
    assert Path(config.dir).parent == tmp_path / "a"
    text = CONF.joinpath("config.yaml").read_text()
    assert (text.count("${new_folder:"), text.count("${run_folder:")) == (1, 1)  # of a sweep, and of a run


def test_a_recorded_configuration_names_classes_as_they_are_named_today():
    recorded = {
        "scheduler": {"_target_": "reslab.schedules.one_cycle"},
        "model": {"_target_": "reslab.models.resnet.ResNet"},
    }
    config = OmegaConf.create(recorded | {"callbacks": {"ema": {"_target_": "reslab.averaging.WeightAverage"}}})
    use_present_names(config)
    assert config.scheduler._target_ == "reslab.training.schedules.one_cycle"
    assert config.callbacks.ema._target_ == "reslab.training.averaging.WeightAverage"
    assert config.model._target_ == "reslab.models.resnet.ResNet"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["experiment=six_block", "trainer=debug"], (1, 1)),
        (["experiment=cifar10_resnet", "trainer=debug"], (1, 1)),
        (["experiment=six_block", "trainer=overfit"], (50, None)),
        (["experiment=six_block", "trainer=profile"], (1, None)),
        (["experiment=six_block", "trainer=debug", "trainer.max_epochs=2"], (2, 1)),
        (["experiment=six_block", "trainer=cpu"], (3, None)),
        (["experiment=six_block"], (3, None)),
        (["trainer=debug"], (1, 1)),
    ],
)
def test_a_preset_of_the_trainer_wins_over_an_experiment(composed, overrides, expected):
    trainer = composed(*overrides).trainer
    assert (trainer.max_epochs, trainer.limit_train_batches) == expected


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_the_other_commands_have_the_presets_too(composed, command):
    assert compose(command, overrides=["trainer=debug"]).trainer.limit_test_batches == 1
    assert compose(command, overrides=["trainer=cpu"]).trainer.accelerator == "cpu"
