"""Two commands at once in one folder."""

import json
import logging
import os
import shutil
import signal
import sys

import pytest
from filelock import FileLock

import reslab
from reslab import UserError, files
from reslab.commands import train
from reslab.commands.claim import leaves_nothing
from reslab.errors import Interrupted, RunError
from reslab.interruption import ENDING_SIGNALS, signals
from reslab.run import Run
from reslab.training import fit

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "trainer.precision=32-true", "logger=none")


@pytest.fixture
def other(tmp_path, monkeypatch):
    """The run of another process, which does something when a second process waits for the folder."""
    run = Run(tmp_path / "run")
    run.write_settings("seed: 1\n", ["seed=1"])
    (run.folder / "train.log").write_text("a line\n")
    lock = FileLock(run.folder / ".lock")
    lock.acquire()

    def then(action):
        def waits(*arguments):
            action()
            lock.release()

        monkeypatch.setattr(files.log, "info", waits)
        return run

    yield then
    lock.release()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def finish(run):
    run.result_file.write_text(json.dumps({"status": "finished"}))


def test_a_folder_in_use_keeps_every_byte(tmp_path, monkeypatch, other):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"run is in use: another process trains there$"):
        reslab.train(*QUICK, "seed=2", f"hydra.run.dir={tmp_path}/run")
    assert contents(tmp_path) == before


def test_a_folder_whose_run_was_finished_meanwhile_keeps_every_byte(tmp_path, other):
    run = other(lambda: finish(run))
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"holds a run that another process has finished: another hydra\.run\.dir begins one$"
    ):
        reslab.train(*QUICK, "seed=2", f"hydra.run.dir={tmp_path}/run")
    assert contents(tmp_path) == before | {run.result_file: b'{"status": "finished"}'}


def test_a_folder_whose_run_has_begun_meanwhile_keeps_every_byte(tmp_path, other):
    run = other(lambda: run.checkpoints.mkdir())
    before = contents(tmp_path)
    with pytest.raises(UserError, match="run holds a run: resume="):
        reslab.train(*QUICK, "seed=2", f"hydra.run.dir={tmp_path}/run")
    assert contents(tmp_path) == before


def test_ctrl_c_while_a_folder_is_waited_for_changes_no_byte_of_it(tmp_path, other):
    def interrupt():
        raise Interrupted(signal.SIGINT)

    other(interrupt)
    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        reslab.train(*QUICK, "seed=2", f"hydra.run.dir={tmp_path}/run")
    assert contents(tmp_path) == before


@pytest.mark.slow
def test_a_run_is_resumed_only_if_it_was_not_finished_meanwhile(tmp_path, other):
    run = reslab.train(*QUICK, f"hydra.run.dir={tmp_path}/begun")
    run.result_file.unlink()
    lock = FileLock(run.folder / ".lock")
    lock.acquire()
    other(lambda: (finish(run), lock.release()))
    before = contents(run.folder)
    with pytest.raises(
        UserError, match=r"begun holds a run that another process has finished: give the command again to continue it$"
    ):
        reslab.train(f"resume={run.folder}")
    assert contents(run.folder) == before | {run.result_file: b'{"status": "finished"}'}


@pytest.mark.slow
def test_a_folder_that_was_left_without_a_run_is_taken(tmp_path, other):
    other(lambda: None)
    run = reslab.train(*QUICK, "seed=2", f"hydra.run.dir={tmp_path}/run")
    assert (run.status, run.config["seed"], run.overrides) == ("finished", 2, [*QUICK, "seed=2"])


def rename_and_replace(folder):
    folder.rename(folder.with_name("renamed"))
    (folder / ".hydra").mkdir(parents=True)  # of another run


@pytest.mark.slow
@pytest.mark.parametrize(
    "move",
    [
        shutil.rmtree,
        lambda folder: folder.rename(folder.with_name("renamed")),
        lambda folder: folder.parent.rename(folder.parent.with_name("renamed")),
        rename_and_replace,
    ],
    ids=["removed", "renamed", "parent renamed", "replaced"],
)
@pytest.mark.parametrize("moment", ["on_train_epoch_start", "on_test_start"])
def test_a_folder_that_disappears_ends_the_run_and_is_not_made_again(tmp_path, monkeypatch, move, moment):
    folder, original = tmp_path / "runs" / "run", getattr(fit.Classifier, moment)

    def moved(classifier):
        move(folder)
        return original(classifier)

    monkeypatch.setattr(fit.Classifier, moment, moved)
    with pytest.raises(RunError, match="run was removed or renamed while it was in use; if it was renamed, resume="):
        reslab.train(*QUICK, f"hydra.run.dir={folder}")
    assert folder.exists() == (move is rename_and_replace)
    if folder.exists():
        assert [path.name for path in folder.rglob("*")] == [".hydra"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["on_train_epoch_start", "on_test_start"])
def test_a_run_whose_files_are_removed_ends_and_writes_none(tmp_path, monkeypatch, moment):
    folder, original = tmp_path / "run", getattr(fit.Classifier, moment)

    def emptied(classifier):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return original(classifier)

    monkeypatch.setattr(fit.Classifier, moment, emptied)
    with pytest.raises(RunError, match=r"^the files in .*run were removed while it was in use$"):
        reslab.train(*QUICK, f"hydra.run.dir={folder}")
    assert list(folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["data.batch_size=0", "data.root=nowhere"], ids=["option", "data"])
def test_a_mistake_before_training_leaves_nothing(tmp_path, monkeypatch, mistake):
    monkeypatch.chdir(tmp_path)
    for options in ((), ("hydra.run.dir=outputs/mine/run",)):
        with pytest.raises(UserError):
            reslab.train(*QUICK, "data=imagefolder", mistake, *options)
        assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]


@pytest.mark.slow
def test_a_mistake_before_training_leaves_other_files(tmp_path):
    notes = tmp_path / "run" / "notes.txt"
    notes.parent.mkdir()
    notes.touch()
    with pytest.raises(UserError):
        reslab.train(*QUICK, "data=imagefolder", "data.root=nowhere", f"hydra.run.dir={notes.parent}")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [notes]


@pytest.fixture
def interrupted_train(monkeypatch, capsys):
    """Start the command in this process, send it SIGTERM at a moment of a run, and return the last line of stderr."""

    def interrupt(*_):
        os.kill(os.getpid(), signal.SIGTERM)

    def train_until(moment, *arguments):
        owner = fit if moment == "build_data" else fit.Classifier
        original = getattr(owner, moment)
        monkeypatch.setattr(owner, moment, lambda *given, **named: interrupt() or original(*given, **named))
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        monkeypatch.setattr(logging.getLogger(), "handlers", [])  # Hydra adds some
        with pytest.raises(SystemExit) as ended:
            train.main()
        assert ended.value.code == 143
        return capsys.readouterr().err.splitlines()[-1]

    before = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    yield train_until
    signals.caught = None
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["build_data", "on_fit_start"])
def test_a_signal_before_training_leaves_nothing(tmp_path, interrupted_train, moment):
    said = interrupted_train(moment, *QUICK, "logger=tensorboard", f"outputs={tmp_path}/outputs")
    assert said == "interrupted (SIGTERM); nothing was saved yet"
    assert list(tmp_path.rglob("*")) == [tmp_path / "outputs"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["build_data", "on_fit_start"])
def test_a_signal_before_a_run_resumes_is_reported_and_leaves_its_result(tmp_path, interrupted_train, moment):
    """The settings of the run lack what the command adds, so `resume=` alone would have nothing left to do."""
    run = reslab.train(*QUICK, f"hydra.run.dir={tmp_path}/run")
    before = run.result
    said = interrupted_train(moment, f"resume={run.folder}", "trainer.max_epochs=2")
    assert said == "interrupted (SIGTERM) before the run resumed; the same command resumes it"
    assert run.result == before
    assert "SIGTERM leaves the result of the run as it is" in (run.folder / "train.log").read_text()


@pytest.mark.slow
def test_only_a_new_run_that_a_mistake_or_a_signal_ends_before_it_trains_leaves_nothing(tmp_path, composed):
    run, signal_error = Run(tmp_path), Interrupted(signal.SIGTERM)
    assert leaves_nothing(signal_error, run, composed())
    assert leaves_nothing(UserError("a mistake"), run, composed())
    assert not leaves_nothing(RuntimeError("a failure"), run, composed())
    assert not leaves_nothing(signal_error, run, composed(f"resume={tmp_path}"))
    run.checkpoints.mkdir()
    assert not leaves_nothing(signal_error, run, composed())


@pytest.mark.slow
def test_a_mistake_that_ends_a_run_which_has_begun_is_recorded(tmp_path, monkeypatch):
    def broken(*_):
        raise UserError("a.jpg cannot be read")

    def fails(moment, *overrides):
        with monkeypatch.context() as patch:
            patch.setattr(fit.Classifier, moment, broken)
            with pytest.raises(UserError, match=r"^a.jpg cannot be read$"):
                reslab.train(*overrides)

    folder = tmp_path / "run"
    failed = {"status": "failed", "error": "a.jpg cannot be read", "folder": str(folder)}.items()
    fails("on_train_epoch_start", *QUICK, f"hydra.run.dir={folder}")
    assert Run(folder).result.items() > failed
    assert reslab.train(f"resume={folder}").status == "finished"
    before = contents(tmp_path)
    fails("on_fit_start", f"resume={folder}", "trainer.max_epochs=2")  # it has not resumed yet
    assert contents(tmp_path) == before
