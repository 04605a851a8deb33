"""A whole benchmark: every case is measured, compared, written and drawn.

Only `measuring` and `memory` import torch. They run in the process of a case, so a mistake in an option is reported at
once.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from reslab.benchmarking.cases import CASE_OPTIONS, Case, read_cases, training_settings
from reslab.benchmarking.isolation import measure_in_own_process
from reslab.benchmarking.largest_batch import find_largest_batches
from reslab.benchmarking.picture import draw
from reslab.benchmarking.rows import Row, compare_devices, describe_case, describe_result
from reslab.errors import UserError
from reslab.files import write_json
from reslab.run import BENCHMARK_FILE

log = logging.getLogger(__name__)


def run_benchmark(config: DictConfig) -> dict[str, Any]:
    """Measure every case and write benchmark.json and benchmark.png into the folder of the benchmark.

    Args:
        config: the composed configuration conf/benchmark.yaml.

    Returns:
        What benchmark.json holds: the model, the data set and the numbers of steps; "cases", one row per case;
        "ratios", one row per two cases that differ only in their device; "largest_batches"; the folder.

    Raises:
        UserError: there is no GPU but one of the cases needs it, or no case can be measured with these options.
    """
    cases = read_cases(config)
    require_devices(cases)
    rows = measure_cases(config, cases)
    result = {
        "model": config.model.name,
        "data": config.data.name,
        "warmup_steps": config.benchmark.warmup_steps,
        "steps": config.benchmark.steps,
        "cases": rows,
        "ratios": compare_devices(rows),
        "largest_batches": find_largest_batches(config, cases) if config.benchmark.largest_batch else [],
        "folder": config.folder,
    }
    folder = Path(config.folder)
    write_json(folder / BENCHMARK_FILE, result)
    draw(folder / "benchmark.png", result)
    return result


def require_devices(cases: list[Case]) -> None:
    if any(case.device == "gpu" for case in cases):
        from reslab.training.build import require_accelerator  # torch

        require_accelerator("gpu", option="benchmark.devices")


def measure_cases(config: DictConfig, cases: list[Case]) -> list[Row]:
    rows = []
    for number, case in enumerate(cases, start=1):
        row = measure_case(config, case)
        log.info("%d of %d  %s: %s", number, len(cases), describe_case(row, CASE_OPTIONS), describe_result(row))
        rows.append(row)
    if all(row["status"] == "refused" for row in rows):
        raise UserError(rows[0]["error"])
    return rows


def measure_case(config: DictConfig, case: Case) -> Row:
    options = config.benchmark
    settings = training_settings(config, case, options.warmup_steps, options.steps)
    return asdict(case) | measure_in_own_process(settings)
