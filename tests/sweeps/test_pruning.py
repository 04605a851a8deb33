import json
from types import SimpleNamespace

import optuna
import pytest
import torch
from conftest import CONF, FP32, run
from fake_searches import make_search
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from reslab.reports.settings import comparable_settings
from reslab.sweeps.options import PRUNING_OVERRIDE
from reslab.sweeps.pruning import Pruning, objective_of, running_trial
from reslab.sweeps.study import PRUNERS, open_study
from reslab.training import fit


def begin_search(folder, pruner="median", finished=5, storage=None):
    """Begin a search whose finished trials had 0.9 right after each of three epochs; return its running trial's folder.

    A trial falls behind them if it has less than 0.9 after an epoch.
    """
    search = make_search(folder, pruner=pruner, storage=storage)
    (folder / "multirun.yaml").write_text(f"hydra: {{sweeper: {{pruner: {pruner}, storage: {storage or 'null'}}}}}")
    search.study.pruner = PRUNERS[pruner]()
    for number in range(finished):
        trial = search.start_trial(number)
        for epoch in (1, 2, 3):
            trial.report(0.9, epoch)
            trial.should_prune()  # halving records in the trial that it was asked
        search.study.tell(trial, 0.9)
    search.start_trial(finished)
    return folder / f"{finished}_seed=1"


def job_config(folder, **overrides):
    """The configuration of a short run with the callback."""
    overrides = {"model": "resnet8", "trainer": "cpu", "logger": "none", "trainer.max_epochs": 3} | overrides
    options = [f"{name}={value}" for name, value in overrides.items()]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"folder='{folder}'", FP32, PRUNING_OVERRIDE, *options])


def started(folder):
    """The callback in the first process of a run, and a trainer for it."""
    callback, trainer = Pruning(str(folder)), SimpleNamespace(is_global_zero=True)
    callback.setup(trainer, None, "fit")
    return callback, trainer


@pytest.mark.slow
def test_a_trial_that_falls_behind_is_pruned_and_its_result_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    folder = begin_search(tmp_path)
    result = fit.train(job_config(folder))
    assert (result["status"], result["epochs"], result["steps"]) == ("pruned", 1, 20)
    assert "test/accuracy" not in result
    assert json.loads((folder / "result.json").read_text())["status"] == "pruned"
    assert open_study(tmp_path).trials[5].intermediate_values == {1: pytest.approx(result["val/accuracy"])}
    assert result["stopped"] == "it fell behind the other trials of its search"
    assert "stopped after epoch 1 of 3: it fell behind the other trials of its search" in caplog.messages


@pytest.mark.slow
def test_a_trial_that_falls_behind_in_its_last_epoch_is_finished(tmp_path):
    folder = begin_search(tmp_path)
    result = fit.train(job_config(folder, **{"trainer.max_epochs": 1}))
    assert result["val/accuracy"] < 0.9
    assert (result["status"], result["epochs"]) == ("finished", 1)
    assert "test/accuracy" in result
    assert "stopped" not in result


@pytest.mark.slow
def test_a_trial_that_keeps_up_is_the_same_run_as_without_a_search(tmp_path):
    alone = fit.train(job_config(tmp_path / "alone", **{"trainer.max_epochs": 2}))
    folder = begin_search(tmp_path / "search", finished=0)
    kept = fit.train(job_config(folder, **{"trainer.max_epochs": 2}))
    assert kept["status"] == "finished"
    assert {n: v for n, v in kept.items() if n.startswith(("val/", "test/"))} == {
        n: v for n, v in alone.items() if n.startswith(("val/", "test/"))
    }
    reported = open_study(tmp_path / "search").trials[0].intermediate_values
    assert list(reported) == [1, 2]
    assert kept["val/accuracy"] == pytest.approx(max(reported.values()))


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_an_epoch_that_is_trained_again_is_reported_once_and_has_the_same_answer(tmp_path, pruner):
    folder = begin_search(tmp_path, pruner)
    for epoch, accuracy, behind in ((0, 0.5, True), (0, 0.9, True), (1, 0.6, True), (0, 0.5, False), (1, 0.9, True)):
        callback, trainer = started(folder)
        trainer.current_epoch, trainer.callback_metrics = epoch, {"val/accuracy": torch.tensor(accuracy)}
        if (pruner, epoch, behind) == ("halving", 1, True):
            behind = False  # its next decision is after four epochs
        assert callback.falls_behind(callback.trial, trainer) == behind
    assert open_study(tmp_path).trials[5].intermediate_values == {1: 0.5, 2: pytest.approx(0.6)}


@pytest.mark.slow
def test_the_pruner_is_asked_again_if_the_run_was_killed_between_the_report_and_the_answer(tmp_path):
    callback, trainer = started(begin_search(tmp_path))
    callback.trial.report(0.5, 1)
    trainer.current_epoch, trainer.callback_metrics = 0, {"val/accuracy": torch.tensor(0.9)}
    assert callback.falls_behind(callback.trial, trainer)
    assert open_study(tmp_path).trials[5].intermediate_values == {1: 0.5}


@pytest.mark.slow
def test_a_pruned_trial_that_was_killed_before_its_result_is_pruned_when_it_is_resumed(tmp_path):
    folder = begin_search(tmp_path)
    first = fit.train(job_config(folder))
    (folder / "result.json").unlink()
    again = fit.train(job_config(folder, resume=f"'{folder}'"))
    compared = ("status", "epochs", "steps", "val/accuracy", "val/loss")
    assert [again[name] for name in compared] == [first[name] for name in compared]
    assert (again["status"], again["epochs"]) == ("pruned", 1)


def test_only_the_job_of_a_running_trial_is_pruned(tmp_path):
    folder = begin_search(tmp_path / "a", finished=1)
    trial = running_trial(folder)
    assert (trial.number, objective_of(trial)) == (1, "val/accuracy")
    assert isinstance(trial.study.pruner, optuna.pruners.MedianPruner)
    assert running_trial(tmp_path / "a" / "0_seed=1") is None  # it has finished
    assert running_trial(tmp_path / "a" / "2_seed=1") is None  # it has not begun
    assert running_trial(tmp_path / "a" / "renamed") is None
    assert running_trial(tmp_path / "moved" / "1_seed=1") is None


def test_a_trial_of_a_shared_database_is_pruned(tmp_path):
    folder = begin_search(tmp_path / "search", storage=f"sqlite:///{tmp_path / 'all.db'}")
    callback, _ = started(folder)
    assert callback.trial.number == 5
    assert callback.trial.study.study_name == str(tmp_path / "search")


def test_the_password_of_a_shared_database_is_not_in_a_jobs_configuration(tmp_path, monkeypatch, sweep_jobs):
    url = f"sqlite:///{tmp_path / 'secret.db'}"
    monkeypatch.setenv("SEARCHES", url)
    space = {"seed": optuna.distributions.IntDistribution(1, 9)}
    search = make_search(tmp_path / "search", space, pruner="median", storage=url)
    jobs = sweep_jobs(None, "hydra/sweeper=optuna", "hydra.sweeper.storage=${oc.env:SEARCHES}")
    jobs.sweep.folder.mkdir()
    jobs.write_record()
    assert jobs.sweep.storage == url
    job = jobs.compose(0, search.overrides(search.start_trial(0)))
    assert "secret" not in OmegaConf.to_yaml(job.config) + " ".join(job.overrides)
    assert "secret" not in jobs.sweep.record_file.read_text()


@pytest.mark.slow
def test_a_search_with_a_pruner_adds_the_callback_to_its_jobs_and_not_to_the_names_of_their_folders(
    tmp_path, sweep_jobs
):
    composed = {}
    for pruner in ("none", "median"):
        search = make_search(tmp_path / pruner, {"seed": optuna.distributions.IntDistribution(1, 9)}, pruner=pruner)
        composed[pruner] = sweep_jobs().compose(0, search.overrides(search.start_trial(0)))
    without, pruned = composed["none"], composed["median"]
    assert "pruning" not in without.config.callbacks
    assert OmegaConf.to_container(pruned.config.callbacks.pruning) == {
        "_target_": "reslab.sweeps.pruning.Pruning", "folder": "${folder}",
    }  # fmt: skip
    assert pruned.folder == without.folder
    assert pruned.folder.name.startswith("0_seed=")
    settings = [comparable_settings(OmegaConf.to_container(each.config)) for each in (without, pruned)]
    assert settings[0] == settings[1]


@pytest.mark.slow
def test_a_trial_on_two_devices_stops_in_both_at_the_same_epoch(tmp_path):
    folder = begin_search(tmp_path / "sweep")
    done = run(
        "train", "model=resnet8", "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=3", "logger=none",
        "test=false", "seed=1", FP32, PRUNING_OVERRIDE, f"hydra.run.dir='{folder}'", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "result.json").read_text())
    assert (result["status"], result["epochs"]) == ("pruned", 1)
    assert open_study(tmp_path / "sweep").trials[5].intermediate_values == {1: pytest.approx(result["val/accuracy"])}
