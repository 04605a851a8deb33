"""What the first process of a run says when another one has failed."""

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import run
from fake_runs import make_run
from torch import distributed

from reslab.errors import RunError, UserError
from reslab.machine import LIGHTNING_PROCESS
from reslab.processes import FAILURES, LostProcessError, report_failure
from reslab.run import Run
from reslab.training import distributed as module
from reslab.training.answers import read_answers
from reslab.training.distributed import FurtherProcesses, is_lost_connection, joined_processes

GLOO = RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:29594")
SQUEEZED = "process 1 of the run was killed (SIGKILL): too little memory is the usual reason"
CALLBACKS = """
import lightning, os, signal
class Fails(lightning.Callback):
    def on_train_batch_end(self, trainer, *arguments):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise ValueError("a problem\\nof rank 1")
class IsKilled(lightning.Callback):
    def __init__(self):
        if os.environ.get("LOCAL_RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
class CountsAnswers(lightning.Callback):
    def on_test_end(self, trainer, classifier):
        with open(f"answers-{trainer.global_rank}", "w") as file:
            file.write(str(classifier.answers and len(classifier.answers)))
"""


def ended(status):
    """Return a process that has ended."""
    ending = f"import os; os.kill(os.getpid(), {-status})" if status < 0 else f"raise SystemExit({status})"
    process = subprocess.Popen([sys.executable, "-IS", "-c", ending])
    process.wait()
    return process


@pytest.fixture
def further(tmp_path, monkeypatch):
    """What the first process knows of three others, of which the second one has ended with status 1."""
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(module, "REPORT_SECONDS", 0.2)
    further = FurtherProcesses(None)
    further.processes = [ended(status) for status in (1, 1, -signal.SIGKILL)]
    return further


@pytest.fixture
def report(further, monkeypatch):
    """A function that reports an error as the further process of a rank does."""

    def report(rank, error, is_mistake=False):
        monkeypatch.setenv(FAILURES, str(further.failures))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert report_failure(["train.py", f"{LIGHTNING_PROCESS}{rank}"], error, str(error), is_mistake)

    return report


@pytest.mark.parametrize(("is_mistake", "kind"), [(True, UserError), (False, RunError)])
def test_the_error_of_the_process_that_failed_by_itself_is_that_of_the_run(further, report, is_mistake, kind):
    report(1, LostProcessError())
    report(2, ValueError("my own"), is_mistake)
    error = further.wait_for_error()
    assert (type(error), str(error)) == (kind, "my own")
    assert error.__notes__ == ["In process 2:\nValueError: my own\n"]
    further.remove_reports()
    assert not list(further.failures.parent.iterdir())


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (-signal.SIGKILL, SQUEEZED),
        (-signal.SIGSEGV, "process 1 of the run was ended by SIGSEGV"),
        (3, "process 1 of the run ended with exit status 3"),
    ],
)
def test_a_process_that_could_not_say_why_is_described_by_its_status(further, report, status, line):
    further.processes = [ended(status), ended(1)]
    report(2, LostProcessError())
    assert str(further.error()) == line
    with pytest.raises(RunError, match=f"^{line.partition('(')[0].strip()}"):
        further.raise_error()


def test_processes_that_run_have_no_error(further):
    waiting = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    further.processes = [waiting]
    assert further.wait_for_error() is None
    further.raise_error()
    waiting.communicate()


def test_only_the_first_process_is_told(report, monkeypatch):
    assert not report_failure(["train.py"], ValueError(), "", False)
    monkeypatch.delenv(FAILURES, raising=False)
    assert not report_failure(["train.py", f"{LIGHTNING_PROCESS}1"], ValueError(), "", False)


def test_a_process_that_cannot_write_its_error_ends_all_the_same(further, monkeypatch, tmp_path):
    further.failures = tmp_path / "missing" / "file"
    monkeypatch.setenv(FAILURES, str(further.failures))
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert report_failure(["train.py", f"{LIGHTNING_PROCESS}1"], ValueError(), "", False)
    assert str(further.error()) == "process 1 of the run ended with exit status 1"


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (GLOO, True),
        (distributed.DistNetworkError("failed to recv, got 0 bytes"), True),
        (distributed.DistBackendError("NCCL communicator was aborted on rank 0"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_connection_is_told_from_other_errors(error, is_lost):
    assert is_lost_connection(error) == is_lost
    with pytest.raises(LostProcessError if is_lost else type(error)), joined_processes(num_nodes=1):
        raise error


def test_where_a_launcher_has_started_the_others_their_record_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    failed = Run(make_run(tmp_path / "run", result={"status": "failed", "error": "of rank 1"}))
    line = "^another process of the run has failed, or cannot be reached: its own output says why$"
    with pytest.raises(LostProcessError, match=line), joined_processes(1, failed):
        raise GLOO
    assert FAILURES not in os.environ


def test_a_process_that_hangs_because_another_has_ended_is_ended(further, report, monkeypatch, tmp_path, capsys):
    statuses = []
    monkeypatch.setattr(module.os, "_exit", statuses.append)
    further.run = Run(make_run(tmp_path / "run"))
    report(2, UserError("do that"), is_mistake=True)
    further.end_if_one_fails()
    assert statuses == [2]
    assert capsys.readouterr().err == "error: do that\n"
    assert further.run.result["error"] == "do that"
    further.left.set()  # it has noticed by itself
    further.end_if_one_fails()
    assert statuses == [2]


@pytest.mark.slow
@pytest.mark.parametrize(("callback", "line"), [("Fails", "ValueError: a problem; of rank 1"), ("IsKilled", SQUEEZED)])
def test_an_error_of_rank_1_is_one_line_and_the_result_of_the_run(tmp_path, callback, line):
    (tmp_path / "own.py").write_text(CALLBACKS)
    done = run(
        "train", "model=resnet8", "trainer=ddp_cpu", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run",
        f"+callbacks.own._target_=own.{callback}", cwd=tmp_path, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    more = "HYDRA_FULL_ERROR=1 shows the traceback; the run's log has it too"
    assert (done.returncode, done.stderr) == (1, f"error: {line}\n{more}\n")
    assert [text.split()[0] for text in done.stdout.splitlines()] == ["resnet8", "1,295", "0.08"]  # the opening lines
    assert json.loads((tmp_path / "run" / "result.json").read_text())["error"] == line
    assert ("of rank 1" in (tmp_path / "run" / "train.log").read_text()) == (callback == "Fails")
    assert {path.name for path in (tmp_path / "run").glob("*.log")} == {"train.log"}


@pytest.mark.slow
def test_the_first_process_alone_holds_the_answers_of_a_test(tmp_path):
    (tmp_path / "own.py").write_text(CALLBACKS)
    done = run(
        "train", "model=resnet8", "trainer=ddp_cpu", "trainer.max_epochs=1", "logger=none", "hydra.run.dir=run",
        "page=false", "+callbacks.own._target_=own.CountsAnswers", cwd=tmp_path, PYTHONPATH=str(tmp_path),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert [(tmp_path / f"answers-{rank}").read_text() for rank in (0, 1)] == ["359", "None"]
    answers, _ = read_answers(tmp_path / "run" / "answers.safetensors")
    assert answers.indices.tolist() == list(range(359))
