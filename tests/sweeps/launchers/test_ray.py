import sys
from types import SimpleNamespace

import pytest

from reslab.errors import UserError
from reslab.interruption import signals
from reslab.sweeps.launchers.ray import RayLauncher, run_command


def local(**resources):
    return RayLauncher(**{"address": "local", "num_cpus": 1, "num_gpus": 0} | resources)


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"num_cpus": 64}, "hydra.launcher.num_cpus=64 is more than the 2 of this machine"),
        ({"num_gpus": 0.5}, "hydra.launcher.num_gpus=0.5 is more than the 0 of this machine"),
    ],
)
def test_a_job_that_would_wait_forever_is_refused(resources, line):
    with pytest.raises(UserError, match=f"^{line}$"):
        local(**resources).check_resources({"CPU": 2.0})
    local(**resources, address="auto").check_resources({"CPU": 2.0})  # this cluster may grow


def test_what_cannot_run_is_refused_before_the_sweeps_folder_changes(monkeypatch):
    initialized, ended = [], []

    class Cluster:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            ended.append(True)

    def init(**options):
        initialized.append(options["address"])
        return Cluster()

    ray = SimpleNamespace(init=init, cluster_resources=lambda: {"CPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("reslab.sweeps.launchers.ray.require_package", lambda *names: None)
    monkeypatch.setattr(signals, "listen", lambda: None)
    with pytest.raises(UserError, match=r"^hydra\.launcher\.num_cpus=64 is more than the 2 of this machine$"):
        local(num_cpus=64).check_jobs([])
    assert (initialized, ended) == (["local"], [True])
    launcher = local()
    launcher.check_jobs([])
    assert launcher.connect() is launcher.connect()
    assert (initialized, ended) == (["local"] * 2, [True])


def test_a_task_whose_folder_has_disappeared_does_not_end_the_others(tmp_path):
    outcome = run_command(["true"], str(tmp_path / "removed" / "output.txt"))
    assert str(outcome).startswith("its command cannot be started: [Errno 2] No such file or directory")
    assert run_command(["false"], str(tmp_path / "output.txt")) == 1


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"num_cpus": "many"}, "hydra.launcher.num_cpus=many must be a number from 0 to 1024"),
        ({"num_gpus": -1}, "hydra.launcher.num_gpus=-1 must be a number from 0 to 1024"),
        ({"address": None}, "hydra.launcher.address=null must be text "),
    ],
)
def test_a_wrong_option_is_one_line(resources, line):
    with pytest.raises(UserError, match=f"^{line}"):
        local(**resources)


def test_a_job_has_as_many_threads_as_processors(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert [local(num_cpus=number).threads() for number in (4, 1.5, 0.5)] == [4, 1, 1]
    assert local(num_cpus=4).threads(processes=2) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local(num_cpus=4).threads() == 3


@pytest.mark.slow
def test_a_job_whose_ray_worker_is_killed_saves_and_is_started_again(launch, results, tmp_path):
    pytest.importorskip("ray")
    (job,) = launch(8, launcher=local())
    assert job.return_value == [0.8]
    (result,) = results()
    assert result["given"] == {"model": "resnet8", "seed": "8", "resume": "auto"}
    assert (tmp_path / "sweep/0_model=resnet8_seed=8/saved").exists()


@pytest.mark.slow
def test_the_resources_of_a_real_cluster_are_checked(launch):
    pytest.importorskip("ray")
    with pytest.raises(UserError, match=r"^hydra.launcher.num_cpus=64 is more than the \d+ of this machine$"):
        launch(3, launcher=local(num_cpus=64))
