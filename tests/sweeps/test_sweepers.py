"""The sweepers, most of them as a user meets them: `python src/train.py -m`."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys

import conftest
import pytest
from conftest import FP32, SRC, run
from fake_runs import make_run
from fake_searches import trials
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.trial import TrialState

from reslab.errors import Failed, Interrupted, UserError
from reslab.machine import command as command_to_paste
from reslab.sweeps.summary import SweepFailed
from reslab.sweeps.sweepers import GridSweeper, ResumableSweeper, combinations

TRAIN = str(SRC / "train.py")
ENDLESS = ("trainer.max_epochs=-1", "trainer.max_steps=-1,5")  # the first of these two jobs cannot be trained
STOPS = (*ENDLESS, "sweep.stop_on_failure=true", "hydra.sweep.dir=sweep")
STOPPED = (
    "trainer.max_epochs=-1 and trainer.max_steps=-1 give the learning-rate schedule no length: set one of them, "
    "also with trainer.max_time"
)
TINY = ("model=resnet8", "trainer=cpu", "logger=none", "test=false", FP32, "trainer.max_epochs=2")
LR = "optimizer.lr=tag(log,interval(0.01,1))"
EPOCH = r" +\d+  +\d"  # how the line of an epoch begins


def start(*arguments, cwd):
    return conftest.start("train", *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_at_line(process, number, beginning):
    """Kill a command that prints its n-th line with this beginning."""
    lines = (line for line in process.stdout if re.match(beginning, line))
    next(itertools.islice(lines, number - 1, None))
    process.kill()
    assert process.wait() == -signal.SIGKILL


def results(folder):
    return {file.parent.name.split("_")[0]: json.loads(file.read_text()) for file in folder.glob("*/result.json")}


# the jobs of a grid


def test_a_grid_has_all_combinations_and_of_two_overrides_with_one_name_the_later_one_counts():
    lines = ["seed=1", "model=a,b", "seed=range(2,4)", "~test", "+x='y z'"]
    assert combinations(OverridesParser.create().parse_overrides(lines)) == [
        [f"seed={seed}", f"model={model}", "~test=null", "+x='y z'"] for seed in (2, 3) for model in "ab"
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a=interval(0,1)", "a=interval(0,1) has infinitely many values: hydra/sweeper=optuna searches intervals"),
        ("a=range(1,1)", "a=range(1,1) has no values"),
    ],
)
def test_a_grid_needs_a_finite_number_of_values(line, message):
    with pytest.raises(UserError) as error:
        combinations(OverridesParser.create().parse_overrides([line]))
    assert str(error.value) == message


# how a sweep ends


@pytest.fixture
def sweeper(tmp_path, sweep_config):
    """A function that makes a sweeper. Its only job leaves a result, and then `error` is raised."""

    def make(status, error=None):
        class OneJob(ResumableSweeper):
            def run(self, lines):
                self.planned = 1
                self.jobs.write_record()
                self.jobs.launched = True
                make_run(self.jobs.sweep.folder / "0_seed=1", result={"status": status, "error": "no memory"})
                if error is not None:
                    raise error

        context, config = sweep_config()
        sweeper = OneJob({})
        sweeper.setup(hydra_context=context, task_function=None, config=config)
        return sweeper

    return make


def test_a_sweep_with_failed_jobs_fails_after_its_report(tmp_path, sweeper, capsys):
    with pytest.raises(SweepFailed, match="1 jobs failed"):
        sweeper("failed").sweep([])
    shown = capsys.readouterr()
    assert "job 0 failed: no memory" in shown.out
    assert f"sweep:  {tmp_path}/sweep (report.html, report.csv, runs.csv)" in shown.out
    assert shown.err == ""
    assert json.loads((tmp_path / "sweep" / "result.json").read_text()) == {"status": "failed", "jobs": 1, "failed": 1}


def test_an_interrupted_sweep_prints_its_report_and_how_to_resume_it(tmp_path, sweeper, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [TRAIN, "--config-dir=my conf", "-m", "seed=1,2"])
    with pytest.raises(Interrupted):
        sweeper("interrupted", Interrupted(signal.SIGINT)).sweep([])
    shown = capsys.readouterr()
    assert "job 0 interrupted: no memory" in shown.out
    command = command_to_paste("train", "--config-dir=my conf", f"resume={tmp_path}/sweep")
    assert shown.err == f"interrupted (SIGINT); this continues the sweep:\n{command}\n"
    result = json.loads((tmp_path / "sweep" / "result.json").read_text())
    assert result == {"status": "interrupted", "jobs": 1, "failed": 1}


def test_an_error_after_jobs_have_begun_is_raised_after_the_report(tmp_path, sweeper, capsys):
    with pytest.raises(Failed) as failed:
        sweeper("failed", ZeroDivisionError()).sweep([])
    assert isinstance(failed.value.error, ZeroDivisionError)
    assert "job 0 failed: no memory" in capsys.readouterr().out
    assert json.loads((tmp_path / "sweep" / "result.json").read_text())["status"] == "failed"


def test_params_are_overrides_by_name(sweep_config):
    with pytest.raises(UserError, match=r"^hydra\.sweeper\.params takes optimizer\.<option> as one name"):
        GridSweeper({"optimizer": {"lr": 1}})


# mistakes


@pytest.mark.slow
def test_a_mistake_leaves_no_folder(tmp_path, no_torch):
    done = run("train", "-m", "model=resnet8,resnet88", cwd=tmp_path, **no_torch)
    line = "error: model=resnet88 does not exist: did you mean resnet8 or resnet18 or resnet9?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
    assert list(tmp_path.rglob("*")) in ([], [tmp_path / "outputs"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        ("optimizer.lr=0.1,-1", "optimizer.lr=-1 must be a number from 1e-12 to 1e+38"),
        ("optimizer.lr=0.1,-1 hydra.sweeper.max_batch_size=1", "optimizer.lr=-1 must be a number from 1e-12 to 1e+38"),
        ("sweep.stop_on_failure=yes", "sweep.stop_on_failure=yes must be true or false"),
        ("label_smoothing=choice(0) trainer.max_epochs=-1", STOPPED),
        ("model=glob(none*)", "model=glob(none*) has no values"),
        ("outputs=", "outputs= must be a path (a number in quotes: \"'2024'\")"),
        ("outputs=a,b", "outputs=a,b must be one folder; a comma in its name needs quotes"),
        ("outputs=notes", "outputs=notes cannot be a folder: notes is a file"),
        ("hydra.sweeper.trials=3", "there is no option trials of this hydra.sweeper: hydra/sweeper=… chooses another"),
        ("hydra.sweeper.max_batch_size=0",
         "hydra.sweeper.max_batch_size=0 must be an integer of at least 1, or be null"),
        ("hydra/sweeper=optuna +hydra.sweeper.trails=3",
         "there is no option hydra.sweeper.trails: trials, n_jobs, sampler, seed, pruner, storage"),
    ],
)  # fmt: skip
def test_a_mistake_in_any_job_is_reported_before_the_first(tmp_path, no_torch, mistake, line):
    (tmp_path / "notes").touch()
    done = run("train", "-m", "seed=1,2", *mistake.split(), cwd=tmp_path, **no_torch)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {line}\n")
    assert {path.name for path in tmp_path.rglob("*")} in ({"notes"}, {"notes", "outputs"})


@pytest.mark.slow
def test_a_mistake_leaves_the_files_of_an_existing_folder(tmp_path, no_torch):
    (tmp_path / "notes").write_text("mine")
    done = run("train", "-m", "model=resnet8,resnet88", f"hydra.sweep.dir={tmp_path}", cwd=tmp_path, **no_torch)
    assert done.returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


@pytest.mark.slow
def test_a_mistake_leaves_a_sweep_that_is_resumed(tmp_path, no_torch):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text(
        "hydra: {overrides: {hydra: [hydra.mode=MULTIRUN], task: ['seed=1,2', 'optimizer.lr=-1']}}"
    )
    done = run("train", "resume=sweep", cwd=tmp_path, **no_torch)
    line = "error: optimizer.lr=-1 must be a number from 1e-12 to 1e+38\n"
    assert (done.returncode, done.stderr) == (2, line)
    assert (tmp_path / "sweep" / "multirun.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (
            "hydra.sweeper.max_batch_size=0",
            "hydra.sweeper.max_batch_size=0 must be an integer of at least 1, or be null",
        ),
        ("sweep.stop_on_failure=maybe", "sweep.stop_on_failure=maybe must be true or false"),
        (
            "hydra/launcher=parallel hydra.launcher.n_jobs=0",
            "hydra.launcher.n_jobs=0 must be an integer from 1 to 1024",
        ),
        ("hydra/launcher=slurm", "hydra/launcher=slurm needs the command sbatch: start the sweep where jobs are"),
        ("seed=3", "resume=sweep is a sweep that was started with seed=1,2, not seed=3: start a new one"),
    ],
)
def test_a_mistake_on_resuming_a_sweep_changes_no_byte(tmp_path, no_torch, mistake, line):
    sweep = tmp_path / "sweep"
    make_run(sweep / "7_seed=8", accuracy=0.5)
    (sweep / "multirun.yaml").write_text("hydra: {overrides: {hydra: [hydra.mode=MULTIRUN], task: ['seed=1,2']}}")
    (sweep / "result.json").write_text('{"status": "finished"}')
    (sweep / ".lock").touch()
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    done = run("train", "resume=sweep", *mistake.split(), cwd=tmp_path, PATH="/nowhere", **no_torch)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {line}")
    assert {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()} == before


# failures


@pytest.mark.slow
@pytest.mark.parametrize("alone", ["hydra.sweeper.max_batch_size=1", "hydra/sweeper=optuna hydra.sweeper.sampler=grid"])
def test_a_combination_that_is_wrong_in_one_job_leaves_the_others_alone(tmp_path, alone):
    wrong = ("optimizer.momentum=0", "optimizer.nesterov=true,false")
    for place in ("hydra.sweep.dir=sweep", "resume=sweep"):
        done = run("train", "-m", *wrong, *alone.split(), *TINY, place, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (1, "")
        lines = done.stdout.splitlines()
        assert (
            sum(line.endswith(" failed: optimizer.nesterov=true needs optimizer.momentum above 0") for line in lines)
            == 1
        )
        assert "sweep:  sweep (report.html, report.csv, runs.csv)" in lines
        assert sorted(each["status"] for each in results(tmp_path / "sweep").values()) == ["failed", "finished"]
        result = json.loads((tmp_path / "sweep" / "result.json").read_text())
        assert result == {"status": "failed", "jobs": 2, "failed": 1}


@pytest.mark.slow
def test_a_sweep_that_a_failure_stops_prints_how_to_resume_it(tmp_path, no_torch):
    done = run("train", "-m", *STOPS, cwd=tmp_path, **no_torch)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[lines.index(f"job 0 failed: {STOPPED}") + 1] == "1 of 2 jobs has not begun"
    said, command = done.stderr.splitlines()
    assert said == "failed (sweep.stop_on_failure=true); this continues the sweep:"
    assert command.endswith("train.py resume=sweep")
    assert json.loads((tmp_path / "sweep" / "result.json").read_text()) == {"status": "failed", "jobs": 1, "failed": 1}


@pytest.mark.slow
def test_a_terminal_without_a_character_shows_the_rest(tmp_path, no_torch):
    ascii_only = no_torch | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = run("train", "-m", *STOPS[:-1], "hydra.sweep.dir=größe", cwd=tmp_path, **ascii_only)
    assert done.returncode == 1
    assert "sweep:  'gr??e' (report.html, report.csv, runs.csv)" in done.stdout.splitlines()


@pytest.mark.slow
def test_a_sweep_that_another_process_runs_is_left_alone(tmp_path, no_torch):
    run("train", "-m", *STOPS, cwd=tmp_path, **no_torch)
    before = {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()}
    script = (
        f"import reslab.files, runpy; reslab.files.LOCK_SECONDS = 0; runpy.run_path({TRAIN!r}, run_name='__main__')"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([no_torch["PYTHONPATH"], str(SRC)])}
    with FileLock(tmp_path / "sweep" / ".lock"):
        command = [sys.executable, "-c", script, "resume=sweep"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: sweep is in use: another process trains there\n")
    assert {path: path.read_bytes() for path in (tmp_path / "sweep").rglob("*") if path.is_file()} == before


# killed and resumed


@pytest.mark.slow
def test_a_resumed_sweep_runs_the_jobs_that_have_not_finished(tmp_path):
    arguments = ("-m", "seed=1,2,3", *TINY)
    process = start(*arguments, "hydra.sweep.dir=sweep", cwd=tmp_path)
    kill_at_line(process, 4, EPOCH)  # job 1 has printed its last epoch, and its first is saved
    (first,) = tmp_path.glob("sweep/0_*")
    (second,) = tmp_path.glob("sweep/1_*")
    untouched = (first / "result.json").stat().st_mtime_ns
    assert not (second / "result.json").exists()
    done = run("train", *arguments, "resume=sweep", cwd=tmp_path)
    assert done.returncode == 0
    assert (first / "result.json").stat().st_mtime_ns == untouched
    assert f"resumed from sweep/{second.name}/checkpoints/last.ckpt, step 20" in done.stdout
    assert len(re.findall(f"^{EPOCH}", done.stdout, re.MULTILINE)) == 3  # one of job 1, two of job 2
    assert {number: result["seed"] for number, result in results(tmp_path / "sweep").items()} == {
        "0": 1, "1": 2, "2": 3,
    }  # fmt: skip
    assert len(list(tmp_path.glob("sweep/*_*"))) == 3
    assert "resume" not in OmegaConf.load(second / ".hydra" / "overrides.yaml")


@pytest.mark.slow
def test_a_search_that_is_killed_ends_with_the_trials_of_one_that_is_not(tmp_path):
    arguments = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=6", LR, "model=resnet8,resnet14", *TINY[1:])
    assert run("train", *arguments, "hydra.sweep.dir=uninterrupted", cwd=tmp_path).returncode == 0
    place = "hydra.sweep.dir=killed"
    for epochs_before_the_kill in (2, 3, 4):
        kill_at_line(start(*arguments, place, cwd=tmp_path), epochs_before_the_kill, EPOCH)
        place = "resume=killed"
    done = run("train", *arguments, place, cwd=tmp_path)
    assert done.returncode == 0
    assert "search: 6 trials, 6 finished, 0 pruned, 0 failed" in done.stdout
    assert trials(tmp_path / "killed") == trials(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_a_pruned_search_of_two_jobs_at_a_time_ends_with_all_trials_after_a_kill(tmp_path):
    two = ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2")  # it is also the sweeper's n_jobs
    arguments = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=8", "hydra.sweeper.pruner=median", *two)
    lr = LR.replace("0.01", "0.0001")
    kill_at_line(start(*arguments, lr, *TINY, "hydra.sweep.dir=sweep", cwd=tmp_path), 1, "#3 began")
    done = run("train", "resume=sweep", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ended = [(number, state) for number, state, _, _ in trials(tmp_path / "sweep")]
    statuses = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
    assert {str(number): statuses[state] for number, state in ended} == {
        number: result["status"] for number, result in results(tmp_path / "sweep").items()
    }
    assert [number for number, _ in ended] == list(range(8))
    assert TrialState.PRUNED in {state for _, state in ended}
