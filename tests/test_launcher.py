"""hydra/launcher=parallel, ray and slurm, with a script in place of train.py that notes how it was started."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import OmegaConf

from hydra_plugins import reslab_launcher
from hydra_plugins.reslab_launcher import ParallelLauncher, RayLauncher, gpus, share
from hydra_plugins.reslab_slurm import ASK_TO_END, SlurmJob
from reslab.errors import RunError, UserError
from reslab.interruption import Interrupted, signals
from reslab.reports.leaderboard import read_report
from reslab.resuming import with_resumed_settings, write_failure
from reslab.sweeps.summary import SweepStopped

SCRIPT = """
import json, os, pathlib, signal, sys
given = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = pathlib.Path(given.pop("hydra.run.dir").strip("'"))
environment = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HYDRA_FULL_ERROR")}
meeting = folder.parent / "meeting"
meeting.mkdir(exist_ok=True)
seed = int(given["seed"])
(meeting / given["seed"]).touch()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
while seed <= 2 and len(list(meeting.iterdir())) < 2:  # the first two are there at once
    pass
result = {"status": "finished", "given": given, "environment": environment, "val/accuracy": seed / 10}
if seed == 4:
    result |= {"status": "failed", "error": "the loss became nan"}
if seed == 5:
    os.kill(os.getpid(), signal.SIGKILL)
if seed == 7:
    print("error: the folder is in use")
    sys.exit(2)
if seed == 8 and not (folder / "began").exists():
    (folder / "began").touch()
    os.kill(os.getppid(), signal.SIGKILL)
    signal.sigtimedwait([signal.SIGTERM], 10) and (folder / "saved").touch()
    sys.exit(143)
(folder / "result.json").write_text(json.dumps(result))
if seed == 6:
    signal.sigwait([signal.SIGTERM])
    (folder / "result.json").write_text('{"status": "interrupted"}')
if seed == 9:
    os.kill(os.getpid(), signal.SIGSEGV)
sys.exit(1 if seed == 4 else 0)
"""


@pytest.fixture
def launch(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(reslab_launcher, "processors", lambda: 8)
    overrides = [f"hydra.sweep.dir={tmp_path}/sweep", "hydra.mode=MULTIRUN", "hydra/launcher=parallel"]

    def launch(*seeds, stop_on_failure=False, launcher=None):
        asked = [*overrides, f"sweep.stop_on_failure={stop_on_failure}"]
        launcher = launcher or ParallelLauncher(n_jobs=2)
        context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None)
        config = compose("config", asked, return_hydra_config=True)
        launcher.setup(hydra_context=context, task_function=None, config=config)
        return launcher.launch([["model=resnet8", f"seed={seed}"] for seed in seeds], 0)

    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield launch


def results(folder):
    files = sorted(folder.glob("sweep/*/result.json"), key=lambda path: int(path.parent.name.split("_")[0]))
    return [json.loads(file.read_text()) for file in files]


def test_jobs_run_two_at_a_time_each_with_its_share(launch, tmp_path):
    returned = launch(1, 2, 3)
    assert [job.return_value for job in returned] == [[0.1], [0.2], [0.3]]
    assert [path.name for path in sorted((tmp_path / "sweep").glob("*_*"))] == [
        f"{number}_model=resnet8_seed={number + 1}" for number in range(3)
    ]
    noted = results(tmp_path)
    assert [result["given"] for result in noted] == [{"model": "resnet8", "seed": str(seed)} for seed in (1, 2, 3)]
    assert {result["environment"]["OMP_NUM_THREADS"] for result in noted} == {"4"}
    assert [result["environment"]["CUDA_VISIBLE_DEVICES"] for result in noted[:2]] == ["3", "5"]
    assert {result["environment"]["HYDRA_FULL_ERROR"] for result in noted} == {None}


def test_a_job_that_fails_or_is_killed_takes_no_other_with_it(launch, tmp_path):
    returned = launch(4, 5, 3, 7)
    assert [job.status.name for job in returned] == ["FAILED", "FAILED", "COMPLETED", "FAILED"]
    with pytest.raises(RunError, match=r"^the loss became nan$"):
        _ = returned[0].return_value
    with pytest.raises(RunError, match=r"^exit status -9, see .*5/output.txt$"):
        _ = returned[1].return_value
    with pytest.raises(RunError, match=r"^the folder is in use$"):
        _ = returned[3].return_value


def test_a_job_that_was_killed_before_it_began_is_in_the_report_and_can_be_resumed(launch, tmp_path):
    launch(5)
    (failure,) = read_report([tmp_path / "sweep"]).failures
    output = failure.folder / "output.txt"
    assert failure.failure == f"failed: exit status -9, see {output}"
    assert failure.settings["model"] == "resnet8"
    resumed = with_resumed_settings([f"resume={failure.folder}"])
    assert resumed[:2] == ["model=resnet8", "seed=5"]


def test_what_befalls_a_job_after_its_result_takes_nothing_from_that(launch, tmp_path):
    (job,) = launch(9)
    assert (job.status.name, job.return_value) == ("COMPLETED", [0.9])
    assert [result["status"] for result in results(tmp_path)] == ["finished"]


def test_an_earlier_failure_is_not_told_again(launch, tmp_path):
    folder = tmp_path / "sweep" / "0_model=resnet8_seed=7"
    write_failure(folder, "an earlier one")
    launch(7)
    assert [result["error"] for result in results(tmp_path)] == ["the folder is in use"]


def test_a_job_is_given_the_users_own_configuration(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--config-dir", "mine", "-m", "seed=3"])
    job = reslab_launcher.CommandJob(0, ["seed=3", "hydra/launcher=parallel"], Path("it's"), OmegaConf.create())
    assert job.command == [sys.executable, sys.argv[0], "--config-dir=mine", "seed=3", "hydra.run.dir='it\\'s'"]


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True])
def test_a_number_of_jobs_that_is_none_is_one_line(n_jobs):
    with pytest.raises(UserError, match=r"^hydra\.launcher\.n_jobs=\S+ must be a whole number of at least 1"):
        ParallelLauncher(n_jobs)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux has it")
def test_the_threads_are_of_the_processors_that_the_sweep_may_use():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert reslab_launcher.processors() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("devices", "places", "shares"),
    [("0123", 2, ["02", "13"]), ("012", 2, ["02", "1"]), ("35", 2, ["3", "5"]), ("35", 3, ["3", "5", "3"])],
)
def test_jobs_share_the_gpus(devices, places, shares):
    assert [share(list(devices), place, places) for place in range(places)] == [list(each) for each in shares]


@pytest.mark.parametrize(("visible", "seen"), [("3,5", ["3", "5"]), ("GPU-1f,GPU-2e", ["GPU-1f", "GPU-2e"]), ("", [])])
def test_only_the_gpus_that_the_sweep_sees_are_shared(visible, seen, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen


def test_a_failure_ends_the_sweep_if_it_is_asked_to(launch, tmp_path):
    with pytest.raises(SweepStopped):
        launch(6, 4, 3, stop_on_failure=True)
    assert json.loads((tmp_path / "sweep/0_model=resnet8_seed=6/result.json").read_text())["status"] == "interrupted"
    assert not Path(tmp_path, "sweep", "2_model=resnet8_seed=3").exists()


def test_a_signal_lets_the_running_jobs_save_and_starts_no_other(launch, tmp_path, monkeypatch):
    monkeypatch.setattr(signals, "caught", None)  # put back at the end
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signals.listen()
    tell = f"while [ ! -f {tmp_path}/sweep/0_model=resnet8_seed=6/result.json ]; do :; done; kill -INT {os.getpid()}"
    telling = subprocess.Popen(["bash", "-c", tell])
    try:
        with pytest.raises(Interrupted):
            launch(6, 6, 3)
    finally:
        telling.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
    assert json.loads((tmp_path / "sweep/0_model=resnet8_seed=6/result.json").read_text())["status"] == "interrupted"
    assert not Path(tmp_path, "sweep", "2_model=resnet8_seed=3").exists()


@pytest.fixture
def slurm_job(tmp_path, monkeypatch):
    """Of a command that signals as SLURM does, and ends when that is passed on; SLURM has started it again once."""
    before = {number: signal.signal(number, lambda number, frame: None) for number in ASK_TO_END}
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    command = "trap 'exit 140' USR2; for i in {1..100000}; do kill -USR2 $PPID; done; exit 3"
    yield lambda max_requeues: SlurmJob(["bash", "-c", command], tmp_path, max_requeues)
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_slurm_job_that_is_out_of_time_is_requeued_when_its_command_has_saved(slurm_job, monkeypatch):
    called = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: called.append(command))
    monkeypatch.setattr(signal, "pause", lambda: sys.exit("SLURM ends it"))
    with pytest.raises(SystemExit, match="SLURM ends it"):
        slurm_job(max_requeues=2)()
    assert called == [["scontrol", "requeue", "12"]]


def test_a_slurm_job_that_was_started_again_often_enough_fails_with_a_line(slurm_job, tmp_path):
    line = "out of time, after max_requeues=1 new starts: resume=<the sweep> goes on with it"
    with pytest.raises(RunError, match=f"^{line}$"):
        slurm_job(max_requeues=1)()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"status": "failed", "error": line, "folder": str(tmp_path)}


@pytest.mark.slow
def test_a_job_whose_ray_worker_is_killed_saves_and_is_started_again(launch, tmp_path):
    pytest.importorskip("ray")
    (job,) = launch(8, launcher=RayLauncher(address="local", num_cpus=1, num_gpus=0))
    assert job.return_value == [0.8]
    (result,) = results(tmp_path)
    assert result["given"] == {"model": "resnet8", "seed": "8", "resume": "auto"}
    assert (tmp_path / "sweep/0_model=resnet8_seed=8/saved").exists()


@pytest.mark.slow
def test_a_job_that_would_wait_for_ever_is_refused(launch):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"^hydra.launcher.num_cpus=64 is more than the \d+ of this machine$"):
        launch(3, launcher=RayLauncher(address="local", num_cpus=64, num_gpus=0))
