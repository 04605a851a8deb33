"""The jobs of a sweep: composed, checked, and given to a launcher unless they have ended already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from reslab.benchmarking.options import BENCHMARK_SCHEMA
from reslab.configuration import flatten, has_prefix, quoted
from reslab.errors import UserError
from reslab.options import Schema
from reslab.run import Result, Run, differences, identity, older_options
from reslab.sweeps.folder import Sweep
from reslab.training.options import TRAINING_SCHEMA

# Options that may differ between a job that has ended and the same job of a resumed sweep.
NO_PART_OF_A_JOB = ("resume", "sweep", "outputs", "checkpoint", "callbacks.pruning")


@dataclass
class Job:
    """One run that is to be launched.

    Args:
        number: its place in the sweep, from 0.
        overrides: its command line, with `resume=` where its folder exists.
        folder: where it writes.
        config: its composed configuration.
    """

    number: int
    overrides: list[str]
    folder: Path
    config: DictConfig

    @property
    def run(self) -> Run:
        return Run(self.folder)

    def holds_its_result(self) -> bool:
        """Return whether the folder holds the result of this very job. Raise UserError for the run of another job."""
        then, now = saved_config(self.run), to_dict(self.config)
        if then is None:
            return False
        if different := differences(then, now):
            raise UserError(f"{self.folder} was another job: {'; '.join(different)}; start a new sweep instead")
        return job_identity(then) == job_identity(now) and self.run.has_ended


class JobLauncher(Launcher):
    """A launcher whose jobs are composed already and need not have consecutive numbers."""

    config_loader: ConfigLoader
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Compose and launch jobs for a sweeper that passes overrides only."""
        numbered = enumerate(job_overrides, initial_job_idx)
        return self.launch_jobs([compose_job(self.config_loader, self.config, *each) for each in numbered])

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Raise UserError for jobs that cannot be launched."""

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        raise NotImplementedError


class SweepJobs:
    """The jobs of a sweep. A launcher receives those whose folders do not hold their results yet."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.sweep = Sweep(config.hydra.sweep.dir)
        self.launched = False  # whether any job was
        # The folder is named after the time. With its name among the settings, every process uses the same one.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")

    def run(self, overrides_by_number: Mapping[int, list[str]]) -> dict[int, Result]:
        """Run jobs.

        Args:
            overrides_by_number: the overrides of each job, by its number.

        Returns:
            The result of each job, by its number.

        Raises:
            UserError: a folder holds the run of another job, or an option is wrong. No job is launched then.
        """
        jobs = [self.compose(*each) for each in overrides_by_number.items()]
        unfinished = [job for job in jobs if not job.holds_its_result()]
        self.check(unfinished)
        for job in unfinished:
            if job.run.has_settings:  # training replaces them once the job has resumed
                place = [f"hydra.sweep.subdir={quoted(job.folder.name)}", "hydra.output_subdir=null"]
                job.overrides = [*job.overrides, f"resume={quoted(job.folder)}", *place]
        if unfinished and isinstance(self.launcher, JobLauncher):
            self.launcher.check_jobs(unfinished)
        self.launched = self.launched or bool(unfinished)
        if unfinished and isinstance(self.launcher, JobLauncher):
            self.launcher.launch_jobs(unfinished)
        else:
            for group in consecutive(unfinished):
                self.launcher.launch([job.overrides for job in group], initial_job_idx=group[0].number)
        return {job.number: job.run.result for job in jobs}

    def compose(self, number: int, overrides: Sequence[str]) -> Job:
        """Return a job in the folder that it has already, which an older version or other options may have named."""
        job = compose_job(self.config_loader, self.config, number, overrides)
        earlier = [run for run in self.sweep.jobs if run.folder.name.partition("_")[0] == str(number)]
        for run in sorted(earlier, key=lambda run: (run.folder != job.folder, not run.has_ended)):
            same = self.as_before(run, job)
            if same is not None:
                return same
        return job

    def as_before(self, run: Run, job: Job) -> Job | None:
        """Return the job in the folder of its earlier run; None if that was the run of another job."""
        if (saved := saved_config(run)) is None:
            return None
        if options := older_options(flatten(saved), flatten(to_dict(job.config))):
            job = compose_job(self.config_loader, self.config, job.number, [*job.overrides, *options])
        return None if differences(saved, to_dict(job.config)) else replace(job, folder=run.folder)

    def check(self, jobs: list[Job]) -> None:
        """Raise UserError for a value that is wrong in any job, or a combination that is wrong in every job.

        A combination that is wrong in some jobs only is left to these jobs: the others can run.
        """
        errors = [error for job in jobs if (error := self.combination_error(job))]
        if len(errors) == len(jobs) and len(set(errors)) == 1:
            raise UserError(errors[0])

    def combination_error(self, job: Job) -> str | None:
        """Return what is wrong with the values of a job in combination. Raise UserError for a single wrong value."""
        config = job.config.copy()
        if "folder" in config:  # Hydra sets it when the job begins
            config.folder = str(job.folder)
        values = self.schema.check_each(config, job.overrides)
        try:
            self.schema.check_together(values)
        except UserError as error:
            return str(error)
        return None

    @property
    def are_benchmarks(self) -> bool:
        return bool(self.config.hydra.job.config_name == BENCHMARK_SCHEMA.config_name)

    @property
    def schema(self) -> Schema:
        return BENCHMARK_SCHEMA if self.are_benchmarks else TRAINING_SCHEMA

    def write_record(self) -> None:
        """Write what the sweep was started with, by which `resume=` recognises it."""
        self.sweep.write_record(self.config)


def compose_job(config_loader: ConfigLoader, sweep: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """Return the job with its composed configuration.

    Raises:
        UserError: the name of the job's folder does not begin with its number, which distinguishes the jobs.
    """
    config = config_loader.load_sweep_config(sweep, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
        sweep_folder, name = config.hydra.sweep.dir, str(config.hydra.sweep.subdir)
        del config["hydra"]
    if name.partition("_")[0] != str(number) or "/" in name:
        raise UserError(f"hydra.sweep.subdir={name} must be ${{hydra.job.num}}, or begin with ${{hydra.job.num}}_")
    return Job(number, list(overrides), Path(sweep_folder, name), config)


def consecutive(jobs: list[Job]) -> list[list[Job]]:
    """Return groups of jobs with consecutive numbers."""
    groups: list[list[Job]] = []
    for job in jobs:
        if groups and groups[-1][-1].number + 1 == job.number:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def saved_config(run: Run) -> dict[str, Any] | None:
    """Return the saved configuration of a run; None where it is absent or incomplete.

    A process that was killed while it wrote this file leaves it empty. The checkpoint has the configuration too.
    """
    try:
        saved = OmegaConf.load(run.config_file)
    except (OSError, yaml.YAMLError):
        return None
    return to_dict(saved) if saved else None


def to_dict(config: Any) -> dict[str, Any]:
    return {str(name): value for name, value in OmegaConf.to_container(config).items()}  # type: ignore[union-attr]


def job_identity(config: dict[str, Any]) -> dict[str, Any]:
    """Return the options that must be equal for a result to be that of the job."""
    return {name: value for name, value in identity(config).items() if not has_prefix(name, NO_PART_OF_A_JOB)}
