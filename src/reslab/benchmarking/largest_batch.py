"""The largest batch that fits into memory."""

import logging
from collections.abc import Callable
from dataclasses import asdict, replace

from omegaconf import DictConfig

from reslab.benchmarking.cases import CASE_OPTIONS, Case, training_settings
from reslab.benchmarking.isolation import measure_in_own_process
from reslab.benchmarking.rows import Row, describe_case, describe_result
from reslab.training.graph import WARMUP_STEPS

log = logging.getLogger(__name__)

# The first step allocates the gradients and the optimizer's state. The second one needs them and its activations.
STEPS_THAT_MUST_FIT = 2
STEPS_WITH_GRAPH = WARMUP_STEPS + 2  # one is recorded after the warm-up, and one is replayed
GRANULARITY = 16  # The batch that is found is at most a sixteenth smaller than the largest one that fits.


def find_largest_batches(config: DictConfig, cases: list[Case]) -> list[Row]:
    """Return one row per combination of the other options, each searched from the first batch size."""
    combinations = dict.fromkeys(replace(case, batch_size=cases[0].batch_size) for case in cases)
    return [find_largest_batch(config, case) for case in combinations]


def find_largest_batch(config: DictConfig, case: Case) -> Row:
    """Return the case with `batch_size`, the largest one that fits, or None if not even one image does.

    `next` is the smallest batch size that was tried and does not fit; `reason` is what happened there.
    """
    rows: dict[int, Row] = {}

    def fits(batch_size: int) -> bool:
        tried = replace(case, batch_size=batch_size)
        steps = STEPS_WITH_GRAPH if case.with_graph is True else STEPS_THAT_MUST_FIT
        row = asdict(tried) | measure_in_own_process(training_settings(config, tried, 0, steps, 0))
        finished = bool(row["status"] == "finished")
        log.info("%s: %s", describe_case(row, CASE_OPTIONS), "fits" if finished else describe_result(row))
        rows[batch_size] = row
        return finished

    largest, above = search_largest(fits, case.batch_size)
    measured = {name: rows[largest][name] for name in ("accelerator", "peak_memory_mb", "run")} if largest else {}
    found = {"batch_size": largest or None, "next": above, "reason": describe_result(rows[above])}
    return asdict(case) | measured | found


def search_largest(fits: Callable[[int], bool], start: int) -> tuple[int, int]:
    """Search by doubling (or halving) from `start`, then by bisection.

    Returns:
        The largest number that was found to fit, 0 if none does, and the smallest one that was found not to fit.
    """
    low, high = 0, start
    while fits(high):
        low, high = high, 2 * high
    if low == 0:
        while high > 1 and not fits(high // 2):
            high //= 2
        low = high // 2
    while high - low > max(1, low // GRANULARITY):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low, high
