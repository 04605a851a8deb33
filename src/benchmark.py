"""Measure the speed and memory of training: python src/benchmark.py --help."""

from omegaconf import DictConfig

from reslab.command import command


def benchmark(config: DictConfig) -> None:
    from reslab.benchmarking import benchmark, print_benchmark

    print_benchmark(benchmark(config))


if __name__ == "__main__":
    command("benchmark", benchmark)
