"""Sweeps that go on, and searches with Optuna. Where training is beside the point, a function takes its place."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import torch
import yaml
from conftest import CONF, FP32
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from reslab import training
from reslab.errors import UserError, one_line
from reslab.resuming import with_resumed_settings
from reslab.sweeps.jobs import JobLauncher, SweepJobs, has_ended
from reslab.sweeps.pruning import Pruning, pruning
from reslab.sweeps.search import PRUNERS, Search, check_space, distribution, open_study, read_space, running_trial

TRAIN = CONF.parent / "src" / "train.py"
LR = "optimizer.lr=tag(log,interval(0.01,1))"


# the space


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("a=interval(0,1)", FloatDistribution(0, 1)),
        ("a=tag(log,interval(0.01,1))", FloatDistribution(0.01, 1, log=True)),
        ("a=int(interval(1,9))", IntDistribution(1, 9)),
        ("a=range(1,9)", IntDistribution(1, 8)),  # as in Hydra's grid, without its end
        ("a=range(1,9,3)", IntDistribution(1, 7, step=3)),
        ("a=range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("a=shuffle(range(0,3))", IntDistribution(0, 2)),
        ("a=tag(log,range(1,9))", IntDistribution(1, 8, log=True)),
        ("a=range(0,1,0.25)", FloatDistribution(0, 0.75, step=0.25)),
        ("a=b,c", CategoricalDistribution(["b", "c"])),
        ("a=choice(1,true,[2,3],'x y')", CategoricalDistribution(["1", "True", "[2,3]", "x\\ y"])),
    ],
)
def test_hydras_grammar_is_the_space(written, expected):
    assert distribution(OverridesParser.create().parse_override(written)) == expected


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("a=interval(1,0)", "a=interval(1,0): `low <= high` must hold"),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): `low > 0` must hold for `log=True`"),
        ("a=range(3,3)", "a=range(3,3): this range is empty"),
        ("a=tag(lag,interval(1,2))", "a=tag(lag,interval(1,2)): tag(lag, ...) means nothing here, only tag(log, ...)"),
    ],
)
def test_what_is_no_space_is_told(written, message):
    with pytest.raises(UserError) as error:
        distribution(OverridesParser.create().parse_override(written))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("model=resnet20,resnet99", "model=resnet99 does not exist: did you mean resnet9 or resnet8 or resnet56?"),
        ("optimizer.lr=interval(0,0.1)", "optimizer.lr=0.0 must be a number above 0"),
        ("mixup=0.2,-1", "mixup=-1 must be a number of at least 0.001, or 0"),
        ("objective=val/accuracy,val/acuracy", "objective=val/acuracy must be one of val/accuracy, val/loss"),
        ("optimizer.lx=1,2", "there is no option optimizer.lx: did you mean optimizer.lr"),
        (
            "trainer.max_steps=-1 trainer.max_epochs=-1",
            "trainer.max_epochs=-1 and trainer.max_steps=-1 would never end",
        ),
    ],
)
def test_choices_that_no_trial_can_have_are_told_before_the_first(tmp_path, monkeypatch, space, message):
    monkeypatch.setattr(sys, "argv", ["train.py"])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        sweep = compose("config", [f"hydra.sweep.dir={tmp_path}", "hydra.mode=MULTIRUN"], return_hydra_config=True)
        jobs = object.__new__(SweepJobs)
        jobs.config_loader, jobs.config = loader, sweep
        assert read_space(["trainer=glob(ddp*)"], loader)[1] == {"trainer": CategoricalDistribution(["ddp", "ddp_cpu"])}
        fixed, choices = read_space(["model.block=basic,bottleneck", "model.groups=1,32", "test=false"], loader)
        check_space(jobs, fixed, choices)  # of which one trial in four fails
        with pytest.raises((UserError, HydraException)) as error:
            check_space(jobs, *read_space([*space.split(), "seed=1,2"], loader))
        assert one_line(error.value, "config").startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_of_two_values_the_later_counts():
    fixed, space = read_space(["a=1,2", "b=1,2", "c=1", "a=3", "c=interval(0,1)", "+d=4", "~e"], None)
    assert fixed == ["a=3", "+d=4", "~e"]
    assert space == {"b": CategoricalDistribution(["1", "2"]), "c": FloatDistribution(0, 1)}
    with pytest.raises(UserError, match="a search needs something to search over"):
        read_space(["a=1"], None)


# the trials


class FakeJobs:
    """In place of SweepJobs: a job's result is a function of its overrides; `stop` ends the search before that job."""

    def __init__(self, result, stop=None):
        self.function, self.stop, self.launched, self.results = result, stop, [], {}

    def run(self, jobs):
        for number, overrides in jobs.items():
            if number == self.stop:
                raise KeyboardInterrupt
            self.launched.append(number)
            values = dict(override.split("=") for override in overrides)
            self.results[number] = {"status": "finished", "folder": f"job{number}"} | self.function(values)
        return {number: self.results[number] for number in jobs}


def accuracy(values):
    """Best at x=0.3 with kind b."""
    return {"val/accuracy": 1 - (float(values["x"]) - 0.3) ** 2 - 0.1 * (values["kind"] == "a"), "parameters": 5}


SPACE = {"x": FloatDistribution(0, 1), "kind": CategoricalDistribution(["a", "b"])}
OPTIONS = {"trials": 16, "n_jobs": 1, "sampler": "tpe", "seed": 42, "pruner": "none"}


def search(folder, space=SPACE, objectives=("val/accuracy",), fixed=(), **options):
    folder.mkdir(exist_ok=True)
    return Search(folder, list(fixed), space, list(objectives), **OPTIONS | options)


def trials(folder):
    return [(trial.number, trial.state, trial.params, trial.values) for trial in open_study(folder).trials]


@pytest.mark.parametrize(("sampler", "number"), [("tpe", 13), ("random", 5), ("qmc", 5), ("grid", 5)])
def test_a_search_that_is_cut_off_again_and_again_asks_what_it_would_have_asked(tmp_path, sampler, number):
    grid = {"x": IntDistribution(0, 6), "kind": SPACE["kind"]}
    space, options = (grid if sampler == "grid" else SPACE), {"sampler": sampler, "trials": number}
    search(tmp_path / "whole", space, **options).run(FakeJobs(accuracy))
    launched = []
    for stop in (2, 2, number - 1, None):
        jobs = FakeJobs(accuracy, stop)
        one = search(tmp_path / "parts", space, **options)
        if stop is None:
            one.run(jobs)
        else:
            with pytest.raises(KeyboardInterrupt):
                one.run(jobs)
        launched += jobs.launched
    assert launched == list(range(number))
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")
    assert len({str(params) for _, _, params, _ in trials(tmp_path / "whole")}) == number


def test_a_trial_that_was_cut_off_between_two_parameters_keeps_one_and_gets_the_other(tmp_path):
    one = search(tmp_path, trials=1)
    x = one.study.ask()._suggest("x", SPACE["x"])
    one.run(FakeJobs(accuracy))
    ((number, state, params, values),) = trials(tmp_path)
    assert (number, state, params["x"]) == (0, TrialState.COMPLETE, x)
    assert values == [accuracy(params)["val/accuracy"]]


def test_the_seed_is_the_samplers(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        search(tmp_path / name, trials=2, seed=seed).run(FakeJobs(accuracy))
    assert trials(tmp_path / "a") == trials(tmp_path / "b")
    assert trials(tmp_path / "a") != trials(tmp_path / "c")


def test_tpe_finds_what_is_good_and_optunas_own_tools_read_the_search(tmp_path, capsys):
    search(tmp_path, trials=25).run(FakeJobs(accuracy))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/search.db")  # as Optuna's own tools do
    importance = optuna.importance.get_param_importances(study)
    assert sum(importance.values()) == pytest.approx(1)
    assert set(importance) == {"x", "kind"}
    best = study.best_trial
    assert best.params["x"] == pytest.approx(0.3, abs=0.05)
    assert best.params["kind"] == "b"
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "search: 25 trials, 25 finished, 0 pruned, 0 failed"
    assert lines[1].startswith(f"best:   job {best.number}, val/accuracy={best.value:.6g}: x={best.params['x']}")


def test_optunas_dashboard_reads_the_search(tmp_path):
    dashboard = pytest.importorskip("optuna_dashboard")
    search(tmp_path, trials=2).run(FakeJobs(accuracy))
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
    asked = [(params, values) for _, _, params, values in trials(tmp_path)]
    assert shown == [({name: str(value) for name, value in params.items()}, values) for params, values in asked]


def test_a_grid_is_searched_once(tmp_path):
    space = {"x": FloatDistribution(0, 0.2, step=0.1), "k": IntDistribution(1, 3, step=2), "kind": SPACE["kind"]}
    search(tmp_path, space, sampler="grid", trials=100).run(jobs := FakeJobs(accuracy))
    assert jobs.launched == list(range(3 * 2 * 2))
    asked = {(round(p["x"], 6), p["kind"], p["k"]) for _, _, p, _ in trials(tmp_path)}
    assert asked == {(x, kind, k) for x in (0, 0.1, 0.2) for kind in "ab" for k in (1, 3)}


def test_the_number_of_trials_counts_in_all_and_batches_are_of_n_jobs(tmp_path):
    batches = []

    class Batches(FakeJobs):
        def run(self, jobs):
            batches.append(list(jobs))
            return super().run(jobs)

    search(tmp_path, trials=5, n_jobs=2).run(Batches(accuracy))
    search(tmp_path, trials=5, n_jobs=2).run(Batches(accuracy))
    search(tmp_path, trials=8, n_jobs=2).run(Batches(accuracy))
    assert batches == [[0, 1], [2, 3], [4], [5, 6], [7]]


def test_several_objectives_have_the_directions_of_their_names(tmp_path, capsys):
    def result(values):
        x = float(values["x"])
        return {"val/accuracy": x, "parameters": 100 * x if x < 0.5 else 1000}

    objectives = ["val/accuracy", "parameters", "test/loss"]
    search(tmp_path, objectives=objectives).run(FakeJobs(lambda values: result(values) | {"test/loss": 1.0}))
    study = open_study(tmp_path)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    xs = [trial.params["x"] for trial in study.trials]
    best = {trial.params["x"] for trial in study.best_trials}
    assert best == {x for x in xs if x < 0.5} | {max(xs)}
    assert capsys.readouterr().out.count("best:   job") == len(best)


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path, capsys):
    states = iter(["finished", "failed", "pruned", "unfinished"])
    search(tmp_path, trials=4).run(FakeJobs(lambda values: accuracy(values) | {"status": next(states)}))
    wanted = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    assert [state for _, state, _, _ in trials(tmp_path)] == wanted
    assert capsys.readouterr().out.startswith("search: 4 trials, 1 finished, 1 pruned, 2 failed\n")


def test_a_trial_whose_objective_is_no_number_is_told_and_counts_as_failed(tmp_path, capsys):
    losses = iter([float("nan"), 0.5])
    one = search(tmp_path, trials=2, objectives=["val/loss", "parameters"])
    one.run(FakeJobs(lambda values: accuracy(values) | {"val/loss": next(losses)}))
    assert [(state, values) for _, state, _, values in trials(tmp_path)] == [
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, [0.5, 5]),
    ]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [
        "job 0 counts as failed: its val/loss is no number",
        "search: 2 trials, 1 finished, 0 pruned, 1 failed",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "hydra.sweeper.trials=0 must be a whole number of at least 1, below 2**31"),
        ({"sampler": "tpa"}, "hydra.sweeper.sampler=tpa must be one of tpe, random, grid, qmc"),
        ({"sampler": "grid"}, "hydra.sweeper.sampler=grid needs a list or a range for x, not an interval"),
        ({"pruner": "median", "objectives": ["parameters"]}, "hydra.sweeper.pruner=median needs one objective of val/"),
        ({"pruner": "halving", "objectives": ["val/loss", "parameters"]}, "hydra.sweeper.pruner=halving needs one"),
    ],
)
def test_what_cannot_be_searched_is_told(tmp_path, options, message):
    with pytest.raises(UserError) as error:
        search(tmp_path, **options)
    assert str(error.value).startswith(message)


def test_another_search_does_not_go_on_in_the_folder(tmp_path):
    search(tmp_path, trials=1).run(FakeJobs(accuracy))
    for change in ({"space": {"x": FloatDistribution(0, 2)}}, {"fixed": ["seed=1"]}, {"objectives": ["val/loss"]}):
        with pytest.raises(UserError, match=f"{tmp_path} holds another search than this: start a new one instead"):
            search(tmp_path, **change)


def test_an_objective_that_no_result_has_is_told(tmp_path):
    with pytest.raises(UserError, match=r"objective=test/accuracy is not in job0/result\.json"):
        search(tmp_path, objectives=["test/accuracy"]).run(FakeJobs(accuracy))
    assert [state for _, state, _, _ in trials(tmp_path)] == [TrialState.FAIL]


@pytest.mark.parametrize("name", ["e?1", "a%20b", "{b}", "it's", "a\\b", "# é"])
def test_a_search_lies_in_its_folder_whatever_that_is_called(tmp_path, name):
    search(tmp_path / name, trials=1).run(FakeJobs(accuracy))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(trials(tmp_path / name)) == 1


def test_a_search_that_was_cut_off_while_it_asked_asks_the_rest_of_the_batch(tmp_path, monkeypatch):
    options = {"trials": 16, "n_jobs": 2}
    search(tmp_path / "whole", **options).run(FakeJobs(accuracy))
    cut = search(tmp_path / "parts", **options)
    ask = Search.seeded

    def killed(self, number, *arguments):
        if number == 13:
            raise KeyboardInterrupt
        return ask(self, number, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Search, "seeded", killed)
        with pytest.raises(KeyboardInterrupt):
            cut.run(FakeJobs(accuracy))
    search(tmp_path / "parts", **options).run(FakeJobs(accuracy))
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")


# pruning


def begun(folder, pruner="median", finished=5, storage=None):
    """A search whose finished trials were 0.9 right after each of three epochs, and its running trial's folder."""
    one = search(folder, pruner=pruner, storage=storage)
    (folder / "multirun.yaml").write_text(f"hydra: {{sweeper: {{pruner: {pruner}, storage: {storage or 'null'}}}}}")
    one.study.pruner = PRUNERS[pruner]() if pruner != "none" else optuna.pruners.NopPruner()
    for number in range(finished):
        trial = one.seeded(number)
        for epoch in (1, 2, 3):
            trial.report(0.9, epoch)
            trial.should_prune()  # halving notes what it was asked
        one.study.tell(trial, 0.9)
    one.seeded(finished)
    return folder / f"{finished}_seed=1"


def tiny(folder, **overrides):
    overrides = {"model": "resnet8", "trainer": "cpu", "logger": "none", "trainer.max_epochs": 3} | overrides
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(
            "config", [f"folder='{folder}'", FP32, *(f"{name}={value}" for name, value in overrides.items())]
        )


def test_a_trial_that_falls_behind_is_pruned_and_its_result_says_so(tmp_path):
    folder = begun(tmp_path)
    result = training.train(tiny(folder))
    assert (result["status"], result["epochs"], result["steps"]) == ("pruned", 1, 20)
    assert "test/accuracy" not in result
    assert json.loads((folder / "result.json").read_text())["status"] == "pruned"
    assert open_study(tmp_path).trials[5].intermediate_values == {1: pytest.approx(result["val/accuracy"])}


def test_a_trial_that_keeps_up_is_the_same_run_as_without_a_search(tmp_path):
    alone = training.train(tiny(tmp_path / "alone", **{"trainer.max_epochs": 2}))
    folder = begun(tmp_path / "search", finished=0)
    kept = training.train(tiny(folder, **{"trainer.max_epochs": 2}))
    assert kept["status"] == "finished"
    assert {n: v for n, v in kept.items() if n.startswith(("val/", "test/"))} == {
        n: v for n, v in alone.items() if n.startswith(("val/", "test/"))
    }
    reported = open_study(tmp_path / "search").trials[0].intermediate_values
    assert list(reported) == [1, 2]
    assert kept["val/accuracy"] == pytest.approx(max(reported.values()))


@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_an_epoch_that_comes_again_is_reported_once_and_has_its_answer(tmp_path, pruner):
    folder = begun(tmp_path, pruner)
    for epoch, accuracy, behind in ((0, 0.5, True), (0, 0.9, True), (1, 0.6, True), (0, 0.5, False), (1, 0.9, True)):
        callback, trainer = Pruning(folder), SimpleNamespace(is_global_zero=True)
        callback.setup(trainer, None, "fit")  # in a new process
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/accuracy": torch.tensor(accuracy)}
        if (pruner, epoch, behind) == ("halving", 1, True):
            behind = False  # its next decision is after four epochs
        assert callback.falls_behind(callback.trial, trainer) == behind
    assert open_study(tmp_path).trials[5].intermediate_values == {1: 0.5, 2: pytest.approx(0.6)}


def test_a_trial_that_was_killed_between_its_report_and_the_answer_is_asked_again(tmp_path):
    callback, trainer = Pruning(begun(tmp_path)), SimpleNamespace(is_global_zero=True)
    callback.setup(trainer, None, "fit")
    callback.trial.report(0.5, 1)
    trainer.current_epoch, trainer.callback_metrics = 0, {"val/accuracy": torch.tensor(0.9)}
    assert callback.falls_behind(callback.trial, trainer)
    assert open_study(tmp_path).trials[5].intermediate_values == {1: 0.5}


def test_a_pruned_trial_that_was_killed_before_its_result_is_pruned_there(tmp_path):
    folder = begun(tmp_path)
    first = training.train(tiny(folder))
    (folder / "result.json").unlink()
    again = training.train(tiny(folder, resume=f"'{folder}'"))
    own = ("status", "epochs", "steps", "val/accuracy", "val/loss")
    assert [again[name] for name in own] == [first[name] for name in own]
    assert (again["status"], again["epochs"]) == ("pruned", 1)


def test_only_the_job_of_a_running_trial_is_pruned(tmp_path):
    folder = begun(tmp_path / "a", finished=1)
    assert [type(callback) for callback in pruning(folder)] == [Pruning]
    trial, objective = running_trial(folder)
    assert (trial.number, objective) == (1, "val/accuracy")
    assert running_trial(tmp_path / "a" / "0_seed=1")[0] is None  # has finished
    assert running_trial(tmp_path / "a" / "2_seed=1")[0] is None  # not asked for
    assert pruning(tmp_path / "a" / "other") == []
    assert pruning(tmp_path / "none" / "0_seed=1") == []
    assert pruning(begun(tmp_path / "b", pruner="none")) == []


@pytest.mark.slow
def test_a_trial_on_two_devices_stops_in_both_at_the_same_epoch(tmp_path):
    begun(tmp_path / "sweep")
    options = [*TINY, "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=3", "seed=1"]
    status, text = output(*options, f"hydra.run.dir='{tmp_path}/sweep/5_seed=1'", cwd=tmp_path)
    assert status == 0, text
    result = results(tmp_path / "sweep")["5"]
    assert (result["status"], result["epochs"]) == ("pruned", 1)
    assert open_study(tmp_path / "sweep").trials[5].intermediate_values == {1: pytest.approx(result["val/accuracy"])}


def test_searches_share_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    first, second = (search(tmp_path / name, storage=url, trials=3) for name in "ab")
    jobs = FakeJobs(accuracy)
    first.run(jobs)
    assert [len(each.study.trials) for each in (first, second)] == [3, 0]
    again = search(tmp_path / "a", storage=url, trials=5)
    again.run(jobs)
    assert jobs.launched == [0, 1, 2, 3, 4]
    assert {each.study_name for each in optuna.get_all_study_summaries(url)} == {str(tmp_path / name) for name in "ab"}
    assert not (tmp_path / "a" / "search.db").exists()


def test_a_trial_of_a_shared_database_is_pruned(tmp_path):
    folder = begun(tmp_path / "search", storage=f"sqlite:///{tmp_path / 'all.db'}")
    (callback,) = pruning(folder)
    callback.setup(SimpleNamespace(is_global_zero=True), None, "fit")
    assert callback.trial.number == 5
    assert callback.trial.study.study_name == str(tmp_path / "search")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("sqlite:////none/all.db", "(sqlite3.OperationalError) unable to open database file"),
        ("all.db", "Could not parse SQLAlchemy URL from given URL string"),
        ("nosql://me:secret@host/all", "Can't load plugin: sqlalchemy.dialects:nosql"),
    ],
)
def test_a_database_that_cannot_be_opened_is_one_line(tmp_path, url, reason):
    with pytest.raises(UserError) as refused:
        search(tmp_path, storage=url)
    assert str(refused.value) == f"hydra.sweeper.storage cannot be opened: {reason}"


def test_a_search_without_its_database_is_made_again_from_its_results(tmp_path, capsys):
    search(tmp_path, trials=3).run(FakeJobs(accuracy))
    whole = trials(tmp_path)
    (tmp_path / "0_x").mkdir()
    (tmp_path / "0_x" / "result.json").touch()
    (tmp_path / "search.db").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"search\.db cannot be opened; without it the jobs' results are read again: "):
        search(tmp_path, trials=3)
    (tmp_path / "search.db").unlink()
    capsys.readouterr()
    search(tmp_path, trials=3).run(FakeJobs(accuracy))
    assert trials(tmp_path) == whole
    assert capsys.readouterr().out.startswith(f"{tmp_path}/search.db is not there: made again from the jobs' results")


# a sweep goes on


def sweep_folder(folder, task, hydra=()):
    folder.mkdir(parents=True)
    overrides = {"hydra": {"overrides": {"task": list(task), "hydra": list(hydra)}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(overrides))
    return folder


def test_resume_stands_for_a_sweeps_own_arguments(tmp_path):
    folder = sweep_folder(
        tmp_path / "a",
        ["seed=1,2"],
        ["hydra/sweeper=optuna", "hydra.sweeper.trials=5", "hydra.sweep.dir=x", "hydra.mode=MULTIRUN"],
    )
    place = [f"hydra.sweep.dir='{folder}'"]
    own = ["hydra/sweeper=optuna", "hydra.sweeper.trials=5", *place, "hydra.mode=MULTIRUN", "seed=1,2"]
    assert with_resumed_settings([f"resume={folder}"]) == own
    assert with_resumed_settings(["-m", "seed=1,2", "hydra/sweeper=optuna", f"resume={folder}"]) == own
    more = with_resumed_settings([f"resume={folder}", "hydra.sweeper.trials=9", "hydra/launcher=parallel"])
    assert more == [own[0], "hydra.sweeper.trials=9", *own[2:], "hydra/launcher=parallel"]


def test_another_sweep_does_not_go_on_in_the_folder(tmp_path):
    folder = sweep_folder(tmp_path / "a", ["seed=1,2"])
    for given, begun_with in (
        ("seed=1,2,3", "seed=1,2"),
        ("mixup=0.1", "no mixup"),
        ("hydra.sweeper.seed=1", "no hydra"),
    ):
        with pytest.raises(UserError, match=rf"^resume={folder} is a sweep with {begun_with}.*, not {given}: start"):
            with_resumed_settings([f"resume={folder}", given])
    with pytest.raises(UserError, match=f"{folder} holds a sweep: resume={folder} goes on with it"):
        with_resumed_settings(["-m", "seed=1,2", f"hydra.sweep.dir={folder}"])


@pytest.mark.parametrize(
    ("status", "saved", "ended"),
    [
        ("finished", {"seed": 1, "resume": None}, True),
        ("pruned", {"seed": 1, "resume": "x"}, True),
        ("failed", {"seed": 1, "resume": None}, False),
        ("interrupted", {"seed": 1, "resume": None}, False),
        (None, {"seed": 1, "resume": None}, False),
        ("finished", {"seed": 1, "resume": None, "test": False}, False),  # which may differ: it goes on
    ],
)
def test_a_job_has_ended_by_its_result_and_an_equal_configuration(tmp_path, status, saved, ended):
    config = OmegaConf.create({"seed": 1, "resume": None})
    assert not has_ended(tmp_path, config)
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(saved), tmp_path / ".hydra" / "config.yaml")
    if status:
        (tmp_path / "result.json").write_text(json.dumps({"status": status}))
    assert has_ended(tmp_path, config) == ended
    config.seed = 2
    with pytest.raises(UserError, match=f"{tmp_path} was another job: seed was 1 and is 2; start a new sweep instead"):
        has_ended(tmp_path, config)


class Composer:
    """In place of Hydra's: the overrides are the configuration."""

    def load_sweep_config(self, config, overrides):
        hydra = {"job": {}, "sweep": {"dir": config.hydra.sweep.dir, "subdir": config.subdir}}
        return OmegaConf.create({**dict(override.split("=", 1) for override in overrides), "hydra": hydra})


def sweep_jobs(folder, launcher):
    jobs = object.__new__(SweepJobs)
    jobs.launcher, jobs.config_loader, jobs.folder = launcher, Composer(), folder
    jobs.check = lambda left: None  # the values, of which these have few
    jobs.config = SimpleNamespace(
        subdir="${hydra.job.num}_job", hydra=SimpleNamespace(sweep=SimpleNamespace(dir=str(folder)))
    )
    return jobs


def test_only_the_jobs_that_have_not_ended_are_launched_and_those_that_began_are_resumed(tmp_path):
    launched = []
    launcher = SimpleNamespace(launch=lambda jobs, initial_job_idx: launched.append((initial_job_idx, jobs)))
    jobs = sweep_jobs(tmp_path, launcher)
    for number, status in enumerate(["finished", "failed", None, "finished", None, "pruned"]):
        folder = tmp_path / f"{number}_job" / ".hydra"
        if number != 4:  # which has not begun
            folder.mkdir(parents=True)
            (folder / "config.yaml").write_text(f"seed: '{number}'\nresume: null\n")
            (folder / "overrides.yaml").touch()
        if status:
            (folder.parent / "result.json").write_text(json.dumps({"status": status}))
    results = jobs.run({number: [f"seed={number}"] for number in range(7)})
    resumed = [[f"seed={number}", f"resume='{tmp_path}/{number}_job'"] for number in (1, 2)]
    assert launched == [(1, resumed), (4, [["seed=4"]]), (6, [["seed=6"]])]
    statuses = ["finished", "failed", "unfinished", "finished", "unfinished", "pruned", "unfinished"]
    assert [results[number]["status"] for number in range(7)] == statuses


class AtOnce(JobLauncher):
    def __init__(self):
        self.launched = []

    def launch_jobs(self, jobs):
        self.launched.append([job.number for job in jobs])
        return []


def test_a_launcher_of_ours_is_given_all_that_is_left_at_once(tmp_path):
    jobs = sweep_jobs(tmp_path, AtOnce())
    folder = tmp_path / "1_job" / ".hydra"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: '1'\nresume: null\n")
    (folder.parent / "result.json").write_text('{"status": "finished"}')
    jobs.run({number: [f"seed={number}"] for number in range(3)})
    assert jobs.launcher.launched == [[0, 2]]


@pytest.mark.parametrize("torn", ["", "seed: [1", None])
def test_a_job_whose_settings_were_cut_off_while_they_were_written_goes_on(tmp_path, torn):
    jobs = sweep_jobs(tmp_path, AtOnce())
    folder = tmp_path / "0_job" / ".hydra"
    folder.mkdir(parents=True)
    if torn is not None:
        (folder / "config.yaml").write_text(torn)
    jobs.run({0: ["seed=0"]})
    assert jobs.launcher.launched == [[0]]


def test_folders_without_the_jobs_number_are_refused(tmp_path):
    jobs = sweep_jobs(tmp_path, AtOnce())
    for name in ("run_${hydra.job.num}", "${hydra.job.num}/run", "${seed}_x"):
        jobs.config.subdir = name
        with pytest.raises(UserError, match=r"^hydra\.sweep\.subdir=.* must be \$\{hydra\.job\.num\}, or begin with"):
            jobs.run({0: ["seed=5"]})
    jobs.config.subdir = "${hydra.job.num}"
    assert jobs.run({0: ["seed=5"]}) == {0: {"status": "unfinished"}}


# the real command

TINY = ("model=resnet8", "trainer=cpu", "logger=none", "test=false", FP32, "trainer.max_epochs=2")


def command(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.Popen(
        [sys.executable, TRAIN, *arguments], cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip


def output(*arguments, cwd):
    process = command(*arguments, cwd=cwd)
    text, _ = process.communicate(timeout=300)
    return process.returncode, text


def results(folder):
    return {file.parent.name.split("_")[0]: json.loads(file.read_text()) for file in Path(folder).glob("*/result.json")}


@pytest.mark.slow
def test_a_sweep_goes_on_with_the_jobs_that_have_not_finished(tmp_path):
    arguments = ("-m", "seed=1,2,3", *TINY)
    process = command(*arguments, "hydra.sweep.dir=sweep", cwd=tmp_path)
    epochs = 0
    for line in process.stdout:
        epochs += line.startswith("epoch ")
        if epochs == 4:  # job 1 is told to be at its end, with its first epoch saved
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    (first,) = tmp_path.glob("sweep/0_*")
    (second,) = tmp_path.glob("sweep/1_*")
    untouched = (first / "result.json").stat().st_mtime_ns
    assert not (second / "result.json").exists()
    status, text = output(*arguments, "resume=sweep", cwd=tmp_path)
    assert status == 0
    assert (first / "result.json").stat().st_mtime_ns == untouched
    assert f"resumed from sweep/{second.name}/checkpoints/last.ckpt, step 20" in text
    assert text.count("\nepoch ") == 3  # one of job 1, two of job 2
    assert {number: result["seed"] for number, result in results(tmp_path / "sweep").items()} == {
        "0": 1,
        "1": 2,
        "2": 3,
    }
    assert len(list(tmp_path.glob("sweep/*_*"))) == 3
    assert "resume" not in (second / ".hydra" / "overrides.yaml").read_text()


@pytest.mark.slow
def test_a_search_that_is_killed_ends_as_if_it_had_not_been(tmp_path):
    arguments = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=6", LR, "model=resnet8,resnet14", *TINY[1:])
    assert output(*arguments, "hydra.sweep.dir=whole", cwd=tmp_path)[0] == 0
    place = "hydra.sweep.dir=parts"
    for epochs_before_the_kill in (2, 3, 4):
        process = command(*arguments, place, cwd=tmp_path)
        epochs = 0
        for line in process.stdout:
            epochs += line.startswith("epoch ")
            if epochs == epochs_before_the_kill:
                process.send_signal(signal.SIGKILL)
                break
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        place = "resume=parts"
    status, text = output(*arguments, place, cwd=tmp_path)
    assert status == 0
    assert "search: 6 trials, 6 finished, 0 pruned, 0 failed" in text
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")


@pytest.mark.slow
def test_a_pruned_search_of_two_jobs_at_a_time_ends_with_all_trials_after_a_kill(tmp_path):
    two = ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2")  # which the sweeper's n_jobs follows
    arguments = ("-m", "hydra/sweeper=optuna", "hydra.sweeper.trials=8", "hydra.sweeper.pruner=median", *two)
    process = command(*arguments, LR.replace("0.01", "0.0001"), *TINY, "hydra.sweep.dir=sweep", cwd=tmp_path)
    for line in process.stdout:
        if "#3 began" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    status, text = output("resume=sweep", cwd=tmp_path)
    assert status == 0, text
    ended = [(number, state) for number, state, _, _ in trials(tmp_path / "sweep")]
    words = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}
    assert {str(number): words[state] for number, state in ended} == {
        number: result["status"] for number, result in results(tmp_path / "sweep").items()
    }
    assert [number for number, _ in ended] == list(range(8))
    assert TrialState.PRUNED in {state for _, state in ended}
