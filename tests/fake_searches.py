"""Searches whose jobs are not trained: the result of a job is a function of its overrides."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

from reslab.sweeps.search import Search
from reslab.sweeps.study import open_study

SPACE = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(["a", "b"])}
OPTIONS = {"trials": 16, "n_jobs": 1, "sampler": "tpe", "seed": 42, "pruner": "none"}


class FakeJobs:
    """Runs jobs as SweepJobs does.

    Args:
        result: a function from the overrides of a job, by name, to its result.
        stop: the number of the job before which a KeyboardInterrupt ends the search.
    """

    def __init__(self, result, stop=None):
        self.function, self.stop, self.launched, self.batches, self.ended = result, stop, [], [], {}

    def run(self, jobs):
        self.batches.append(list(jobs))
        for number, overrides in jobs.items():
            if number == self.stop:
                raise KeyboardInterrupt
            self.launched.append(number)
            values = dict(override.split("=", 1) for override in overrides)
            self.ended[number] = {"status": "finished", "folder": f"job{number}"} | self.function(values)
        return {number: self.ended[number] for number in jobs}

    def results(self):
        return self.ended


def accuracy(values):
    """A result that is best at x=0.3 with kind b."""
    return {"val/accuracy": 1 - (float(values["x"]) - 0.3) ** 2 - 0.1 * (values["kind"] == "a"), "parameters": 5}


def make_search(folder, space=SPACE, objectives=("val/accuracy",), fixed=(), **options):
    folder.mkdir(exist_ok=True)
    return Search(folder, list(fixed), space, list(objectives), **OPTIONS | options)


def trials(folder):
    return [(trial.number, trial.state, trial.params, trial.values) for trial in open_study(folder).trials]
