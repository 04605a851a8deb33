"""Each process that a test starts holds the writing end of a pipe. The pipe ends when all of them have ended."""

import os
import select
import signal
import subprocess
import sys
from unittest import mock

import pytest

from reslab import processes
from reslab.machine import LIGHTNING_PROCESS
from reslab.processes import FIRST_PROCESS, end_with_first_process, kill_further_processes

FURTHER = f"{LIGHTNING_PROCESS}1"
PAUSE = "import os, signal; os.write(1, b'.'); signal.pause()"
SWEEP = """
import os, signal, sys
from reslab import processes
from reslab.interruption import ENDING_SIGNALS
processes.GRACE_SECONDS = 0.2
job = "import os, signal; signal.signal(15, signal.SIG_IGN); os.fork(); os.write(1, b'.'); signal.pause()"
with processes.Guard() as guard:
    for number in ENDING_SIGNALS:
        os.kill(guard.process.pid, number)
    guard.start([sys.executable, "-c", job])
    signal.pause()
"""


def has_ended(output, seconds=20):
    """Return whether all processes that hold the other end of a pipe have ended, within some seconds."""
    while select.select([output], [], [], seconds)[0]:
        if not os.read(output.fileno(), 64):
            return True
    return False


def start(script, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of processes")
def test_a_job_that_hangs_ends_with_the_command_that_was_killed_whatever_the_guard_receives():
    sweep = start(SWEEP)
    assert os.read(sweep.stdout.fileno(), 1) == b"."  # the job hangs
    assert os.read(sweep.stdout.fileno(), 1) == b"."  # and so does the process that it has started
    sweep.kill()
    assert has_ended(sweep.stdout)
    sweep.wait()


def test_a_job_that_has_ended_leaves_no_process():
    with processes.Guard() as guard:
        job = guard.start(
            [sys.executable, "-c", f"import os; os.fork() and os._exit(3); {PAUSE}"], stdout=subprocess.PIPE
        )
        assert os.read(job.stdout.fileno(), 1) == b"."
        os.waitid(os.P_PID, job.pid, os.WEXITED | os.WNOWAIT)  # its child may have been faster
        assert guard.end(job) == 3
        assert has_ended(job.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do so")
def test_a_further_process_is_killed_when_the_first_one_ends():
    further = f"import sys; from reslab.processes import *; end_with_first_process(sys.argv); {PAUSE}"
    first = start(
        "import os, signal, subprocess, sys; from reslab.processes import *\n"
        "environment = os.environ | first_process([])\n"
        f"subprocess.Popen([sys.executable, '-c', {further!r}, {FURTHER!r}], env=environment); signal.pause()"
    )
    assert os.read(first.stdout.fileno(), 1) == b"."
    first.kill()
    assert has_ended(first.stdout)
    first.wait()


def test_a_further_process_ends_at_once_if_the_first_one_has_ended(monkeypatch):
    monkeypatch.setenv(FIRST_PROCESS, str(os.getpid()))  # this process is not started by itself
    monkeypatch.setattr(processes.ctypes, "CDLL", mock.Mock())  # pytest's own parent may end
    end_with_first_process(["train.py"])  # this is no further process
    with pytest.raises(SystemExit):
        end_with_first_process(["train.py", FURTHER])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the children of a process")
def test_the_further_processes_of_a_run_that_failed_are_killed_and_no_others():
    further, other = start(PAUSE, FURTHER), start(PAUSE)
    for each in (further, other):
        assert os.read(each.stdout.fileno(), 1) == b"."
    kill_further_processes()
    assert further.wait() == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
