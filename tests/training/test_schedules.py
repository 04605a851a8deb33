import math

import pytest
import torch
from hydra.utils import instantiate
from torch.optim.lr_scheduler import OneCycleLR

from reslab.training import schedules


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize(("total_steps", "warmup_fraction"), [(100, 0.3), (37, 0.25), (8, 0.5)])
def test_one_cycle_equals_torchs_at_every_step(anneal, total_steps, warmup_fraction):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    theirs = OneCycleLR(
        optimizer, 0.4, total_steps=total_steps, pct_start=warmup_fraction, anneal_strategy=anneal, cycle_momentum=False
    )
    for step in range(total_steps):
        ours = 0.4 * schedules.one_cycle(step, total_steps, warmup_fraction, anneal)
        assert ours == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-12)
        optimizer.step()
        if step + 1 < total_steps:
            theirs.step()


def test_cosine_warms_up_linearly_and_then_follows_half_a_cosine():
    factors = [schedules.cosine(step, 110, warmup_fraction=1 / 11) for step in range(110)]
    assert factors[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[109] == pytest.approx((1 + math.cos(math.pi * 0.99)) / 2)


def test_multi_step_divides_exactly_at_the_papers_iterations():
    factors = {
        step: schedules.multi_step(step, 64_000, [0.5, 0.75], 0.1, 400) for step in (0, 399, 400, 31_999, 32_000)
    }
    assert factors == {0: 0.1, 399: 0.1, 400: 1, 31_999: 1, 32_000: 0.1}
    assert schedules.multi_step(47_999, 64_000, [0.5, 0.75], 0.1, 400) == 0.1
    assert schedules.multi_step(48_000, 64_000, [0.5, 0.75], 0.1, 400) == pytest.approx(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["constant", "cosine", "multi_step", "one_cycle"])
@pytest.mark.parametrize("total_steps", [1, 2, 3, 10])
def test_every_schedule_stays_between_zero_and_the_peak_even_for_tiny_runs(composed, name, total_steps):
    schedule = instantiate(composed(f"scheduler={name}").scheduler)
    factors = [schedule(step, total_steps) for step in range(total_steps)]
    assert all(0 < factor <= 1 for factor in factors)
