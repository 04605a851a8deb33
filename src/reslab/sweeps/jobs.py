"""The jobs of a sweep: composed, checked, and given to a launcher unless they have ended already."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.configuration import flatten, has_prefix, name_of, quoted
from reslab.errors import UserError
from reslab.files import FolderInUseError
from reslab.internals import error_of_job
from reslab.machine import asked_threads
from reslab.options import Schema, check_option
from reslab.run import Result, Run, canonical, differences, identity, older_options
from reslab.sweeps.composition import Composer, Job
from reslab.sweeps.folder import Sweep
from reslab.text import printable
from reslab.training.options import OF_ONE_RUN, RUN, TRAINING_SCHEMA

# Options that may differ between a job that has ended and the same job of a resumed sweep.
NO_PART_OF_A_JOB = ("resume", "sweep", "outputs", "checkpoint", "callbacks.pruning")


class JobLauncher(Launcher):
    """A launcher whose jobs are composed already and need not have consecutive numbers."""

    config_loader: ConfigLoader
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose and launch jobs for a sweeper that passes overrides only."""
        numbered = enumerate(job_overrides, initial_job_idx)
        composer = Composer(self.config_loader, self.config)
        return self.launch_jobs([composer.compose(*each) for each in numbered])

    def threads(self, processes: int = 1) -> int | None:
        """Return the number of threads of each process of each job; None if only the job can tell.

        Args:
            processes: how many a job has.
        """
        return None

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Raise UserError for jobs that cannot be launched."""

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        raise NotImplementedError


class SweepJobs:
    """The jobs of a sweep. A launcher receives those whose folders do not hold their results yet."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.sweep = Sweep(config.hydra.sweep.dir)
        self.threads = self.sweep.threads  # of each job that is not asked for another number; None: not known yet
        self.launched = False  # whether any job was
        self.batch: list[Job] = []  # those that were launched last, and those that had ended before
        self.unrecorded = 0  # failed jobs whose folders could not be written
        # The folder is named after the time. With its name among the settings, every process uses the same one.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")
        self.composer = Composer(hydra_context.config_loader, config)

    def run(self, overrides_by_number: Mapping[int, list[str]]) -> dict[int, Result]:
        """Run jobs.

        Args:
            overrides_by_number: the overrides of each job, by its number.

        Returns:
            The result of each job, by its number.

        Raises:
            UserError: a folder holds the run of another job, or an option is wrong. No job is launched then.
        """
        begun = self.sweep.jobs_by_number()
        jobs = [self.compose(number, each, begun.get(number, ())) for number, each in overrides_by_number.items()]
        unfinished = [job for job in jobs if job.number not in begun or not holds_its_result(job)]
        self.check_values(unfinished)
        for job in unfinished:
            if job.number in begun and job.run.has_settings:  # training replaces them once the job has resumed
                place = [f"hydra.sweep.subdir={quoted(job.folder.name)}", "hydra.output_subdir=null"]
                job.overrides = [*job.overrides, f"resume={quoted(job.folder)}", *place]
        if unfinished and isinstance(self.launcher, JobLauncher):
            self.launcher.check_jobs(unfinished)
        self.fix_threads(unfinished)
        self.launched = self.launched or bool(unfinished)
        self.batch = jobs
        returned: list[JobReturn] = []
        if unfinished and isinstance(self.launcher, JobLauncher):
            returned += self.launcher.launch_jobs(unfinished)
        else:
            for group in consecutive(unfinished):
                overrides = [job.overrides for job in group]
                returned += self.launcher.launch(overrides, initial_job_idx=group[0].number) or ()
        in_use = {job.number: error for job, each in zip(unfinished, returned, strict=False) if (error := used(each))}
        for job in unfinished if not self.are_benchmarks else ():
            if job.number in in_use:
                self.report_in_use(job, in_use[job.number])
            elif not job.run.result_file.exists():
                self.record_missing_result(job)
        results = self.results()
        return results | {number: results[number] | {"error": str(error)} for number, error in in_use.items()}

    def results(self) -> dict[int, Result]:
        """Return what the folders of the jobs that were launched last hold, by the number of the job."""
        return {job.number: job.run.result for job in self.batch}

    def report_in_use(self, job: Job, error: FolderInUseError) -> None:
        """Say that another process has the folder of a job. Nothing is written there."""
        print(f"job {job.number} failed: {printable(error)}")
        if not job.run.hydra_folder.is_dir():  # else the report has it
            self.unrecorded += 1

    def fix_threads(self, jobs: Sequence[Job]) -> None:
        """Give each job that is not asked for a number of threads the one that the sweep has recorded.

        How many jobs run at the same time, and on which machine, may change when the sweep is resumed, and another
        number gives other weights. A job that has begun keeps its own.
        """
        for job in jobs:
            if self.composer.option(job.overrides, "threads", otherwise=1) is None:
                number = (job.saved or {}).get("threads") or self.chosen_threads(jobs)
                job.overrides = job.overrides if number is None else [*job.overrides, f"threads={number}"]

    def chosen_threads(self, jobs: Sequence[Job]) -> int | None:
        """Return the number of threads of a new job, which is chosen and recorded when the sweep begins.

        It is the same for all jobs, so that their weights can be compared: what the jobs with the most devices have.
        """
        if self.threads is None:
            if isinstance(self.launcher, JobLauncher):
                self.threads = self.launcher.threads(max(job.processes for job in jobs))
            else:  # the jobs run in this process, one at a time
                self.threads = asked_threads() or self.threads_of_torch()
            self.write_record()
        return self.threads

    def threads_of_torch(self) -> int:
        from reslab.training.threads import chosen_threads  # torch

        return chosen_threads(self.config.trainer)

    def record_missing_result(self, job: Job) -> None:
        """Write that a job has failed, because it ended without a result, e.g. because its folder has disappeared."""
        job.write_failure(
            "it ended without a result" + ("" if job.run.has_settings else ": its folder has disappeared")
        )
        if not job.run.has_failed:
            print(f"job {job.number} failed: {printable(job.folder)} cannot be written")
            self.unrecorded += 1

    def compose(self, number: int, overrides: Sequence[str], earlier: Sequence[Run] = ()) -> Job:
        """Return a job in the folder that it has already, which an older version or other options may have named.

        Args:
            number: its place in the sweep, from 0.
            overrides: its command line.
            earlier: the runs in the sweep's folder that have this number.
        """
        named = self.composer.folder(number, overrides) if len(earlier) > 1 else None
        for run in sorted(earlier, key=lambda run: (run.folder != named, not run.has_ended)):
            if (job := self.as_before(run, number, overrides)) is not None:
                return job
        return self.composer.compose(number, overrides)

    def as_before(self, run: Run, number: int, overrides: Sequence[str]) -> Job | None:
        """Return the job in the folder of its earlier run; None if that was the run of another job."""
        if (saved := saved_config(run)) is None:
            return None
        now = self.options_of_begun(overrides, saved)
        if not equal(saved, now) and (options := older_options(flatten(saved), flatten(now))):
            overrides = [*overrides, *options]
            now = self.options_of_begun(overrides, saved)
        if not equal(saved, now) and differences(saved, now):
            return None
        return Job(number, list(overrides), lambda: (run.folder, now), saved)

    def options_of_begun(self, overrides: Sequence[str], saved: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a job that has begun, with the number of threads that it was given."""
        options = self.composer.options(overrides)
        if options.get("threads", 1) is None and RUN["threads"].allows(saved.get("threads")):
            options["threads"] = saved["threads"]
        return options

    def check_values(self, jobs: Sequence[Job]) -> None:
        """Raise UserError for a value that is wrong by itself in any job."""
        for job in self.with_new_values(jobs):
            self.values(job)

    def check_combinations(self, jobs: Iterable[Job]) -> None:
        """Raise UserError if every job of the sweep has a mistake.

        A combination that is wrong in some jobs only is left to these jobs: the others can run.
        """
        errors = (self.error_of(job) for job in jobs)
        if (first := next(errors, None)) is not None and all(errors):
            raise UserError(first)

    def with_new_values(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield jobs that together have all values and all compositions. Plain values are checked here."""
        seen: set[object] = {None}
        for job in jobs:
            new = {self.checked(override) for override in job.overrides} - seen
            new |= {self.composer.key(job.overrides, self.composer.plain_values(job.overrides))} - seen
            if new:
                yield job
            seen |= new

    def checked(self, override: str) -> object:
        """Return what a job of its own must check of an override; None if its value has been found to be right."""
        parsed = self.composer.parse(override)
        name, value = parsed.key_or_group, parsed.value()
        if not self.composer.is_plain(parsed) or "$" in str(value):
            return override
        if name not in self.schema.kinds:  # a user's own option: its kind is the type of its default
            return override if isinstance(value, str) else (name, type(value))
        check_option(name, value, self.schema.kinds[name])
        return None

    def error_of(self, job: Job) -> str | None:
        """Return what is wrong with the values of a job, each by itself or in combination."""
        try:
            values = self.values(job)
            self.schema.check_together(values)
        except UserError as error:
            return str(error)
        alone = next((words for argument, words in OF_ONE_RUN.items() if values.get(name_of(argument))), None)
        return alone and f"{alone}, and these options are a sweep: add hydra.mode=RUN and one model=…"

    def values(self, job: Job) -> dict[str, Any]:
        """Return every option of a job by its name. Raise UserError for one that is wrong by itself."""
        config = job.config
        if "folder" in config:  # Hydra sets it when the job begins
            config.folder = str(job.folder)
        return self.schema.check_each(config, job.overrides)

    @property
    def are_benchmarks(self) -> bool:
        return bool(self.config.hydra.job.config_name == BENCHMARK_SCHEMA.config_name)

    @property
    def schema(self) -> Schema:
        return BENCHMARK_SCHEMA if self.are_benchmarks else TRAINING_SCHEMA

    def write_record(self) -> None:
        """Write what the sweep was started with, by which `resume=` recognises it, and its number of threads."""
        if self.threads is not None:
            self.config.threads = self.threads
        self.sweep.write_record(self.config)


def used(returned: JobReturn) -> FolderInUseError | None:
    """Return the error of a job whose folder another process uses; None for another end of a job."""
    error = error_of_job(returned)
    return error if isinstance(error, FolderInUseError) else None


def consecutive(jobs: list[Job]) -> list[list[Job]]:
    """Return groups of jobs with consecutive numbers."""
    groups: list[list[Job]] = []
    for job in jobs:
        if groups and groups[-1][-1].number + 1 == job.number:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def holds_its_result(job: Job) -> bool:
    """Return whether a job's folder holds the result of this very job. Raise UserError for the run of another job."""
    then, now = job.saved or saved_config(job.run), job.options
    if then is None:
        return False
    if equal(then, now):
        return job.run.has_ended
    if different := differences(then, now):
        raise UserError(f"{job.folder} was another job: {'; '.join(different)}; start a new sweep instead")
    return canonical(job_identity(then)) == canonical(job_identity(now)) and job.run.has_ended


def equal(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether two configurations are written alike, the usual case: `differences` takes a millisecond.

    Python's == calls 1, 1.0 and True equal, which are different jobs.
    """
    return repr(saved) == repr(now)


def saved_config(run: Run) -> dict[str, Any] | None:
    """Return the saved configuration of a run; None where it is absent or incomplete.

    A process that was killed while it wrote this file leaves it empty. The checkpoint has the configuration too.
    """
    try:
        saved = run.config
    except (OSError, yaml.YAMLError):
        return None
    return saved if isinstance(saved, dict) and saved else None


def job_identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options that must be equal for a result to be that of the job."""
    return {name: value for name, value in identity(config).items() if not has_prefix(name, NO_PART_OF_A_JOB)}
