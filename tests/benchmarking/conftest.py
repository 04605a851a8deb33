import pytest
from hydra import compose

TINY = ("model=resnet8", "data.num_images=64", "data.image_size=8", "data.batch_size=16", "trainer=cpu")


@pytest.fixture
def config(composed, tmp_path):
    """The configuration of python src/benchmark.py for a tiny network; `composed` initialises Hydra."""
    return lambda *overrides: compose("benchmark", [f"folder={tmp_path}", *TINY, *overrides])


@pytest.fixture
def finished_row():
    """A function that makes the row of a finished case."""

    def make(device, images_per_second, **options):
        case = {"precision": "auto", "memory_format": "channels_last", "compile": False, "with_graph": "auto"}
        case |= {"batch_size": 64} | options
        return case | {
            "device": device, "status": "finished", "images_per_second": images_per_second,
            "accelerator": device, "run": {"precision": "bf16-mixed" if device == "gpu" else "32-true"},
        }  # fmt: skip

    return make
