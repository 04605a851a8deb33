import os
import subprocess
import sys

import pytest
from conftest import SRC

PRINTING = """
import os, sys
from reslab.commands.entry import errors_as_one_line
from reslab.commands.output import lasting_streams

with errors_as_one_line("config"), lasting_streams():
    for _ in range(2):
        print("a line", flush=True)
        print("an error", file=sys.stderr, flush=True)
    assert sys.stdin.read() == ""
    os.fstat(0), os.fstat(1), os.fstat(2)
    open("done", "w").close()
"""


def printed(tmp_path, redirections=""):
    """Run the block above within a shell, and return its status, its output and whether it came to its end."""
    command = ["bash", "-c", f'exec "$0" -c "$1" </dev/null {redirections}', sys.executable, PRINTING]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr, (tmp_path / "done").exists()


LINES, ERRORS = "a line\n" * 2, "an error\n" * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("redirections", "status", "out", "err"),
    [
        ("", 0, LINES, ERRORS),
        ("<&-", 0, LINES, ERRORS),
        (">&-", 0, "", ERRORS),
        ("2>&-", 0, LINES, ""),
        ("<&- >&- 2>&-", 0, "", ""),
        (">/dev/full", 2, "", ERRORS + "error: standard output: No space left on device\n"),
        ("2>/dev/full", 0, LINES, ""),
    ],
)
def test_what_cannot_be_printed_does_not_end_a_command(tmp_path, redirections, status, out, err):
    assert printed(tmp_path, redirections) == (status, out, err, True)


def test_nothing_is_said_once_nobody_reads(tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", PRINTING.replace('"an error"', '""')]
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr.strip(), (tmp_path / "done").exists()) == (141, b"", True)


def test_a_closed_terminal_does_not_end_a_command(tmp_path):
    """What is written to a terminal after it was closed is an error of its own, EIO."""
    controller, terminal = os.openpty()
    os.close(controller)
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", PRINTING], cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=terminal,
        stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    assert (done.returncode, (tmp_path / "done").exists()) == (141, True)
