"""A process of its own for each case.

A case that runs out of memory must not affect the next one. In such a process oneDNN's compiler, for example, does not
work again.
"""

import multiprocessing
import signal
from multiprocessing.connection import Connection
from typing import Any

from reslab.benchmarking.rows import Row


def measure_in_own_process(settings: dict[str, Any]) -> Row:
    """Return the status and the measurements or the error of one case, given the settings of its training."""
    spawn = multiprocessing.get_context("spawn")
    receiver, sender = spawn.Pipe(duplex=False)
    process = spawn.Process(target=measure_and_send, args=(sender, settings))
    process.start()
    sender.close()  # The receiver can only notice the end of the process if this copy is closed.
    try:
        row: Row = receiver.recv()
        return row
    except EOFError:
        process.join()
        return row_without_answer(process.exitcode or 0)
    finally:
        process.kill()
        process.join()


def measure_and_send(sender: Connection, settings: dict[str, Any]) -> None:
    from reslab.benchmarking.measuring import measure  # torch

    sender.send(measure(settings))


def row_without_answer(exit_code: int) -> Row:
    """Return the row of a process that ended before it sent one. Linux kills a process when memory has run out."""
    if exit_code == -signal.SIGKILL:
        return {"status": "out of memory"}
    ending = f"exit status {exit_code}" if exit_code >= 0 else signal.Signals(-exit_code).name
    return {"status": "failed", "error": f"its process ended with {ending}"}
