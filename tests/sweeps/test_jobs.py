import json

import pytest
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import OmegaConf

from reslab.errors import UserError
from reslab.files import IN_USE, FolderInUseError
from reslab.run import ABSENT
from reslab.sweeps.composition import Job
from reslab.sweeps.folder import Sweep
from reslab.sweeps.jobs import JobLauncher, holds_its_result
from reslab.sweeps.options import PRUNING_OVERRIDE


class GroupLauncher(Launcher):
    """A launcher of Hydra that records what it receives: overrides of jobs with consecutive numbers."""

    def __init__(self):
        self.launched = []

    def setup(self, **arguments):
        pass

    def launch(self, job_overrides, initial_job_idx):
        self.launched.append((initial_job_idx, job_overrides))


class RecordingLauncher(JobLauncher):
    """A launcher of ResLab that records what it receives: jobs."""

    def __init__(self):
        self.launched = []

    def launch_jobs(self, jobs):
        self.launched.append([job.number for job in jobs])
        return []


def begin(job, status=None):
    """Write the settings of a job, and its result."""
    job.run.write_settings(OmegaConf.to_yaml(job.config), job.overrides)
    if status:
        job.run.result_file.write_text(json.dumps({"status": status}))


@pytest.mark.parametrize(
    ("status", "saved", "ended"),
    [
        ("finished", {"seed": 1, "resume": None}, True),
        ("pruned", {"seed": 1, "resume": "x"}, True),
        ("failed", {"seed": 1, "resume": None}, False),
        ("interrupted", {"seed": 1, "resume": None}, False),
        (None, {"seed": 1, "resume": None}, False),
        ("finished", {"seed": 1, "resume": None, "test": False}, False),  # it may differ, so the job is resumed
        ("finished", {"seed": 1, "resume": None, "callbacks": {"pruning": {"folder": "x"}}}, True),
    ],
)
def test_a_job_has_ended_if_it_has_a_result_and_the_same_configuration(tmp_path, status, saved, ended):
    job = Job(0, [], lambda: (tmp_path, {"seed": 1, "resume": None}))
    assert not holds_its_result(job)
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(OmegaConf.create(saved), tmp_path / ".hydra" / "config.yaml")
    if status:
        (tmp_path / "result.json").write_text(json.dumps({"status": status}))
    assert holds_its_result(job) == ended
    job.options["seed"] = 2
    with pytest.raises(UserError, match=f"{tmp_path} was another job: seed was 1 and is 2; start a new sweep instead"):
        holds_its_result(job)


@pytest.mark.parametrize(("saved", "now"), [({"freeze": True}, {"freeze": 1}), ({"freeze": 0}, {"freeze": False})])
def test_a_truth_value_does_not_stand_for_the_job_of_a_number(tmp_path, saved, now):
    job = Job(0, [], lambda: (tmp_path, {"model": now}))
    job.run.write_settings(OmegaConf.to_yaml({"model": saved}), [])
    job.run.result_file.write_text(json.dumps({"status": "finished"}))
    with pytest.raises(UserError, match=f"{tmp_path} was another job: model.freeze was"):
        holds_its_result(job)


@pytest.mark.slow
def test_only_the_jobs_that_have_not_ended_are_launched_and_those_that_have_begun_are_resumed(sweep_jobs):
    jobs = sweep_jobs(GroupLauncher())
    folders = {}
    for number, status in enumerate(["finished", "failed", None, "finished", None, "pruned"]):
        job = jobs.compose(number, [f"seed={number}"])
        folders[number] = job.folder
        if number == 4:
            job.folder.mkdir(parents=True)  # it has not begun
        else:
            begin(job, status)
    results = jobs.run({number: [f"seed={number}"] for number in range(7)})
    resumed = [
        [f"seed={number}", f"resume='{folders[number]}'", f"hydra.sweep.subdir='{number}_seed={number}'",
         "hydra.output_subdir=null", "threads=1"]
        for number in (1, 2)
    ]  # fmt: skip
    new = {number: [[f"seed={number}", "threads=1"]] for number in (4, 6)}
    assert jobs.launcher.launched == [(1, resumed), *new.items()]
    statuses = ["finished", "failed", "failed", "finished", "failed", "pruned", "failed"]  # launched without a result
    assert [results[number]["status"] for number in range(7)] == statuses


@pytest.mark.slow
def test_a_job_of_a_search_from_before_the_pruning_callback_has_ended(sweep_jobs):
    jobs = sweep_jobs(RecordingLauncher())
    begin(jobs.compose(0, ["seed=0"]), "finished")
    begin(jobs.compose(1, ["seed=1"]), "interrupted")
    results = jobs.run({number: [PRUNING_OVERRIDE, f"seed={number}"] for number in range(2)})
    assert jobs.launcher.launched == [[1]]
    assert results[0]["status"] == "finished"


def test_a_launcher_of_reslab_receives_all_jobs_at_once(sweep_jobs):
    jobs = sweep_jobs(RecordingLauncher())
    begin(jobs.compose(1, ["seed=1"]), "finished")
    jobs.run({number: [f"seed={number}"] for number in range(3)})
    assert jobs.launcher.launched == [[0, 2]]


def test_a_job_that_is_wrong_alone_is_left_to_fail_by_itself(sweep_jobs):
    """As the only job of a batch, of a search or of a resumed sweep, it ended all of them."""
    jobs = sweep_jobs(RecordingLauncher())
    wrong, right = (["trainer.max_steps=-1", f"trainer.max_epochs={epochs}"] for epochs in (-1, 1))
    assert jobs.run({0: wrong})[0]["status"] == "failed"
    assert jobs.launcher.launched == [[0]]
    other = ["model.groups=32"]
    jobs.check_combinations([jobs.compose(number, each) for number, each in enumerate([wrong, other, right])])
    with pytest.raises(UserError, match=r"^trainer\.max_epochs=-1 and trainer\.max_steps=-1 "):
        jobs.check_combinations([jobs.compose(number, each) for number, each in enumerate([wrong, other])])


def test_the_folder_of_a_job_that_another_process_uses_is_left_alone(sweep_jobs, capsys):
    class InUse(RecordingLauncher):
        def launch_jobs(self, jobs):
            error = FolderInUseError(f"{jobs[0].folder} {IN_USE}")
            return [JobReturn(status=JobStatus.FAILED, _return_value=error)]

    jobs = sweep_jobs(InUse())
    begin(job := jobs.compose(0, ["seed=0"]))
    before = {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()}
    result = jobs.run({0: ["seed=0"]})[0]
    assert (result["status"], result["error"]) == ("unfinished", f"{job.folder} {IN_USE}")
    assert {path: path.read_bytes() for path in job.folder.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().out == f"job 0 failed: {job.folder} is in use: another process trains there\n"
    assert jobs.unrecorded == 0  # its folder is in the report


@pytest.mark.parametrize("incomplete", ["", "seed: [1", None])
def test_a_job_that_was_killed_while_it_wrote_its_settings_is_launched(sweep_jobs, incomplete):
    jobs = sweep_jobs(RecordingLauncher())
    settings = jobs.compose(0, ["seed=0"]).run.hydra_folder
    settings.mkdir(parents=True)
    if incomplete is not None:
        (settings / "config.yaml").write_text(incomplete)
    jobs.run({0: ["seed=0"]})
    assert jobs.launcher.launched == [[0]]


@pytest.mark.slow
def test_the_name_of_a_jobs_folder_must_begin_with_its_number(sweep_jobs):
    for name in ("run_${hydra.job.num}", "${hydra.job.num}/run", "${seed}_x"):
        jobs = sweep_jobs(RecordingLauncher(), f"hydra.sweep.subdir={name}")
        with pytest.raises(UserError, match=r"^hydra\.sweep\.subdir=.* must be \$\{hydra\.job\.num\}, or begin with"):
            jobs.run({0: ["seed=5"]})
    jobs = sweep_jobs(RecordingLauncher(), "hydra.sweep.subdir=${hydra.job.num}")
    assert jobs.compose(0, ["seed=5"]).folder.name == "0"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["0_seed=5", "0_seed=5_sweep.stop_on_failure=true", "0_another_version"])
@pytest.mark.parametrize("option", [[], ["sweep.stop_on_failure=true"]])
def test_a_job_keeps_its_folder_whatever_its_name_says_of_the_sweep(sweep_jobs, tmp_path, name, option):
    jobs = sweep_jobs(RecordingLauncher(), *option)
    options = jobs.compose(0, ["seed=5"]).options
    job = Job(0, ["seed=5"], lambda: (tmp_path / "sweep" / name, options))
    begin(job, "finished")
    assert jobs.run({0: ["seed=5", *option]})[0]["status"] == "finished"
    assert jobs.launcher.launched == []
    assert jobs.compose(0, ["seed=6"], [job.run]).folder.name == "0_seed=6"  # another job with this number
    assert jobs.sweep.jobs_by_number().keys() == {0}


@pytest.mark.slow
def test_a_job_that_is_older_than_an_option_does_what_it_did(sweep_jobs, monkeypatch):
    """conf/ gives the option another value today than what the job did without it."""
    jobs = sweep_jobs(RecordingLauncher())
    for number, status in enumerate(["finished", "failed"]):
        begin(jobs.compose(number, [f"seed={number}"]), status)
    monkeypatch.setitem(ABSENT, "data.new", "before")
    overrides = {number: [f"seed={number}", "+data.new=today"] for number in range(2)}
    begun = jobs.sweep.jobs_by_number()
    earlier = [jobs.compose(number, overrides[number], begun[number]) for number in range(2)]
    assert [job.folder.name for job in earlier] == ["0_seed=0", "1_seed=1"]
    assert [job.config.data.new for job in earlier] == ["before", "before"]
    jobs.run(overrides)
    assert jobs.launcher.launched == [[1]]


def launched_threads(jobs):
    """Return the last override of each job that a launcher of Hydra has received."""
    return [overrides[-1] for _, group in jobs.launcher.launched for overrides in group]


@pytest.mark.slow
def test_the_jobs_of_a_sweep_keep_the_number_of_threads_that_it_has_recorded(sweep_jobs, monkeypatch):
    jobs = sweep_jobs(GroupLauncher())
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("reslab.training.threads.chosen_threads", lambda trainer: 3)
    overrides = {0: ["seed=0"], 1: ["seed=1", "threads=5"], 2: ["seed=2", "threads=null"]}
    jobs.run(overrides)
    assert launched_threads(jobs) == ["threads=3", "threads=5", "threads=3"]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("reslab.training.threads.chosen_threads", lambda trainer: 4)
    resumed = sweep_jobs(GroupLauncher())
    resumed.write_record()
    resumed.run({3: ["seed=3"]})
    assert launched_threads(resumed) == ["threads=3"]


@pytest.mark.slow
def test_a_job_that_has_begun_keeps_its_threads(sweep_jobs, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("reslab.training.threads.chosen_threads", lambda trainer: 3)
    jobs = sweep_jobs(GroupLauncher())
    for number, (status, threads) in enumerate([("finished", 2), ("failed", 2), ("failed", None), ("finished", None)]):
        job = jobs.compose(number, [f"seed={number}"])
        job.options["threads"] = threads
        begin(job, status)
    jobs.run({number: [f"seed={number}"] for number in range(4)})
    assert launched_threads(jobs) == ["threads=2", "threads=3"]


def test_a_sweep_that_asks_for_threads_gives_its_jobs_no_others(sweep_jobs):
    jobs = sweep_jobs(GroupLauncher())
    jobs.run({0: ["seed=0", "threads=2"]})
    assert (launched_threads(jobs), jobs.threads) == (["threads=2"], None)


@pytest.mark.parametrize("content", ["", "[1]", "threads: many", "threads: 0", "threads: [1"])
def test_a_record_without_a_number_of_threads_counts_as_that_of_an_older_version(tmp_path, content):
    (tmp_path / "multirun.yaml").write_text(content)
    assert Sweep(tmp_path).threads is None


@pytest.mark.slow
def test_jobs_with_new_values_wait_for_one_composition_of_each_kind(sweep_jobs, monkeypatch):
    jobs, composed = sweep_jobs(RecordingLauncher()), []
    compose = jobs.composer.config_loader.load_sweep_config
    monkeypatch.setattr(
        jobs.composer.config_loader, "load_sweep_config", lambda *each: composed.append(each[1]) or compose(*each)
    )
    monkeypatch.setattr(jobs.launcher, "launch_jobs", lambda launched: composed.append(len(launched)) or [])
    monkeypatch.setattr(jobs, "record_missing_result", lambda job: None)
    overrides = {number: [f"model=resnet{8 + 6 * (number % 2)}", f"seed={number}"] for number in range(100)}
    jobs.run(overrides)
    before = composed[: composed.index(100)]
    assert {each[0] for each in before} == {"model=resnet8", "model=resnet14"}
    assert {each[1] for each in before} == {"seed=0", "seed=1"}
    with pytest.raises(UserError, match=r"^seed=-1 must be"):
        jobs.run(overrides | {99: ["model=resnet8", "seed=-1"]})
