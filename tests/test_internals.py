"""Every private API of a library still exists and does what reslab/internals.py expects of it."""

import logging
import multiprocessing
import signal
import socket
import sys
import time
from pathlib import Path

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from optuna.trial import TrialState
from torch import distributed
from torch.utils.data import DataLoader, Dataset

from reslab import internals
from reslab.commands import resolvers  # noqa: F401  # conf/ uses them
from reslab.configuration import initialized_hydra


@pytest.mark.slow
@pytest.mark.parametrize("finished", [True, False])
def test_shut_down_workers(finished: bool) -> None:
    before = set(multiprocessing.active_children())
    loader = DataLoader(range(8), num_workers=2, persistent_workers=True)
    iterator = iter(loader)
    first = list(iterator) if finished else [next(iterator)]  # the iterator stays referenced
    workers = set(multiprocessing.active_children()) - before
    assert (len(first), len(workers)) == (8 if finished else 1, 2)
    internals.shut_down_workers(loader)
    assert not any(worker.is_alive() for worker in workers)
    assert [int(batch) for batch in loader] == list(range(8))  # with new workers
    assert len(set(multiprocessing.active_children()) - before) == 2
    internals.shut_down_workers(loader)
    internals.shut_down_workers(loader)  # there are none any more
    assert set(multiprocessing.active_children()) <= before


class Hangs(Dataset):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if index == 1:
            time.sleep(1000)
        return index


def test_a_worker_that_hangs_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # seconds
    before = set(multiprocessing.active_children())
    loader = DataLoader(Hangs(), num_workers=1, persistent_workers=True)
    assert next(iter(loader)) == 0
    (worker,) = set(multiprocessing.active_children()) - before
    internals.shut_down_workers(loader)
    worker.join(20)
    assert worker.exitcode == -signal.SIGKILL


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


def test_hydra_argument_parser() -> None:
    parsed = internals.hydra_argument_parser().parse_args(["--config-dir", "mine", "-m", "seed=1,2", "~test"])
    assert (parsed.config_dir, parsed.multirun, parsed.overrides) == ("mine", True, ["seed=1,2", "~test"])
    with pytest.raises(SystemExit):
        internals.hydra_argument_parser().parse_args(["--epochs=3"])


def test_hydra_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1", "--config-name", "mine", "--another"])
    assert internals.hydra_arguments().config_name == "mine"
    assert internals.hydra_arguments().config_path is None


def test_run_hydra_job(tmp_path: Path) -> None:
    folders: list[str] = []
    handlers = logging.root.handlers[:]
    overrides = ["seed=7", f"hydra.run.dir={tmp_path}/run"]
    with initialized_hydra():
        internals.run_hydra_job("config", lambda config: folders.append(config.folder), overrides)
    assert folders == [f"{tmp_path}/run"]
    assert list((tmp_path / "run").iterdir()) == []
    assert logging.root.handlers == handlers


@pytest.mark.parametrize(("override", "sweep"), [("experiment=degradation", True), ("experiment=six_block", False)])
def test_asks_for_sweep(override: str, sweep: bool) -> None:
    with initialized_hydra():
        assert internals.asks_for_sweep("config", [override]) is sweep


def test_overrides_dirname() -> None:
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser

    written = ["seed=1", "outputs=x", "model=resnet8", "hydra.verbose=true"]
    with initialized_hydra():
        config = compose("config", written, return_hydra_config=True)
    parsed = OverridesParser.create().parse_overrides(written)
    assert internals.overrides_dirname(config.hydra, parsed) == config.hydra.job.override_dirname
    assert config.hydra.job.override_dirname == "model=resnet8,seed=1"


def test_the_store_of_the_processes_of_one_machine_listens_on_loopback_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with pytest.MonkeyPatch.context() as patch, internals.store_on_loopback():
        for name, value in environment.items():
            patch.setenv(name, value)
        distributed.init_process_group("gloo", rank=0, world_size=1)
        try:
            listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]
            listening += [line.split()[1] for line in Path("/proc/net/tcp6").read_text().splitlines() if " 0A " in line]
            assert [address for address in listening if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]
        finally:
            distributed.destroy_process_group()


def test_the_store_does_not_wait_for_a_process_that_has_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def check() -> None:
        raise ProcessLookupError

    with pytest.MonkeyPatch.context() as patch, internals.store_on_loopback(check):
        for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
            patch.setenv(name, value)
        with pytest.raises(ProcessLookupError):
            distributed.init_process_group("gloo", rank=0, world_size=2)


def test_observed_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies.launchers import subprocess_script

    launcher = subprocess_script._SubprocessScriptLauncher(LightningEnvironment(), num_processes=1, num_nodes=1)
    monkeypatch.setattr(launcher, "_call_children_scripts", lambda: launcher.procs.append("a process"))
    observed: list[object] = []
    before = subprocess_script._launch_process_observer
    with internals.observed_processes(lambda processes: observed.extend(processes)):
        assert launcher.launch(lambda: "returned") == "returned"
    assert observed == ["a process"]
    assert subprocess_script._launch_process_observer is before


@pytest.mark.parametrize(
    "register",
    [
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ],
)
def test_hooks_are_found(register: str) -> None:
    from torch import nn

    network = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.ReLU()))
    assert not internals.has_hooks(network.modules())
    hook = getattr(network[1][0], register)(lambda *_: None)
    assert internals.has_hooks(network.modules())
    hook.remove()
    assert not internals.has_hooks(network.modules())


def test_the_error_of_a_job_is_read_without_a_line_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    error, finished = ValueError("a"), JobReturn(status=JobStatus.COMPLETED)
    failed = JobReturn(status=JobStatus.FAILED)
    failed.return_value, finished.return_value = error, 1
    assert (internals.error_of_job(failed), internals.error_of_job(finished)) == (error, None)
    assert capsys.readouterr() == ("", "")
