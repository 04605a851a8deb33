"""Settings of the process that trains: warnings, memory, the precision of matrix products, seeds."""

import logging
import warnings

import lightning as L
import torch

from reslab.machine import is_first_process
from reslab.memory import keep_freed_memory

log = logging.getLogger(__name__)


def prepare_process(seed: int) -> None:
    """Set up this process for training, and seed it with `seed`."""
    quiet_lightning()
    keep_freed_memory()
    torch.set_float32_matmul_precision("high")  # TF32 where the GPU has it
    # Not on a CPU that has it, because convolutions do not use it there.
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"  # type: ignore[attr-defined]  # torch makes it at its import
    L.seed_everything(seed, verbose=False)


def quiet_lightning() -> None:
    """Hide what Lightning prints for every run, and the warnings that no user can act upon."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.* is deprecated",
        ".*exists and is not empty",  # the run is resumed
        "The number of training batches",  # it is below log_every_n_steps, but the last step is always logged
        "Total length of `list` across ranks is zero",  # there are no validation images
        "Precision .* is not supported by the model summary",  # it is about megabytes; our table shows parameters
        "The `srun` command is available",  # docs/sweeps.md explains how to use SLURM
        "You requested to overfit",  # our loader does not shuffle in that case
        "Be aware that when using `ckpt_path`",  # the callbacks of an older version had other names
        "The ``compute`` method of metric",  # its sums are those of a checkpoint
    ):
        warnings.filterwarnings("ignore", message=message)


def quiet_other_processes() -> None:
    """Let only the first process log what all processes find alike; each one reads other images."""
    if not is_first_process():
        logging.getLogger("reslab").setLevel(logging.ERROR)
        logging.getLogger("reslab.data.images").setLevel(logging.WARNING)
