"""Start commands in processes that are forked from one that has imported everything.

Each command is a process of its own, as `python src/<command>.py` is, without the seconds that its imports take. It has
its own arguments, working directory, environment, standard streams and process group, and it ends as any Python does.
What depends on the start of Python itself (PYTHONPATH, encodings, what is imported and when) needs a new process.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any

SRC = Path(__file__).parents[1] / "src"
LONGEST_REQUEST = 2**20  # bytes: the arguments and the environment


class Started:
    """A command that runs, with the part of the interface of subprocess.Popen that tests use."""

    def __init__(self, replies: IO[str], stdout: IO[str] | None) -> None:
        self.replies, self.stdout = replies, stdout
        self.pid = int(replies.readline())
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self.replies], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self.replies.readline())
            self.replies.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Server:
    """The process that has imported everything. It starts with the first command and ends with `stop`."""

    def __init__(self, modules: Sequence[str], **environment: str) -> None:
        self.modules, self.environment = modules, environment
        self.process: subprocess.Popen[bytes] | None = None

    def _begin(self) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), *self.modules], env=os.environ | self.environment,
                stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip

    def start(
        self, script: Path, arguments: Sequence[object], cwd: Path, environment: dict[str, str],
        stdout: int | IO[Any], stderr: int | IO[Any],
    ) -> Started:  # fmt: skip
        """Start a script. A stream is a file or DEVNULL of subprocess; stdout also its PIPE, stderr also its STDOUT."""
        if self.process is None:
            self._begin()
        request = {"argv": [str(script), *map(str, arguments)], "cwd": str(cwd), "environment": environment}
        read = None
        if stdout == subprocess.PIPE:
            read, stdout = os.pipe()
        replies, reply = os.pipe()
        streams = [stdout, stdout if stderr == subprocess.STDOUT else stderr]
        with open(os.devnull, "r+") as nothing:  # noqa: PTH123
            streams = [nothing if stream == subprocess.DEVNULL else stream for stream in streams]
            given = [nothing, *streams, reply]
            numbers = [each if isinstance(each, int) else each.fileno() for each in given]
            socket.send_fds(self.socket, [json.dumps(request).encode("utf-8", "surrogatepass")], numbers)
        os.close(reply)
        if read is not None:
            os.close(stdout)
        return Started(os.fdopen(replies), None if read is None else os.fdopen(read))

    def run(
        self, script: Path, arguments: Sequence[object], cwd: Path, environment: dict[str, str], seconds: float
    ) -> "subprocess.CompletedProcess[str]":
        """Run a script to its end, as subprocess.run does."""
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            started = self.start(script, arguments, cwd, environment, out, err)
            try:
                status = started.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(started.pid, signal.SIGKILL)
                raise
            out.seek(0), err.seek(0)
            return subprocess.CompletedProcess([script, *arguments], status, out.read(), err.read())

    def stop(self) -> None:
        if self.process is not None:
            self.socket.close()
            self.process.wait()
            self.process = None


# what runs in the server


def serve(connection: socket.socket) -> None:
    """Fork for each request. Return in the process of a command, and there only."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 4)
        if not message:
            os._exit(0)
        if os.fork() == 0:
            connection.close()
            if supervise(descriptors):
                return become(json.loads(message), descriptors[:3])
        for descriptor in descriptors:
            os.close(descriptor)
        reap()


def reap() -> None:
    """Forget the supervisors that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def supervise(descriptors: list[int]) -> bool:
    """Fork the command and report its number and its status. Return true in the command, and only there."""
    *streams, reply = descriptors
    number = os.fork()
    if number == 0:
        os.close(reply)
        return True
    for descriptor in streams:
        os.close(descriptor)
    os.setpgid(number, number)
    os.write(reply, f"{number}\n".encode())
    _, status = os.waitpid(number, 0)
    os.write(reply, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], streams: list[int]) -> None:
    """Be the process of a command."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["argv"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[0] = str(SRC)
    for module in sys.argv[2:]:
        import_module(module)
    serve(socket.socket(fileno=int(sys.argv[1])))
