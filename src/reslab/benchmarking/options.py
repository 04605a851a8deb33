"""What each option of a benchmark may be."""

import re
from typing import Any

from reslab.configuration import CONF
from reslab.data.options import DATA
from reslab.errors import UserError
from reslab.options import NULL, TRUE_OR_FALSE, Schema, between, integer, one_of, one_or_list
from reslab.run import read_configuration
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

# The options that only one mode has. In the other one they would be ignored.
OF_MODE = {
    "training": (
        "precisions", "memory_formats", "compile", "graph", "batch_sizes", "largest_batch", "memory_limit_mb",
    ),
    "inference": ("runtimes", "inference_batches", "seconds"),
}  # fmt: skip
INSTEAD = {
    "precisions": "trainer.precision is that of an inference",
    "batch_sizes": "benchmark.inference_batches are those of an inference",
    "inference_batches": "benchmark.batch_sizes are those of a training",
}


def check_together(values: dict[str, Any]) -> None:
    """Raise UserError for values that are wrong only in combination."""
    TRAINING_SCHEMA.check_together(values)
    if of_training := [name for name in ("summary", "find_lr", "resume") if values[name]]:
        raise UserError(f"{of_training[0]}= belongs to the command train: leave it out of a benchmark")
    (other,) = OF_MODE.keys() - {values["benchmark.mode"]}
    in_conf = read_configuration(CONF / "benchmark.yaml")["benchmark"]
    for name in OF_MODE[other]:
        reference = re.fullmatch(r"\$\{(.+)\}", str(in_conf[name]))
        if values[f"benchmark.{name}"] != (values[reference[1]] if reference else in_conf[name]):
            advice = INSTEAD.get(name, "leave it out")
            raise UserError(f"benchmark.{name} has an effect with benchmark.mode={other} only: {advice}")
    if values["benchmark.mode"] == "training" and (accumulated := values["trainer.accumulate_grad_batches"]) > 1:
        raise UserError(
            f"trainer.accumulate_grad_batches={accumulated}: a benchmark measures optimizer steps of one batch: leave "
            "it out"
        )


BENCHMARK_SCHEMA = Schema("benchmark", {**TRAINING_SCHEMA.kinds, **BENCHMARK_OPTIONS}, check_together)
