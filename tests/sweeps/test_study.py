import sqlite3

import optuna
import pytest
from fake_searches import FakeJobs, accuracy, make_search, trials
from optuna.distributions import FloatDistribution

from reslab.errors import RunError, UserError
from reslab.sweeps import study
from reslab.sweeps.folder import Sweep
from reslab.sweeps.study import open_running_trial, open_storage, open_study


@pytest.mark.parametrize("name", ["e?1", "a%20b", "{b}", "it's", "a\\b", "# é"])
def test_the_database_is_in_the_folder_whatever_its_name_is(tmp_path, name):
    make_search(tmp_path / name, trials=1).run(FakeJobs(accuracy))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(trials(tmp_path / name)) == 1


@pytest.mark.slow
def test_a_different_search_is_refused(tmp_path):
    make_search(tmp_path, trials=1).run(FakeJobs(accuracy))
    for change in ({"space": {"x": FloatDistribution(0, 2)}}, {"fixed": ["seed=1"]}, {"objectives": ["val/loss"]}):
        with pytest.raises(UserError, match=f"{tmp_path} holds a different search: start a new one instead"):
            make_search(tmp_path, **change)


def test_the_order_of_the_overrides_does_not_make_a_search_different(tmp_path):
    make_search(tmp_path, trials=1, fixed=["a=1", "b=2"]).run(FakeJobs(accuracy))
    make_search(tmp_path, trials=2, fixed=["b=2", "a=1"]).run(FakeJobs(accuracy))
    assert [number for number, _, _, _ in trials(tmp_path)] == [0, 1]


@pytest.mark.slow
def test_several_objectives_have_the_directions_of_their_names(tmp_path, capsys):
    def result(values):
        x = float(values["x"])
        return {"val/accuracy": x, "parameters": 100 * x if x < 0.5 else 1000}

    objectives = ["val/accuracy", "parameters", "test/loss"]
    make_search(tmp_path, objectives=objectives).run(FakeJobs(lambda values: result(values) | {"test/loss": 1.0}))
    study = open_study(tmp_path)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    xs = [trial.params["x"] for trial in study.trials]
    best = {trial.params["x"] for trial in study.best_trials}
    assert best == {x for x in xs if x < 0.5} | {max(xs)}
    assert capsys.readouterr().out.count("best:   job") == len(best)


def test_searches_share_a_database(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    first, second = (make_search(tmp_path / name, storage=url, trials=3) for name in "ab")
    jobs = FakeJobs(accuracy)
    first.run(jobs)
    assert [len(each.study.trials) for each in (first, second)] == [3, 0]
    again = make_search(tmp_path / "a", storage=url, trials=5)
    again.run(jobs)
    assert jobs.launched == [0, 1, 2, 3, 4]
    assert {each.study_name for each in optuna.get_all_study_summaries(url)} == {str(tmp_path / name) for name in "ab"}
    assert not (tmp_path / "a" / "search.db").exists()


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
        make_search(tmp_path, storage=url)
    assert str(refused.value) == f"hydra.sweeper.storage cannot be opened: {reason}"


@pytest.mark.slow
def test_a_database_that_is_missing_is_made_again_from_the_results(tmp_path, capsys):
    make_search(tmp_path, trials=3).run(FakeJobs(accuracy))
    before = trials(tmp_path)
    (tmp_path / "0_x" / ".hydra").mkdir(parents=True)
    (tmp_path / "0_x" / "result.json").touch()
    (tmp_path / "search.db").write_text("no database" * 100)
    line = r"search\.db cannot be opened; if it is removed, it is made again from the jobs' results: "
    with pytest.raises(UserError, match=line):
        make_search(tmp_path, trials=3)
    (tmp_path / "search.db").unlink()
    capsys.readouterr()
    make_search(tmp_path, trials=3).run(FakeJobs(accuracy))
    assert trials(tmp_path) == before
    line = f"{tmp_path}/search.db is missing: it is made again from the jobs' results, without the pruner's reports\n"
    assert capsys.readouterr().out.startswith(line)


@pytest.mark.slow
def test_optunas_tools_read_the_database(tmp_path):
    make_search(tmp_path, trials=25).run(FakeJobs(accuracy))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/search.db")
    importance = optuna.importance.get_param_importances(study)
    assert sum(importance.values()) == pytest.approx(1)
    assert set(importance) == {"x", "kind"}


# a database that another process uses

IN_USE = "the database of the search is in use: another process has held it for 0.05 s; end it, then resume="


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A function that lets another connection hold the database of a search; it returns the connection."""
    monkeypatch.setattr(study, "WAIT_SECONDS", 0.05)

    def hold():
        other = sqlite3.connect(tmp_path / "search.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        return other

    return hold


def test_a_connection_waits_a_minute_for_another_process(tmp_path):
    engine = open_storage(f"sqlite:///{tmp_path}/all.db").engine
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 60_000


@pytest.mark.slow
def test_a_database_that_is_in_use_is_not_said_to_be_broken(tmp_path, held):
    search = make_search(tmp_path, trials=3)
    search.start_trial(0)
    other = held()
    with pytest.raises(UserError, match=f"^{IN_USE}"):
        make_search(tmp_path, trials=3)
    (tmp_path / "multirun.yaml").write_text("hydra: {sweeper: {storage: null}}")
    with pytest.raises(RunError, match=f"^{IN_USE}"):
        open_running_trial(Sweep(tmp_path), 0)
    other.close()
    assert make_search(tmp_path, trials=3).study.trials[0].number == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 2])
def test_a_search_whose_database_is_held_has_all_its_trials_when_it_is_resumed(tmp_path, held, number):
    others = []

    def result(values):
        if len(others) == 0 and len(jobs.launched) == number + 1:
            others.append(held())
        return accuracy(values)

    jobs = FakeJobs(result)
    search = make_search(tmp_path, trials=4)
    with pytest.raises(RunError, match=f"^{IN_USE}"):
        search.run(jobs)
    others[0].close()
    make_search(tmp_path, trials=4).run(jobs)
    make_search(tmp_path / "free", trials=4).run(FakeJobs(accuracy))
    assert trials(tmp_path) == trials(tmp_path / "free")


def test_a_trial_that_could_not_reach_the_database_runs_when_the_search_is_resumed(tmp_path, capsys):
    refused = {"status": "failed", "error": f"{study.IN_USE}: another process has held it"}

    def result(values):
        return refused if jobs.launched.count(1) == 1 and jobs.launched[-1] == 1 else accuracy(values)

    jobs = FakeJobs(result)
    make_search(tmp_path, trials=3).run(jobs)
    assert jobs.launched == [0, 1, 2]
    line = "job 1 could not reach the database of the search: resume= runs it again"
    assert capsys.readouterr().out.splitlines().count(line) == 1
    make_search(tmp_path, trials=3).run(jobs)
    assert jobs.launched == [0, 1, 2, 1]
    assert {state.name for _, state, _, _ in trials(tmp_path)} == {"COMPLETE"}


def test_two_searches_can_begin_at_once_in_a_new_database(tmp_path, monkeypatch):
    """Another process makes the tables after this one has found that there are none."""
    metadata = optuna.storages._rdb.models.BaseModel.metadata
    make, calls = metadata.create_all, []

    def make_twice(engine):
        calls.append(engine)
        make(engine)
        if len(calls) == 1:
            make(engine, checkfirst=False)

    monkeypatch.setattr(metadata, "create_all", make_twice)
    monkeypatch.setattr(study, "POLL_SECONDS", 0)
    make_search(tmp_path, trials=1, storage=f"sqlite:///{tmp_path}/all.db").run(FakeJobs(accuracy))
    assert len(calls) == 2
