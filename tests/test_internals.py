"""Every private API of a library still exists and does what reslab/internals.py expects of it."""

import multiprocessing
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from torch.utils.data import DataLoader

from reslab import internals


@pytest.mark.parametrize("finished", [True, False])
def test_shut_down_workers(finished: bool) -> None:
    before = set(multiprocessing.active_children())
    loader = DataLoader(range(8), num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    first = list(iterator) if finished else [next(iterator)]  # the iterator stays referenced
    workers = set(multiprocessing.active_children()) - before
    assert (len(first), len(workers)) == (8 if finished else 1, 2)
    start = time.monotonic()
    internals.shut_down_workers(loader)
    assert time.monotonic() - start < 4  # torch waits five seconds for a worker that does not end
    assert not any(worker.is_alive() for worker in workers)
    assert [int(batch) for batch in loader] == list(range(8))  # with new workers
    assert len(set(multiprocessing.active_children()) - before) == 2
    internals.shut_down_workers(loader)
    internals.shut_down_workers(loader)  # there are none any more
    assert set(multiprocessing.active_children()) <= before


def test_shut_down_workers_of_a_loader_without_any() -> None:
    loader = DataLoader(range(3))
    next(iter(loader))
    internals.shut_down_workers(loader)
    assert len(list(loader)) == 3


def test_continued_trial(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/search.db"
    asked = optuna.create_study(storage=storage, study_name="search").ask()
    x = asked.suggest_float("x", 0, 1)
    study = optuna.load_study(storage=storage, study_name="search")  # in another process
    (running,) = study.get_trials(states=(TrialState.RUNNING,))
    trial = internals.continued_trial(study, running)
    assert (trial.number, trial.suggest_float("x", 0, 1)) == (asked.number, x)
    study.tell(trial, 0.5)
    assert [(each.state, each.value) for each in study.trials] == [(TrialState.COMPLETE, 0.5)]
