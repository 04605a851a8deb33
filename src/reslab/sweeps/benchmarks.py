"""The end of a sweep of benchmarks: which of them failed, and why."""

import json
from typing import Any

from reslab.run import BENCHMARK_FILE, Run
from reslab.sweeps.folder import Sweep
from reslab.sweeps.summary import print_not_begun
from reslab.text import printable


def benchmark_error(run: Run) -> str | None:
    """Return why a benchmark failed: the error of its first case that has one, or what ended it before its result.

    Args:
        run: the folder of the benchmark.

    Returns:
        One line; None if every case was measured.
    """
    try:
        cases: list[dict[str, Any]] = json.loads((run.folder / BENCHMARK_FILE).read_text(encoding="utf-8"))["cases"]
        return next((str(row["error"]) for row in cases if "error" in row), None)
    except OSError:
        return str(run.result.get("error", "no result"))
    except (ValueError, KeyError, TypeError):
        return f"{BENCHMARK_FILE} is damaged"


def print_failed_benchmarks(sweep: Sweep, planned: int, unrecorded: int = 0) -> int:
    """Print one line per reason why benchmarks failed, and how many have not begun.

    Args:
        sweep: the sweep.
        planned: how many jobs it has in all.
        unrecorded: how many jobs failed and could not write it.

    Returns:
        How many jobs failed.
    """
    numbers = sorted((int(run.folder.name.partition("_")[0]), run) for run in sweep.jobs)
    reasons: dict[str, list[str]] = {}
    for number, run in numbers:
        if (error := benchmark_error(run)) is not None:
            reasons.setdefault(error, []).append(f"job {number}")
    for error, names in reasons.items():
        print(f"{', '.join(names)} failed: {printable(error)}")
    print_not_begun(planned - len(numbers) - unrecorded, planned)
    return sum(map(len, reasons.values())) + unrecorded
