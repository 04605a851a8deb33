"""Measure the speed and the memory of training: `reslab benchmark --help`."""

import sys

from omegaconf import DictConfig

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.entry import command
from reslab.interruption import signals


def run_benchmark(config: DictConfig) -> None:
    """Measure every case, print the results, and exit with status 1 if a case has failed."""
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.benchmarking.benchmark import run_benchmark
        from reslab.benchmarking.table import print_benchmark

    result = run_benchmark(config)
    print_benchmark(result)
    if any("error" in row for row in result["cases"]):
        sys.exit(1)


def main() -> None:
    command(BENCHMARK_SCHEMA, run_benchmark)


if __name__ == "__main__":
    main()
