"""The space of a search: read from overrides in Hydra's grammar, checked, and suggested to Optuna's trials."""

from collections.abc import Sequence
from decimal import Decimal
from itertools import product
from math import prod
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep, Sweep
from optuna import Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from reslab.errors import UserError
from reslab.sweeps.composition import Job
from reslab.sweeps.jobs import SweepJobs
from reslab.training.options import refuse_unmeasured

Space = dict[str, BaseDistribution]  # by the name of the option
MAX_COMBINATIONS = 4096  # that are tried in search of one that can be trained


def read_space(lines: Sequence[str], config_loader: ConfigLoader) -> tuple[list[str], Space]:
    """Divide the overrides of a search; of two overrides with one name the later one counts.

    Returns:
        The overrides that all trials share, and the distribution of each option that is searched.

    Raises:
        UserError: no option is searched, or an option has no values.
    """
    parsed = OverridesParser.create(config_loader=config_loader).parse_overrides(list(lines))
    overrides = {override.get_key_element(): override for override in parsed}
    swept = {name: override for name, override in overrides.items() if override.is_sweep_override()}
    if not swept:
        raise UserError("a search needs an option to search, e.g. 'optimizer.lr=tag(log, interval(0.01, 1))'")
    fixed = [str(override.input_line) for name, override in overrides.items() if name not in swept]
    return fixed, {name: read_distribution(override) for name, override in swept.items()}


def read_distribution(override: Override) -> BaseDistribution:
    """Return the distribution of one option's values. Raise UserError for values that it cannot have."""
    value: Any = override.value()  # one of Hydra's classes for several values
    tags = value.tags if isinstance(value, Sweep) else set()  # glob(*) has none
    if unknown := tags - {"log"}:
        raise UserError(f"{override.input_line}: tag({min(unknown)}, ...) is unknown, there is only tag(log, ...)")
    log = "log" in tags
    try:
        if override.is_interval_sweep():
            check_ends(value.start, value.end, log)
            kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
            return kind(value.start, value.end, log=log)
        if override.is_range_sweep():
            return range_distribution(value, log)
        if log:
            raise ValueError("tag(log, ...) is for an interval or a range")
        return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def range_distribution(swept: RangeSweep, log: bool) -> BaseDistribution:
    """Return the distribution of the values that Hydra's range has.

    Hydra adds up binary fractions: range(0,1,0.3) ends with 0.8999999999999999. Optuna would leave out such an end, so
    the ends are computed in decimals.
    """
    values = list(swept.range())
    if not values:
        raise ValueError("this range is empty")
    if isinstance(values[0], int):
        check_ends(min(values), max(values), log)
        return IntDistribution(min(values), max(values), log=log, step=abs(int(swept.step)))
    first, step = Decimal(str(swept.start)), Decimal(str(swept.step))
    low, high = sorted((float(first), float(first + step * (len(values) - 1))))
    check_ends(low, high, log)
    return FloatDistribution(low, high, log=log, step=abs(float(swept.step)))


def check_ends(low: float, high: float, log: bool) -> None:
    """Raise ValueError for ends that Optuna would refuse, in words that differ between its versions."""
    if low > high:
        raise ValueError(f"{low} is above {high}: the lower end comes first")
    if log and low <= 0:
        raise ValueError(f"a logarithmic scale has no {low}: begin above 0")


def check_space(jobs: SweepJobs, fixed: list[str], space: Space, objectives: Sequence[str]) -> None:
    """Raise UserError for a value that no trial can have, or with which it would not measure an objective.

    Each choice and each end of a range is checked together with the first values of all other options. If no
    combination of choices and ends can be trained, the error of the first is raised.
    """
    values = {name: extremes(distribution) for name, distribution in space.items()}
    first = {name: own[0] for name, own in values.items()}
    combinations = [first, *(first | {name: value} for name, own in values.items() for value in own[1:])]

    def trial(chosen: dict[str, Any]) -> Job:
        return jobs.compose(0, [*fixed, *(f"{name}={value}" for name, value in chosen.items())])

    trials = [trial(each) for each in combinations]
    jobs.check_values(trials)
    if prod(map(len, values.values())) <= MAX_COMBINATIONS:
        jobs.check_combinations(trial(dict(zip(values, each, strict=True))) for each in product(*values.values()))
    for each in trials:
        refuse_unmeasured(objectives, jobs.values(each))


def extremes(distribution: BaseDistribution) -> Sequence[Any]:
    """Return all choices, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return (distribution.low, distribution.high)


def grid_values(space: Space) -> dict[str, list[Any]]:
    """Return all values of each option. Raise UserError for an interval, which has infinitely many."""
    return {name: all_values(name, distribution) for name, distribution in space.items()}


def all_values(name: str, distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        steps = round((distribution.high - distribution.low) / distribution.step)
        return [round(distribution.low + step * distribution.step, 12) for step in range(steps + 1)]
    raise UserError(f"hydra.sweeper.sampler=grid needs a list or a range for {name}, not an interval")


def suggest_parameters(trial: Trial, space: Space) -> None:
    """Let the sampler choose the trial's parameters; a parameter that is chosen already keeps its value."""
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            trial.suggest_categorical(name, distribution.choices)
        elif isinstance(distribution, IntDistribution):
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        elif isinstance(distribution, FloatDistribution):
            trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
