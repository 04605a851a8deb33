"""Learning-rate schedules: the factor on the learning rate at each optimizer step, exact from the first to the last.

Each is a function of (step, total_steps) with step = 0 … total_steps - 1; conf/scheduler sets the rest.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch.optim.lr_scheduler import LambdaLR

ONE_CYCLE_START = 1 / 25  # of the peak; torch's OneCycleLR has div_factor=25
ONE_CYCLE_END = 1 / (25 * 1e4)  # of the peak; torch's final_div_factor=1e4


def constant(step: int, total_steps: int) -> float:
    return 1.0


def one_cycle(step: int, total_steps: int, warmup_fraction: float, anneal: Literal["cos", "linear"]) -> float:
    """Up to the peak over `warmup_fraction` of the steps, then down to almost nothing (arXiv:1708.07120)."""
    peak = warmup_fraction * total_steps - 1
    if step < peak:
        return interpolate(ONE_CYCLE_START, 1.0, step / peak, anneal)
    return interpolate(1.0, ONE_CYCLE_END, (step - peak) / (total_steps - 1 - peak), anneal)


def interpolate(start: float, end: float, progress: float, anneal: str) -> float:
    weight = progress if anneal == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * weight


def cosine(step: int, total_steps: int, warmup_fraction: float) -> float:
    """Linear warm-up, then half a cosine towards zero (arXiv:1608.03983, one period)."""
    warmup_steps = round(warmup_fraction * total_steps)
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (1 + math.cos(math.pi * (step - warmup_steps) / (total_steps - warmup_steps))) / 2


def multi_step(step: int, total_steps: int, milestones: Sequence[float], gamma: float, warmup_steps: int) -> float:
    """Multiply by `gamma` at each milestone, a fraction of all steps (He et al. 2015: 1/2 and 3/4).

    The first `warmup_steps` run at a tenth, as He et al. did for ResNet-110 (section 4.2).
    """
    if step < warmup_steps:
        return 0.1
    return gamma ** sum(step >= round(milestone * total_steps) for milestone in milestones)


class ScheduledLR(LambdaLR):
    """torch's LambdaLR, which leaves parameter groups that were added later at the learning rate they have.

    Lightning's BackboneFinetuning adds such a group and steers its rate itself.
    """

    def get_lr(self) -> list[Any]:
        added = self.optimizer.param_groups[len(self.base_lrs) :]
        return [*super().get_lr(), *(group["lr"] for group in added)]
