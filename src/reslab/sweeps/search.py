"""A search for the best settings: trials that Optuna asks for, each a job of a Hydra sweep.

Everything that is known of a search stands in its folder: search.db, which Optuna's own tools read, and each job's
result.json. So a search that was killed goes on as if it had not been, trial by trial.
"""

import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Sweep

from reslab.errors import UserError
from reslab.options import SEARCH, VALIDATION, check_option
from reslab.sweeps.jobs import SweepJobs

try:
    import optuna
except ImportError as error:
    raise UserError("hydra/sweeper=optuna needs Optuna: pip install -e '.[search]'") from error
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # QMCSampler, since 2022

DATABASE, STUDY = "search.db", "search"
LESS_IS_BETTER = ("loss", "seconds", "error", "parameters")  # ends of names in result.json
PRUNERS: dict[str, type[optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}
Space = dict[str, BaseDistribution]


class Grid(optuna.samplers.GridSampler):
    def after_trial(self, *arguments: Any) -> None:
        """The search knows its end; Optuna's own can only stop what study.optimize runs."""


def open_study(folder: Path, storage: str | None = None) -> optuna.Study:
    return optuna.load_study(**study_place(folder, storage))


def study_place(folder: Path, storage: str | None) -> dict[str, Any]:
    """In a database that searches share each has the name of its folder."""
    if storage is None:
        return {"storage": f"sqlite:///{quote(str(folder / DATABASE))}", "study_name": STUDY}
    return {"storage": storage, "study_name": str(folder.absolute())}


def running_trial(folder: Path, storage: str | None = None) -> tuple[optuna.Trial | None, str]:
    """The trial whose job has this folder, None if it is not running, and what its search has for objective."""
    study = open_study(folder.parent, storage)
    search, number = study.user_attrs["search"], int(folder.name.partition("_")[0])
    study.pruner = PRUNERS[search["pruner"]]()
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    ids = [trial._trial_id for trial in running if trial.number == number]
    return (optuna.Trial(study, ids[0]) if ids else None), search["objectives"][0]


def read_space(lines: Sequence[str], config_loader: ConfigLoader) -> tuple[list[str], Space]:
    """The overrides that every trial has, and what is searched over; of two with one name the later counts."""
    fixed: dict[str, str] = {}
    space: Space = {}
    for override in OverridesParser.create(config_loader=config_loader).parse_overrides(list(lines)):
        name = override.get_key_element()
        fixed.pop(name, None)
        space.pop(name, None)
        if override.is_sweep_override():
            space[name] = distribution(override)
        else:
            fixed[name] = str(override.input_line)
    if not space:
        raise UserError("a search needs something to search over, e.g. 'optimizer.lr=tag(log, interval(0.01, 1))'")
    return list(fixed.values()), space


def distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()  # one of Hydra's sweeps
    tags = value.tags if isinstance(value, Sweep) else set()  # glob(*) has none
    if unknown := tags - {"log"}:
        raise UserError(f"{override.input_line}: tag({min(unknown)}, ...) means nothing here, only tag(log, ...)")
    log = "log" in tags
    try:
        if override.is_interval_sweep():
            kind = IntDistribution if isinstance(value.start, int) and isinstance(value.end, int) else FloatDistribution
            return kind(value.start, value.end, log=log)
        if override.is_range_sweep():
            values = sorted(value.range())
            if not values:
                raise ValueError("this range is empty")
            if isinstance(values[0], int):
                return IntDistribution(values[0], values[-1], log=log, step=abs(int(value.step)))
            return FloatDistribution(values[0], values[-1], log=log, step=abs(value.step))
        if log:
            raise ValueError("tag(log, ...) is for an interval or a range")
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def check_space(jobs: SweepJobs, fixed: list[str], space: Space) -> None:
    """Composes each choice and each end of a range beside the first of the others; raises what its job would."""
    values = {
        name: each.choices if isinstance(each, CategoricalDistribution) else (each.low, each.high)  # type: ignore[attr-defined]
        for name, each in space.items()
    }
    first = {name: own[0] for name, own in values.items()}
    asked = (first, *(first | {name: value} for name, own in values.items() for value in own[1:]))
    jobs.check([jobs.compose(0, [*fixed, *(f"{n}={v}" for n, v in parameters.items())]) for parameters in asked])


class Search:
    """`trials` trials of `space` in all, `n_jobs` at a time; raises UserError for options that do not fit."""

    def __init__(
        self, folder: Path, fixed: list[str], space: Space, objectives: Sequence[str], *, trials: int, n_jobs: int,
        sampler: str, seed: int, pruner: str, storage: str | None = None,
    ) -> None:  # fmt: skip
        options = {
            "trials": trials, "n_jobs": n_jobs, "sampler": sampler, "seed": seed, "pruner": pruner, "storage": storage,
        }  # fmt: skip
        for name, kind in SEARCH.items():
            check_option(f"hydra.sweeper.{name}", options[name], kind)
        if pruner != "none" and (len(objectives) > 1 or objectives[0] not in VALIDATION):
            raise UserError(f"hydra.sweeper.pruner={pruner} needs one objective of {', '.join(VALIDATION)}")
        self.fixed, self.space, self.objectives, self.n_jobs = fixed, space, objectives, n_jobs
        self.sampler, self.seed = sampler, seed
        self.grid = {name: grid_values(name, each) for name, each in space.items()} if sampler == "grid" else {}
        self.trials = min(trials, math.prod(map(len, self.grid.values()))) if self.grid else trials
        less, more = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
        directions = [less if name.endswith(LESS_IS_BETTER) else more for name in objectives]
        if not storage and not (folder / DATABASE).exists() and any(folder.glob("[0-9]*/result.json")):
            print(
                f"{folder / DATABASE} is not there: made again from the jobs' results, without what a pruner was told"
            )
        try:
            place = study_place(folder, storage)
            self.study = optuna.create_study(**place, directions=directions, load_if_exists=True)
        except (ImportError, SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error).partition("\n")[0]
            own = f"{folder / DATABASE} cannot be opened; without it the jobs' results are read again"
            raise UserError(f"{'hydra.sweeper.storage cannot be opened' if storage else own}: {reason}") from error
        described = {name: distribution_to_json(each) for name, each in space.items()}
        search = {"space": described, "fixed": fixed, "objectives": list(objectives), "pruner": pruner}
        if self.study.trials and self.study.user_attrs.get("search") != search:
            raise UserError(f"{folder} holds another search than this: start a new one instead")
        self.study.set_user_attr("search", search)
        self.study.set_metric_names(list(objectives))  # for the axes of Optuna's dashboard

    def run(self, jobs: SweepJobs) -> None:
        while batch := self.batch():
            results = jobs.run({trial.number: self.overrides(trial) for trial in batch})
            for trial in batch:
                self.tell(trial, results[trial.number])
        self.report()

    def batch(self) -> list[optuna.Trial]:
        """Those that were cut off, or the next `n_jobs`, or both: where the kill came before all of them were asked.

        Trials that were given to search.db by hand are among the next.
        """
        trials = self.study.get_trials(deepcopy=False)
        cut_off = [self.seeded(trial.number, trial._trial_id) for trial in trials if trial.state == TrialState.RUNNING]
        begun = sum(trial.state != TrialState.WAITING for trial in trials)
        missing = -begun % self.n_jobs if cut_off else self.n_jobs
        return [*cut_off, *(self.seeded(number) for number in range(begun, min(self.trials, begun + missing)))]

    def seeded(self, number: int, trial_id: int | None = None) -> optuna.Trial:
        """Trial `number`, new or continued, with all its parameters set.

        The sampler's seed is a function of the number, so that a search which was cut off asks what it would have
        asked. Where the kill came between two parameters, the missing one is drawn anew.
        """
        self.study.sampler = self.build_sampler(number)
        trial = self.study.ask() if trial_id is None else optuna.Trial(self.study, trial_id)
        for name, each in self.space.items():
            trial._suggest(name, each)  # what Study.ask calls; a parameter that is set stays as it is
        return trial

    def build_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        own_seed = random.Random(f"{self.seed} {number}").getrandbits(31)
        if self.sampler == "grid":
            return Grid(self.grid, seed=self.seed)
        if self.sampler == "qmc":
            choices = optuna.samplers.RandomSampler(seed=own_seed)  # Sobol's sequence has none
            return optuna.samplers.QMCSampler(
                scramble=True, seed=self.seed, independent_sampler=choices, warn_independent_sampling=False
            )
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=own_seed)
        return optuna.samplers.TPESampler(seed=own_seed)

    def overrides(self, trial: optuna.Trial) -> list[str]:
        return [*self.fixed, *(f"{name}={trial.params[name]}" for name in self.space)]

    def tell(self, trial: optuna.Trial, result: dict[str, Any]) -> None:
        if result["status"] == "finished":
            if missing := [name for name in self.objectives if name not in result]:
                self.study.tell(trial, state=TrialState.FAIL)
                raise UserError(f"objective={missing[0]} is not in {result['folder']}/result.json")
            values = {name: result[name] for name in self.objectives}
            if no_number := [name for name, value in values.items() if math.isnan(value)]:
                print(f"job {trial.number} counts as failed: its {no_number[0]} is no number")
            self.study.tell(trial, list(values.values()))  # Optuna takes a NaN for a failure
        else:
            self.study.tell(trial, state=TrialState.PRUNED if result["status"] == "pruned" else TrialState.FAIL)

    def report(self) -> None:
        """The best trial; of several objectives those that no other one beats in all."""
        trials = self.study.get_trials(deepcopy=False)
        words = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        counts = [f"{sum(trial.state == state for trial in trials)} {word}" for state, word in words.items()]
        print(f"search: {len(trials)} trials, {', '.join(counts)}")
        if any(trial.state == TrialState.COMPLETE for trial in trials):
            best = self.study.best_trials if len(self.objectives) > 1 else [self.study.best_trial]
            for trial in best:
                values = " ".join(f"{n}={v:.6g}" for n, v in zip(self.objectives, trial.values, strict=True))
                print(f"best:   job {trial.number}, {values}: {' '.join(f'{n}={v}' for n, v in trial.params.items())}")


def grid_values(name: str, each: BaseDistribution) -> list[Any]:
    if isinstance(each, CategoricalDistribution):
        return list(each.choices)
    if isinstance(each, IntDistribution):
        return list(range(each.low, each.high + 1, each.step))
    if isinstance(each, FloatDistribution) and each.step is not None:
        steps = round((each.high - each.low) / each.step)
        return [round(each.low + step * each.step, 12) for step in range(steps + 1)]
    raise UserError(f"hydra.sweeper.sampler=grid needs a list or a range for {name}, not an interval")
