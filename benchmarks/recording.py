"""What the benchmarks share: the speed of a loader, statistics over rounds, and the JSON file of the results."""

import json
import platform
import statistics
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any


def images_per_second(batches: Iterable[Any], workers: int) -> float:
    """Return the speed of the batches after the first one of each worker, so that the start of workers does not count.

    Workers that begin together have their first batches ready at the same time.
    """
    iterator = iter(batches)
    for _ in range(max(1, workers)):
        next(iterator)
    start, count = time.perf_counter(), 0
    for batch in iterator:
        count += len(batch)
    return count / (time.perf_counter() - start)


def median_and_range(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(ours: Sequence[float], others: Sequence[float]) -> dict[str, float]:
    """Divide each round's value of ResLab by that of another program, and return the median and range of the ratios."""
    return median_and_range([a / b for a, b in zip(ours, others, strict=True)])


def write_results(script: str, results: dict[str, Any], packages: Sequence[str]) -> None:
    """Write the results, the machine and the versions of packages to benchmarks/results/<name of the script>.json."""
    from reslab.training.provenance import processor  # torch and Lightning, which a measurement may not have imported

    machine = {
        "cpu": processor(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
    path = Path(__file__).parent / "results" / f"{Path(script).stem}.json"
    path.write_text(json.dumps(results | machine, indent=2) + "\n")
