"""Searches whose jobs are not trained; test_sweepers.py has searches with real jobs."""

import io
import json

import pytest
from fake_searches import SPACE, FakeJobs, accuracy, make_search, trials
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from reslab import files
from reslab.errors import UserError
from reslab.sweeps.options import CONTINUES
from reslab.sweeps.search import Search
from reslab.sweeps.study import open_study
from reslab.sweeps.summary import SweepFailed


@pytest.mark.slow
@pytest.mark.parametrize(("sampler", "number"), [("tpe", 13), ("random", 5), ("qmc", 5), ("grid", 5)])
def test_a_search_that_is_interrupted_again_and_again_has_the_trials_of_one_that_is_not(tmp_path, sampler, number):
    grid = {"x": IntDistribution(0, 6), "kind": SPACE["kind"]}
    space, options = (grid if sampler == "grid" else SPACE), {"sampler": sampler, "trials": number}
    make_search(tmp_path / "uninterrupted", space, **options).run(FakeJobs(accuracy))
    launched = []
    for stop in (2, 2, number - 1, None):
        jobs = FakeJobs(accuracy, stop)
        search = make_search(tmp_path / "interrupted", space, **options)
        if stop is None:
            search.run(jobs)
        else:
            with pytest.raises(KeyboardInterrupt):
                search.run(jobs)
        launched += jobs.launched
    assert launched == list(range(number))
    assert trials(tmp_path / "interrupted") == trials(tmp_path / "uninterrupted")
    assert len({str(params) for _, _, params, _ in trials(tmp_path / "uninterrupted")}) == number


def test_a_trial_that_was_interrupted_between_two_parameters_keeps_the_first(tmp_path):
    search = make_search(tmp_path, trials=1)
    x = search.study.ask().suggest_float("x", SPACE["x"].low, SPACE["x"].high)
    search.run(FakeJobs(accuracy))
    ((number, state, params, values),) = trials(tmp_path)
    assert (number, state, params["x"]) == (0, TrialState.COMPLETE, x)
    assert values == [accuracy(params)["val/accuracy"]]


@pytest.mark.slow
def test_a_search_that_was_killed_while_it_asked_for_trials_asks_for_the_rest_of_the_group(tmp_path, monkeypatch):
    options = {"trials": 16, "n_jobs": 2}
    make_search(tmp_path / "uninterrupted", **options).run(FakeJobs(accuracy))
    search = make_search(tmp_path / "interrupted", **options)
    start_trial = Search.start_trial

    def killed(self, number, *arguments):
        if number == 13:
            raise KeyboardInterrupt
        return start_trial(self, number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Search, "start_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            search.run(FakeJobs(accuracy))
    make_search(tmp_path / "interrupted", **options).run(FakeJobs(accuracy))
    assert trials(tmp_path / "interrupted") == trials(tmp_path / "uninterrupted")


@pytest.mark.slow
def test_the_trials_depend_on_the_seed(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_search(tmp_path / name, trials=2, seed=seed).run(FakeJobs(accuracy))
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    assert trials(tmp_path / "a") != trials(tmp_path / "c")


@pytest.mark.slow
def test_tpe_finds_the_best_values_and_prints_them(tmp_path, capsys):
    make_search(tmp_path, trials=25).run(FakeJobs(accuracy))
    best = open_study(tmp_path).best_trial
    assert best.params["x"] == pytest.approx(0.3, abs=0.05)
    assert best.params["kind"] == "b"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "search: 25 trials, 25 finished, 0 pruned, 0 failed"
    assert lines[1].startswith(f"best:   job {best.number}, val/accuracy={best.value:.6g}: x={best.params['x']}")


def test_trials_that_are_as_good_as_the_best_are_named(tmp_path, capsys):
    make_search(tmp_path, trials=4).run(FakeJobs(lambda values: {"val/accuracy": 0.5}))
    assert "best:   job 0, val/accuracy=0.5 (as good: 1, 2, 3): x=" in capsys.readouterr().out


def test_a_parameter_of_the_database_is_printed_on_one_line(tmp_path, capsys):
    search = make_search(tmp_path, space={"kind": CategoricalDistribution(["\x1b[2Jcat\n"])}, trials=1)
    search.run(FakeJobs(lambda values: {"val/accuracy": 0.5}))
    assert capsys.readouterr().out.splitlines()[-1].endswith(": kind=\\x1b[2Jcat\\n")


@pytest.mark.slow
def test_optunas_dashboard_reads_the_search(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    make_search(tmp_path, trials=2).run(FakeJobs(accuracy))
    app = dashboard.wsgi(f"sqlite:///{tmp_path}/search.db")

    def answer(path, query=""):
        request = {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": "GET", "wsgi.input": io.BytesIO()}
        return json.loads(b"".join(app(request, lambda *response: None)))

    (summary,) = answer("/api/studies")["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("search", ["maximize"])
    study = answer(f"/api/studies/{summary['study_id']}", "after=0")
    assert study["objective_names"] == ["val/accuracy"]
    shown = [
        ({each["name"]: each["param_external_value"] for each in trial["params"]}, trial["values"])
        for trial in study["trials"]
    ]
    expected = [(params, values) for _, _, params, values in trials(tmp_path)]
    assert shown == [({name: str(value) for name, value in params.items()}, values) for params, values in expected]


@pytest.mark.slow
def test_a_grid_is_searched_once(tmp_path):
    space = {"x": FloatDistribution(0, 0.2, step=0.1), "k": IntDistribution(1, 3, step=2), "kind": SPACE["kind"]}
    make_search(tmp_path, space, sampler="grid", trials=100).run(jobs := FakeJobs(accuracy))
    assert jobs.launched == list(range(3 * 2 * 2))
    searched = {(round(p["x"], 6), p["kind"], p["k"]) for _, _, p, _ in trials(tmp_path)}
    assert searched == {(x, kind, k) for x in (0, 0.1, 0.2) for kind in "ab" for k in (1, 3)}


@pytest.mark.slow
def test_the_number_of_trials_includes_those_before_and_n_jobs_run_at_once(tmp_path):
    jobs = FakeJobs(accuracy)
    for number in (5, 5, 8):
        make_search(tmp_path, trials=number, n_jobs=2).run(jobs)
    assert jobs.batches == [[0, 1], [2, 3], [4], [5, 6], [7]]


def test_a_failed_trial_is_reported_and_the_search_continues(tmp_path, capsys):
    statuses = iter(["finished", "failed", "pruned", "unfinished"])
    make_search(tmp_path, trials=4).run(FakeJobs(lambda values: accuracy(values) | {"status": next(statuses)}))
    expected = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert [state for _, state, _, _ in trials(tmp_path)] == expected
    assert capsys.readouterr().out.startswith("search: 4 trials, 1 finished, 1 pruned, 2 failed\n")


def test_a_trial_whose_objective_is_not_a_number_is_reported_and_counts_as_failed(tmp_path, capsys):
    losses = iter([float("nan"), 0.5])
    search = make_search(tmp_path, trials=2, objectives=["val/loss", "parameters"])
    search.run(FakeJobs(lambda values: accuracy(values) | {"val/loss": next(losses)}))
    assert [(state, values) for _, state, _, values in trials(tmp_path)] == [
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, [0.5, 5]),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "job 0 counts as failed: its val/loss is not a number",
        "search: 2 trials, 1 finished, 0 pruned, 1 failed",
    ]


@pytest.mark.parametrize("error", [f"out of time after …; {CONTINUES}", f"sweep/0 {files.IN_USE}"])
def test_a_job_without_a_result_of_its_own_is_run_again_by_a_resumed_search(tmp_path, error):
    make_search(tmp_path, trials=2).run(FakeJobs(lambda values: {"status": "failed", "error": error}))
    assert [state for _, state, _, _ in trials(tmp_path)] == [TrialState.RUNNING] * 2
    make_search(tmp_path, trials=2).run(jobs := FakeJobs(accuracy))
    assert jobs.launched == [0, 1]
    assert [state for _, state, _, _ in trials(tmp_path)] == [TrialState.COMPLETE] * 2


def test_the_failed_trial_that_stops_a_search_is_not_run_again(tmp_path):
    class Stopped(FakeJobs):
        def run(self, jobs):
            super().run(jobs)
            raise SweepFailed

    statuses = iter(["failed", "interrupted", "finished"])
    stopped = Stopped(lambda values: accuracy(values) | {"status": next(statuses)})
    with pytest.raises(SweepFailed):
        make_search(tmp_path, trials=3, n_jobs=3).run(stopped)
    states = [TrialState.FAIL, TrialState.RUNNING, TrialState.COMPLETE]
    assert [state for _, state, _, _ in trials(tmp_path)] == states


def test_a_search_without_any_number_has_no_best_trial(tmp_path, capsys):
    search = make_search(tmp_path, trials=2)
    search.run(FakeJobs(lambda values: {"val/accuracy": float("nan")}))
    assert not search.has_best
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "best:   none, because no trial has ended with a number for val/accuracy"


def test_trials_whose_folders_were_removed_are_counted(tmp_path):
    search = make_search(tmp_path, trials=3)
    search.run(FakeJobs(accuracy))
    assert (search.lost([0, 1, 2]), search.lost([1])) == (0, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objectives": ["val/loss", "val/loss"]}, "objective=[val/loss,val/loss] has val/loss twice: name each"),
        ({"trials": 0}, "hydra.sweeper.trials=0 must be an integer of at least 1"),
        ({"sampler": "tpa"}, "hydra.sweeper.sampler=tpa must be one of tpe, random, grid, qmc"),
        ({"sampler": "grid"}, "hydra.sweeper.sampler=grid needs a list or a range for x, not an interval"),
        ({"pruner": "median", "objectives": ["parameters"]}, "hydra.sweeper.pruner=median needs one objective of val/"),
        ({"pruner": "halving", "objectives": ["val/loss", "parameters"]}, "hydra.sweeper.pruner=halving needs one"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, options, message):
    with pytest.raises(UserError) as error:
        make_search(tmp_path, **options)
    assert str(error.value).startswith(message)


def test_an_objective_that_is_not_in_the_result_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"objective=test/accuracy is not in job0/result\.json"):
        make_search(tmp_path, objectives=["test/accuracy"]).run(FakeJobs(accuracy))
    assert [state for _, state, _, _ in trials(tmp_path)] == [TrialState.FAIL]
