"""What each option of a benchmark may be."""

from reslab.data.options import DATA
from reslab.options import NULL, TRUE_OR_FALSE, Schema, between, integer, one_of, one_or_list
from reslab.training.options import PRECISIONS, RUN, TRAINING_SCHEMA

# The names that users write, with the names that torch has for them.
MEMORY_FORMATS = {"channels_last": "channels_last", "contiguous": "contiguous_format"}
RUNTIMES = ("eager", "onnx", "int8")
BENCHMARK_OPTIONS = {
    "benchmark.mode": one_of("training", "inference"),
    "benchmark.runtimes": one_or_list(one_of(*RUNTIMES)),
    "benchmark.inference_batches": one_or_list(DATA["data.batch_size"]),
    "benchmark.seconds": between(0, 1e6),
    "benchmark.devices": one_or_list(one_of("auto", "cpu", "gpu")),
    "benchmark.precisions": one_or_list(one_of("auto", *PRECISIONS)),
    "benchmark.memory_formats": one_or_list(one_of(*MEMORY_FORMATS)),
    "benchmark.compile": one_or_list(TRUE_OR_FALSE),
    "benchmark.graph": one_or_list(RUN["graph"]),
    "benchmark.batch_sizes": one_or_list(DATA["data.batch_size"]),
    "benchmark.warmup_steps": integer(0),
    "benchmark.steps": integer(1),
    "benchmark.largest_batch": TRUE_OR_FALSE,
    "benchmark.memory_limit_mb": between(1, 1e9) | NULL,  # no machine has a petabyte
}

BENCHMARK_SCHEMA = Schema("benchmark", {**TRAINING_SCHEMA.kinds, **BENCHMARK_OPTIONS}, TRAINING_SCHEMA.check_together)
