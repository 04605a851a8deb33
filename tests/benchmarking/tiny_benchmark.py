"""What the tests of a benchmark share: its configuration for a tiny network, the measurement of one case, a row."""

import pytest
from hydra import compose

from reslab.benchmarking.cases import read_cases, training_settings
from reslab.benchmarking.measuring import measure

TINY = ("model=resnet8", "data.num_images=64", "data.image_size=8", "data.batch_size=16", "trainer=cpu")


@pytest.fixture
def config(composed, tmp_path):
    """The configuration of python src/benchmark.py for a tiny network; `composed` initialises Hydra."""
    return lambda *overrides: compose("benchmark", [f"folder={tmp_path}", *TINY, *overrides])


def measured(config, warmup_steps=1, steps=3):
    """Measure the only case of a configuration in this process."""
    (case,) = read_cases(config)
    return measure(training_settings(config, case, warmup_steps, steps))


def finished_row(device, images_per_second, **options):
    case = {"precision": "auto", "memory_format": "channels_last", "compile": False, "batch_size": 64} | options
    return case | {
        "device": device, "status": "finished", "images_per_second": images_per_second,
        "accelerator": device, "run": {"precision": "bf16-mixed" if device == "gpu" else "32-true"},
    }  # fmt: skip
