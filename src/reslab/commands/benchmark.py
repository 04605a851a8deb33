"""Measure the speed and the memory of training: `reslab benchmark --help`."""

import sys

from omegaconf import DictConfig

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.entry import command
from reslab.interruption import signals

HELP = """\
Measures training steps: images/s, milliseconds per step and per part (data,
forward, backward, optimizer), peak memory.

  python src/benchmark.py model=resnet18 data=synthetic
  python src/benchmark.py model=resnet18 "benchmark.batch_sizes=[32,64,128]"
  python src/benchmark.py model=resnet50 "benchmark.devices=[cpu,gpu]"
  python src/benchmark.py experiment=cifar10_resnet50 \\
      "benchmark.precisions=[32-true,bf16-mixed]"
  python src/benchmark.py model=resnet50 benchmark.largest_batch=true

model, data, optimizer, trainer, experiment are as for src/train.py;
data=synthetic needs no files.

Options (--cfg job shows all of them and their values). The first six take one
value or a list; every combination is measured in a process of its own.
  benchmark.devices=[cpu,gpu]
  benchmark.precisions=[32-true,bf16-mixed]
  benchmark.memory_formats=[channels_last,contiguous]
  benchmark.compile=[false,true]
  benchmark.graph=[false,true]
  benchmark.batch_sizes=[32,64]
  benchmark.warmup_steps=20        steps before the measured ones
  benchmark.steps=100              measured steps
  benchmark.largest_batch=true     also search for the largest batch that fits
  benchmark.memory_limit_mb=4000   a limit for each case

Writes benchmark.json and benchmark.png to
outputs/benchmark/<model>-<data>/<date>_<time>/.
"""  # not the docstring of this module, which python -OO removes


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
    command(BENCHMARK_SCHEMA, run_benchmark, HELP)


if __name__ == "__main__":
    main()
