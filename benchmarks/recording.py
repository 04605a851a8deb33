"""What the benchmarks share: a loader's rate, a ratio's spread, and a JSON file that says where it was measured."""

import json
import os
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def images_per_second(batches: Iterable[Any]) -> float:
    """From the first batch to the last, so that starting worker processes does not count."""
    iterator = iter(batches)
    next(iterator)
    start, count = time.perf_counter(), 0
    for batch in iterator:
        count += len(batch)
    return count / (time.perf_counter() - start)


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """How many times the others' ours are, round by round."""
    return spread([a / b for a, b in zip(ours, others, strict=True)])


def record(script: str, figures: dict[str, Any], packages: Sequence[str]) -> None:
    """Into benchmarks/results/<script's name>.json."""
    machine = {
        "cpu": f"{os.cpu_count()} x {platform.machine()}",
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    path = Path(__file__).parent / "results" / f"{Path(script).stem}.json"
    path.write_text(json.dumps(figures | machine, indent=2) + "\n")
