"""Measure the speed and memory of training: python src/benchmark.py --help."""

import sys

from omegaconf import DictConfig

from reslab.command import command


def benchmark(config: DictConfig) -> None:
    from reslab.benchmarking import benchmark, print_benchmark

    result = benchmark(config)
    print_benchmark(result)
    if any("error" in case for case in result["cases"]):
        sys.exit(1)


if __name__ == "__main__":
    command("benchmark", benchmark)
