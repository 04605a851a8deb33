import os

import pytest
import torch

from reslab import machine
from reslab.training import threads
from reslab.training.threads import chosen_threads, fastest, fixed_threads, trial_seconds


@pytest.fixture
def threads_of_torch():
    """A function that sets the number of threads of torch until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "record", "number"),
    [
        ("threads=3", {}, 3),
        ("threads=null", {"origin": {"threads": 4}}, 4),
        ("threads=null", {"origin": {}}, 2),  # of an older version
        ("threads=null", None, 2),
    ],
)
def test_a_run_computes_with_its_own_threads_and_gives_the_others_back(
    composed, threads_of_torch, monkeypatch, asked, record, number
):
    threads_of_torch(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with fixed_threads(composed(asked), record):
        assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (number, str(number))
    assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (2, "1")
    monkeypatch.delenv("OMP_NUM_THREADS")
    with pytest.raises(RuntimeError), fixed_threads(composed(asked), record):
        raise RuntimeError
    assert "OMP_NUM_THREADS" not in os.environ


def test_more_threads_than_processors_are_kept_with_a_warning(composed, threads_of_torch, monkeypatch, caplog):
    monkeypatch.setattr(machine, "processors", lambda: 4)
    for number in (4, 5):
        with fixed_threads(composed(), {"origin": {"threads": number}}):
            assert torch.get_num_threads() == number
    assert [record.message for record in caplog.records] == [
        "threads=5 is more than the 4 processors here, so training is slower"
    ]


@pytest.mark.slow
def test_the_processes_of_a_run_divide_the_processors(composed, threads_of_torch, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(machine, "processors", lambda: 8)
    monkeypatch.setattr(threads, "trial_seconds", lambda most: {most: 1.0})
    threads_of_torch(5)
    options = [composed("trainer=ddp_cpu", f"trainer.devices={devices}").trainer for devices in (1, 2, 3, 9, "auto")]
    assert [chosen_threads(each) for each in options] == [5, 4, 2, 1, 5]
    monkeypatch.setenv("OMP_NUM_THREADS", "6,2")
    assert chosen_threads(options[1]) == 6


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 0.1}, 1),
        ({4: 1.0, 2: 1.0, 1: 1.0}, 4),
        ({4: 1.14, 2: 1.0, 1: 1.1}, 4),  # not worth other numbers than those of a quiet machine
        ({4: 1.16, 2: 1.0, 1: 1.1}, 2),
        ({4: 4.0, 2: 2.0, 1: 1.0}, 1),
        ({4: 1.0, 2: 1.2, 1: 0.8}, 1),
    ],
)
def test_fewer_threads_must_be_clearly_faster(seconds, number):
    assert fastest(seconds) == number


def test_a_trial_leaves_the_random_numbers_and_the_threads_as_they_are(threads_of_torch):
    threads_of_torch(3)
    state = torch.get_rng_state()
    assert [number for number, seconds in trial_seconds(3).items() if seconds > 0] == [3, 1]
    assert trial_seconds(1) == {1: 0.0}  # there is nothing to choose
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == 3


def test_only_a_number_that_nobody_has_asked_for_is_tried(composed, threads_of_torch, monkeypatch, caplog):
    monkeypatch.setattr(threads, "trial_seconds", lambda most: {most: 2.0, 1: 1.0})
    threads_of_torch(2)
    trainer = composed("trainer=cpu").trainer
    assert chosen_threads(trainer) == 2  # conftest.py sets OMP_NUM_THREADS
    monkeypatch.delenv("OMP_NUM_THREADS")
    with caplog.at_level("INFO"):
        assert chosen_threads(trainer) == 1
    assert caplog.messages == ["other programs are running: 1 of 2 threads compute; threads=2 asks for all"]
