"""A search by Optuna for the best options: each trial is a job of a sweep.

A search keeps no state of its own. Its database, which Optuna's tools can read as well, and the result.json of each
job are enough to resume a search that was killed, with the trials that it would have had.
"""

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from reslab import files
from reslab.errors import UserError
from reslab.internals import continued_trial
from reslab.options import check_option
from reslab.run import ENDED, FINISHED, PRUNED, Result, Run
from reslab.sweeps.jobs import SweepJobs
from reslab.sweeps.options import CONTINUES, PRUNING_OVERRIDE, SEARCH
from reslab.sweeps.space import Space, grid_values, suggest_parameters
from reslab.sweeps.study import IN_USE, create_study, errors_of_use
from reslab.sweeps.summary import SweepFailed
from reslab.text import printable
from reslab.training.options import VALIDATION_METRICS

# The callback reads the database's URL from the sweep's record, so that a password is not on the command line.
STATUSES = {TrialState.COMPLETE: FINISHED, TrialState.PRUNED: PRUNED, TrialState.FAIL: "failed"}


class UnlimitedGridSampler(optuna.samplers.GridSampler):
    """Optuna's grid, which does not stop a study: its own way to do so raises an error outside study.optimize."""

    def after_trial(self, *arguments: Any) -> None:
        pass


class Search:
    """A search in a sweep's folder, new or resumed.

    Args:
        folder: the sweep's folder.
        fixed: the overrides that all trials share.
        space: the distribution of each option that is searched.
        objectives: the names of the results to optimize.
        trials: how many trials the search has in all; a grid has no more than it has combinations.
        n_jobs: how many trials are asked for and launched at once.
        sampler: tpe, random, grid or qmc.
        seed: seeds the sampler.
        pruner: none, median or halving.
        storage: the URL of a database that searches share; None for one in the folder.

    Raises:
        UserError: an option is wrong, the database cannot be opened, or the folder holds another search.
    """

    def __init__(
        self, folder: Path, fixed: list[str], space: Space, objectives: Sequence[str], *, trials: int, n_jobs: int,
        sampler: str, seed: int, pruner: str, storage: str | None = None,
    ) -> None:  # fmt: skip
        check_options(
            objectives, trials=trials, n_jobs=n_jobs, sampler=sampler, seed=seed, pruner=pruner, storage=storage
        )
        self.fixed, self.space, self.objectives, self.n_jobs = fixed, space, objectives, n_jobs
        self.sampler, self.seed = sampler, seed
        self.pruning = [PRUNING_OVERRIDE] if pruner != "none" else []
        self.grid = grid_values(space) if sampler == "grid" else {}
        self.trials = min(trials, math.prod(map(len, self.grid.values()))) if self.grid else trials
        described = {name: distribution_to_json(distribution) for name, distribution in space.items()}
        definition = {"space": described, "fixed": fixed, "objectives": list(objectives), "pruner": pruner}
        self.study = create_study(folder, storage, objectives, definition)
        self.postponed: set[int] = set()  # the numbers of trials that only a resumed search can end

    def run(self, jobs: SweepJobs) -> None:
        """Run the trials that have no result, and print the best one.

        Raises:
            RunError: another process held the database for too long. A resumed search reports the results it missed.
        """
        while True:
            with errors_of_use():
                overrides = {trial: self.overrides(trial) for trial in self.next_trials()}
            if not overrides:
                break
            try:
                results = jobs.run({trial.number: own for trial, own in overrides.items()})
            except SweepFailed:  # sweep.stop_on_failure=true; the trials of the other jobs stay running
                results = jobs.results()
                self.report_results(
                    {trial: results[trial.number] for trial in overrides if has_a_result(results[trial.number])}
                )
                raise
            self.report_results({trial: results[trial.number] for trial in overrides})
        with errors_of_use():
            self.print_best()

    def next_trials(self) -> list[optuna.Trial]:
        """Return the trials to launch: those that were interrupted, and new ones up to a multiple of `n_jobs`.

        Trials enqueued with `Study.enqueue_trial` come first among the new ones.
        """
        trials = self.study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        interrupted = [trial for trial in running if trial.number not in self.postponed]
        begun = sum(trial.state != TrialState.WAITING for trial in trials)
        # If the search was killed while it asked for trials, the last group of them is incomplete.
        missing = -begun % self.n_jobs if interrupted else self.n_jobs
        numbers = range(begun, min(self.trials, begun + missing))
        return [
            *(self.start_trial(trial.number, trial) for trial in interrupted),
            *(self.start_trial(number) for number in numbers),
        ]

    def start_trial(self, number: int, interrupted: FrozenTrial | None = None) -> optuna.Trial:
        """Return a trial with all its parameters: a new one, or one that was interrupted.

        The sampler's seed depends on the number, so a resumed search asks for the trials that it would have had. If the
        search was killed between two parameters of a trial, the missing ones are sampled with other random numbers.
        """
        self.study.sampler = self.build_sampler(number)
        trial = self.study.ask() if interrupted is None else continued_trial(self.study, interrupted)
        suggest_parameters(trial, self.space)
        return trial

    def build_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial."""
        trial_seed = random.Random(f"{self.seed} {number}").getrandbits(31)
        if self.sampler == "grid":
            return UnlimitedGridSampler(self.grid, seed=self.seed)
        if self.sampler == "qmc":
            choices = optuna.samplers.RandomSampler(seed=trial_seed)  # Sobol's sequence has only numbers
            return optuna.samplers.QMCSampler(
                scramble=True, seed=self.seed, independent_sampler=choices, warn_independent_sampling=False
            )
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=trial_seed)
        return optuna.samplers.TPESampler(seed=trial_seed)

    def overrides(self, trial: optuna.Trial) -> list[str]:
        return [*self.fixed, *self.pruning, *(f"{name}={trial.params[name]}" for name in self.space)]

    def report_results(self, results: Mapping[optuna.Trial, Result]) -> None:
        with errors_of_use():
            for trial, result in results.items():
                self.report_result(trial, result)

    def report_result(self, trial: optuna.Trial, result: Result) -> None:
        """Report the result of a job to Optuna. Raise UserError if it does not contain an objective.

        A trial that could not reach the database, was out of time, or whose folder another process uses has no result:
        it stays running, and a resumed search runs it.
        """
        error = str(result.get("error", ""))
        if error.startswith(IN_USE):
            print(f"job {trial.number} could not reach the database of the search: resume= runs it again")
        if error.startswith(IN_USE) or error.endswith((CONTINUES, files.IN_USE)):
            self.postponed.add(trial.number)
            return
        if result["status"] != FINISHED:
            self.study.tell(trial, state=TrialState.PRUNED if result["status"] == PRUNED else TrialState.FAIL)
            return
        if missing := [name for name in self.objectives if name not in result]:
            self.study.tell(trial, state=TrialState.FAIL)
            file = Run(result["folder"]).result_file
            raise UserError(
                f"objective={missing[0]} is not in {file}, because the run had no images to measure it on: start a new "
                "search with such images, or with another objective"
            )
        values = {name: result[name] for name in self.objectives}
        if not_numbers := [name for name, value in values.items() if math.isnan(value)]:
            print(f"job {trial.number} counts as failed: its {not_numbers[0]} is not a number")
        self.study.tell(trial, list(values.values()))  # Optuna counts NaN as a failure

    @property
    def has_best(self) -> bool:
        """Whether any trial has ended with a number for each objective."""
        return any(trial.state == TrialState.COMPLETE for trial in self.study.get_trials(deepcopy=False))

    def lost(self, numbers: Iterable[int]) -> int:
        """Return how many trials have ended but are not among these numbers of the jobs that have a folder."""
        trials = self.study.get_trials(deepcopy=False)
        return len({trial.number for trial in trials if trial.state.is_finished()} - set(numbers))

    def print_best(self) -> None:
        """Print the best trial; for several objectives the trials that no other one surpasses in all of them."""
        trials = self.study.get_trials(deepcopy=False)
        counts = [f"{sum(trial.state == state for trial in trials)} {status}" for state, status in STATUSES.items()]
        print(f"search: {len(trials)} trials, {', '.join(counts)}")
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        if not complete:
            print(f"best:   none, because no trial has ended with a number for {' and '.join(self.objectives)}")
            return
        for trial in self.study.best_trials if len(self.objectives) > 1 else [self.study.best_trial]:
            values = " ".join(f"{n}={v:.6g}" for n, v in zip(self.objectives, trial.values, strict=True))
            equal = [str(each.number) for each in complete if each.values == trial.values and each != trial]
            others = f" (as good: {', '.join(equal)})" if equal and len(self.objectives) == 1 else ""
            parameters = " ".join(f"{name}={value}" for name, value in trial.params.items())
            print(f"best:   job {trial.number}, {values}{others}: {printable(parameters)}")


def has_a_result(result: Result) -> bool:
    return result["status"] in (*ENDED, "failed")


def check_options(objectives: Sequence[str], **options: Any) -> None:
    """Raise UserError for the first option of a search that is wrong."""
    for name, kind in SEARCH.items():
        check_option(f"hydra.sweeper.{name}", options[name], kind)
    if repeated := [name for name in objectives if objectives.count(name) > 1]:
        raise UserError(f"objective=[{','.join(objectives)}] has {repeated[0]} twice: name each result once")
    if options["pruner"] != "none" and (len(objectives) > 1 or objectives[0] not in VALIDATION_METRICS):
        metrics = ", ".join(VALIDATION_METRICS)
        raise UserError(f"hydra.sweeper.pruner={options['pruner']} needs one objective of {metrics}")
