"""Learning-rate schedules: the factor on the learning rate at each optimizer step.

A schedule is a function of (step, total_steps), with step from 0 to total_steps - 1. conf/scheduler sets its other
arguments.
"""

import math
from collections.abc import Sequence
from typing import Literal

import lightning as L

from reslab.errors import UserError

ONE_CYCLE_START = 1 / 25  # of the peak; torch's OneCycleLR has div_factor=25
ONE_CYCLE_END = 1 / (25 * 1e4)  # of the peak; torch's final_div_factor=1e4


def constant(step: int, total_steps: int) -> float:
    """Return 1 at every step."""
    return 1.0


def one_cycle(step: int, total_steps: int, warmup_fraction: float, anneal: Literal["cos", "linear"]) -> float:
    """Rise from 1/25 to 1, then fall to 1/250,000 (Smith and Topin 2017, arXiv:1708.07120).

    The factors are those of torch.optim.lr_scheduler.OneCycleLR.

    Args:
        step: the optimizer step, from 0.
        total_steps: all optimizer steps of the run.
        warmup_fraction: the fraction of all steps in which the factor rises.
        anneal: the shape of both parts, half a cosine or a line.
    """
    peak = warmup_fraction * total_steps - 1
    if step < peak:
        return interpolate(ONE_CYCLE_START, 1.0, step / peak, anneal)
    return interpolate(1.0, ONE_CYCLE_END, (step - peak) / (total_steps - 1 - peak), anneal)


def interpolate(start: float, end: float, progress: float, anneal: str) -> float:
    weight = progress if anneal == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * weight


def cosine(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Rise linearly to 1, then follow half a cosine towards 0 (Loshchilov and Hutter 2016, arXiv:1608.03983).

    The paper's section 3 restarts the cosine; this is one period of it.

    Args:
        step: the optimizer step, from 0.
        total_steps: all optimizer steps of the run.
        warmup_fraction: the fraction of all steps in which the factor rises.
    """
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2


def multi_step(step: int, total_steps: int, milestones: Sequence[float], gamma: float, warmup_steps: int) -> float:
    """Multiply by `gamma` at each milestone (He et al. 2015, arXiv:1512.03385, section 4.2).

    Args:
        step: the optimizer step, from 0.
        total_steps: all optimizer steps of the run.
        milestones: fractions of all steps; He et al. take 1/2 and 3/4.
        gamma: the factor of each milestone.
        warmup_steps: first steps at a tenth of the learning rate, which He et al. use for ResNet-110.
    """
    if step < warmup_steps:
        return 0.1
    return gamma ** sum(step >= round(milestone * total_steps) for milestone in milestones)


def optimizer_steps(trainer: L.Trainer) -> int:
    """Return the number of optimizer steps of a run. Raise UserError if an epoch has no batch.

    Lightning's `estimated_stepping_batches` would set up the loader before the loader's state is read from a
    checkpoint, and would then ignore that state.
    """
    batches, limit = trainer.datamodule.batches_per_epoch, trainer.limit_train_batches  # type: ignore[attr-defined]
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if batches == 0:
        name = "overfit_batches" if trainer.overfit_batches else "limit_train_batches"  # type: ignore[attr-defined]
        raise UserError(f"trainer.{name}={limit} leaves none of the batches of an epoch: raise it")
    interval = trainer.val_check_interval
    if isinstance(interval, int) and interval > batches:
        raise UserError(f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch")
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
    if trainer.max_steps < 0:
        return steps
    return min(trainer.max_steps, steps) if trainer.max_epochs != -1 else trainer.max_steps
