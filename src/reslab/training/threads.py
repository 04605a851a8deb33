"""The number of threads with which a run on a CPU computes.

Each thread sums a part of the numbers, so another number of threads rounds differently and gives other weights. A run
therefore keeps its number.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from omegaconf import DictConfig
from torch.nn import functional as F

from reslab import machine
from reslab.machine import OMP_NUM_THREADS
from reslab.training.record import recorded_threads

log = logging.getLogger(__name__)

TRIALS = 5
TRIAL_LAYERS = 4
WORTHWHILE = 1.15  # how much faster a smaller number must be, so that a quiet machine always chooses the same


@contextmanager
def fixed_threads(config: DictConfig, record: Mapping[str, Any] | None) -> Iterator[None]:
    """Compute with the run's number of threads until the end of the block.

    Args:
        config: the configuration of the run. `config.threads` may leave the number open.
        record: the record of the checkpoint that the run continues from; None for a new run. Older versions have not
            recorded the number.
    """
    number = config.threads or recorded_threads(record or {}) or chosen_threads(config.trainer)
    with computing_with(number), machine.environment({OMP_NUM_THREADS: str(number)}):
        yield  # the further processes of the run inherit the variable


@contextmanager
def given_threads(config: DictConfig) -> Iterator[None]:
    """Compute with `threads=` until the end of the block; where it is null, with as many threads as torch has."""
    with computing_with(config.threads or torch.get_num_threads()):
        yield


@contextmanager
def computing_with(number: int) -> Iterator[None]:
    """Compute with a number of threads until the end of the block. A warning says so if the processors are fewer."""
    if number > (available := machine.processors()):
        log.warning("threads=%d is more than the %d processors here, so training is slower", number, available)
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def chosen_threads(trainer: DictConfig) -> int:
    """Return the number of threads of a new run that is not asked for one.

    Args:
        trainer: the options of the trainer. The processes of a run divide the processors among themselves.
    """
    devices, gpus = trainer.devices, 0 if trainer.accelerator == "cpu" else torch.cuda.device_count()
    if devices == "auto":
        devices = max(1, gpus)
    processes = devices if isinstance(devices, int) else len(devices)
    if processes > 1:
        return machine.share_of_processors(processes)
    most = torch.get_num_threads()  # OMP_NUM_THREADS, or the cores of the processor
    if gpus or machine.asked_threads():
        return most
    number = fastest(trial_seconds(most))
    if number < most:
        log.info("other programs are running: %d of %d threads compute; threads=%d asks for all", number, most, most)
    return number


def trial_seconds(most: int) -> dict[int, float]:
    """Return how long a few layers take, forward and backward, with `most` threads, half of them, and so on to one.

    Threads share the work of each layer, and those that are ready wait for the last one. Where another program takes
    the processor of one, all of them wait, and one thread alone can be several times as fast (benchmarks/README.md).
    """
    numbers = [most]
    while numbers[-1] > 1:
        numbers.append(numbers[-1] // 2)
    seconds: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(TRIALS if len(numbers) > 1 else 0):
        for number in numbers:  # in turn, so that a disturbance meets all of them
            with computing_with(number):
                seconds[number].append(seconds_of_trial())
    return {number: median(values or [0.0]) for number, values in seconds.items()}


def seconds_of_trial() -> float:
    """Return how long the layers take. They draw no random numbers."""
    x, weight = torch.ones(64, 16, 16, 16), torch.ones(16, 16, 3, 3, requires_grad=True)
    start = time.perf_counter()
    for _ in range(TRIAL_LAYERS):
        x = F.relu(F.conv2d(x, weight, padding=1) / 144)  # (64, 16, 16, 16), with values of at most 1
    x.sum().backward()
    return time.perf_counter() - start


def fastest(seconds: Mapping[int, float]) -> int:
    """Return the largest number of threads, unless a smaller one is faster by `WORTHWHILE`.

    Args:
        seconds: how long a trial took, by the number of threads.

    Example:
        >>> fastest({4: 1.0, 2: 0.9, 1: 1.7}), fastest({4: 1.0, 2: 0.8, 1: 0.3})
        (4, 1)
    """
    best = max(seconds)
    for number in sorted(seconds, reverse=True):
        if seconds[number] * WORTHWHILE < seconds[best]:
            best = number
    return best
