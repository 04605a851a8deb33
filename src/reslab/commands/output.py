"""The standard streams of a command. What cannot be written to them never ends a run."""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from reslab.errors import UserError

BROKEN_PIPE_STATUS = 141  # 128 + SIGPIPE, as a shell shows the end of a program that writes to a closed pipe
STREAMS = {"stdin": "r", "stdout": "w", "stderr": "w"}  # their modes, in the order of their descriptors
STDOUT, STDERR = 1, 2


class Output(io.FileIO):
    """Standard output or standard error. After the first error, all that is written to it is dropped.

    The reader of a pipe may have ended (`| head`), the terminal may be closed, or the disk may be full.

    Attributes:
        error: the first error; None as long as there is none.
    """

    error: OSError | None = None

    def write(self, data) -> int:  # type: ignore[no-untyped-def]  # any buffer of bytes
        """Write the data, or drop it, and return its size."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self.fileno())
            os.close(nothing)
            return len(data)


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Let nothing that the block prints fail. Characters that the terminal does not have become question marks.

    Streams that a program has replaced by its own stay as they are.

    Raises:
        UserError: at the end of the block, standard output could not be written.
        SystemExit: at the end of the block, nobody reads standard output any more. Nothing is said then.
    """
    open_closed_streams()
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield
        return
    output = Output(STDOUT, "w", closefd=False)
    sys.stdout = text_stream(output, sys.stdout, errors="replace")
    sys.stderr = text_stream(Output(STDERR, "w", closefd=False), sys.stderr, errors="backslashreplace")
    try:
        yield
    except SystemExit as end:  # of --help
        if end.code:
            raise
    sys.stdout.flush()
    if output.error is None:
        return
    if output.error.errno in (errno.EPIPE, errno.EIO):  # EIO: the terminal was closed
        sys.exit(BROKEN_PIPE_STATUS)
    raise UserError(f"standard output: {output.error.strerror}")


def is_read() -> bool:
    """Return whether standard output still takes what is printed: the reader of a pipe may have ended."""
    sys.stdout.flush()
    buffer = getattr(sys.stdout, "buffer", None)
    output = getattr(buffer, "raw", buffer)
    return not isinstance(output, Output) or output.error is None


def open_closed_streams() -> None:
    """Connect closed streams (`>&-`) with /dev/null. Otherwise the next file that is opened gets their number."""
    for descriptor, (name, mode) in enumerate(STREAMS.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            stream = open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)


def text_stream(output: Output, like: TextIO | None, errors: str) -> io.TextIOWrapper:
    """Return a stream of text that buffers as another one does."""
    assert isinstance(like, io.TextIOWrapper)
    like.flush()
    return io.TextIOWrapper(
        output if like.write_through else io.BufferedWriter(output),
        encoding=like.encoding,
        errors=errors,
        line_buffering=like.line_buffering,
        write_through=like.write_through,
    )
