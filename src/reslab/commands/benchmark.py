"""Measure the speed and the memory of training, or the speed of inference: `reslab benchmark --help`."""

import sys

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.commands.entry import command
from reslab.configuration import as_list
from reslab.errors import RunError
from reslab.inference.export.options import require_packages
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
  python src/benchmark.py model=resnet50 benchmark.mode=inference

model, data, optimizer, trainer, experiment are as for src/train.py;
data=synthetic needs no files.

Options (--cfg job shows all of them and their values). devices to batch_sizes
take one value or a list; every combination is measured in a process of its own.
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

benchmark.mode=inference measures a trained network's use instead: size, FLOPs,
milliseconds and images/s of one image and of the best batch, with torch (eager)
and with ONNX Runtime in float32 (onnx) and with 8 bits (int8).
  benchmark.runtimes=[eager,onnx,int8]
  benchmark.inference_batches=[1,8,64]

Writes benchmark.json and, of training, benchmark.png to
outputs/benchmark/<model>-<data>/<date>_<time>/.
"""  # not the docstring of this module, which python -OO removes


def run_benchmark(config: DictConfig) -> None:
    """Measure every case and print the results. If a case has failed, exit with status 1 or fail in the sweep."""
    if config.benchmark.mode == "inference":
        run_inference(config)
        return
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.benchmarking.benchmark import run_benchmark
        from reslab.benchmarking.table import print_benchmark

    result = run_benchmark(config)
    print_benchmark(result)
    errors = [row["error"] for row in result["cases"] if "error" in row]
    if errors and HydraConfig.get().mode == RunMode.MULTIRUN:
        raise RunError(errors[0])  # the sweep continues with its next job
    if errors:
        sys.exit(1)


def run_inference(config: DictConfig) -> None:
    """Measure a network in inference, and print the results."""
    for runtime in as_list(config.benchmark.runtimes):
        require_packages(runtime, "benchmark.runtimes")
    with signals.deferred():
        from reslab.benchmarking.inference import measure_inference
        from reslab.benchmarking.inference_table import print_inference
        from reslab.training.threads import given_threads

    with given_threads(config):
        print_inference(measure_inference(config))


def main() -> None:
    command(BENCHMARK_SCHEMA, run_benchmark, HELP)


if __name__ == "__main__":
    main()
