"""Facts about this process: its rank in a distributed run, the processors and GPUs that it may use."""

import os
from pathlib import Path


def is_first_process() -> bool:
    """Return whether this process has rank 0, whether Lightning, torchrun or SLURM started it."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def processors() -> int:
    """Return how many processors this process may use; SLURM and taskset may reserve the others."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
