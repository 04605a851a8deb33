"""The jobs of a sweep: composed, checked, and given to a launcher unless they have ended already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from reslab.benchmarking.options import SCHEMA as BENCHMARK_SCHEMA
from reslab.configuration import has_prefix, quoted
from reslab.errors import UserError
from reslab.options import Schema
from reslab.run import Result, Run, differences, identity
from reslab.sweeps.folder import Sweep
from reslab.training.options import SCHEMA as TRAINING_SCHEMA

# Options that may differ between a job that has ended and the same job of a resumed sweep.
NO_PART_OF_A_JOB = ("resume", "sweep", "callbacks.pruning")


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

    @property
    def has_ended(self) -> bool:
        """Whether the folder holds the result of this very job. Raises UserError for that of another job."""
        try:
            saved = OmegaConf.load(self.run.config_file)
        except (OSError, yaml.YAMLError):
            return False
        if not saved:  # its process was killed while it wrote this file; its checkpoint has the configuration too
            return False
        then, now = (plain(config) for config in (saved, self.config))
        if different := differences(then, now):
            raise UserError(f"{self.folder} was another job: {'; '.join(different)}; start a new sweep instead")
        return compared(then) == compared(now) and self.run.has_ended


class JobLauncher(Launcher):
    """A launcher that receives composed jobs, of any numbers, at once; Hydra's launchers receive overrides."""

    config_loader: ConfigLoader
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Serve a sweeper of another project."""
        numbered = enumerate(job_overrides, initial_job_idx)
        return self.launch_jobs([compose_job(self.config_loader, self.config, *each) for each in numbered])

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        raise NotImplementedError


class SweepJobs:
    """Gives a launcher the jobs of a sweep that have not ended. The result of a job is in its folder."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.sweep = Sweep(config.hydra.sweep.dir)
        # The folder is named after the time. With its name among the settings, every process uses the same one.
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")

    def run(self, numbered: Mapping[int, list[str]]) -> dict[int, Result]:
        """Run jobs.

        Args:
            numbered: the overrides of each job, by its number.

        Returns:
            The result of each job, by its number.

        Raises:
            UserError: a folder holds the run of another job, or an option is wrong. No job is launched then.
        """
        jobs = [self.compose(*each) for each in numbered.items()]
        unfinished = [job for job in jobs if not job.has_ended]
        self.check(unfinished)
        for job in unfinished:
            if job.run.has_settings:
                job.overrides = [*job.overrides, f"resume={quoted(job.folder)}"]
        if unfinished and isinstance(self.launcher, JobLauncher):
            self.launcher.launch_jobs(unfinished)
        else:
            for group in consecutive(unfinished):
                self.launcher.launch([job.overrides for job in group], initial_job_idx=group[0].number)
        return {job.number: job.run.result for job in jobs}

    def compose(self, number: int, overrides: Sequence[str]) -> Job:
        return compose_job(self.config_loader, self.config, number, overrides)

    def check(self, jobs: list[Job]) -> None:
        """Raise UserError for a value that is wrong by itself in any job, or in the same combination in all jobs.

        A combination that is wrong in some jobs only is left to these jobs: the others can run.
        """
        schema = self.schema
        wrong: set[str | None] = set()
        for job in jobs:
            config = job.config.copy()
            if "folder" in config:  # Hydra sets it when the job begins
                config.folder = str(job.folder)
            values = schema.check_each(config, job.overrides)
            try:
                schema.check_together(values)
                wrong.add(None)
            except UserError as error:
                wrong.add(str(error))
        if len(wrong) == 1 and (line := wrong.pop()):
            raise UserError(line)

    @property
    def are_benchmarks(self) -> bool:
        return bool(self.config.hydra.job.config_name == BENCHMARK_SCHEMA.config_name)

    @property
    def schema(self) -> Schema:
        return BENCHMARK_SCHEMA if self.are_benchmarks else TRAINING_SCHEMA

    def record(self) -> None:
        """Write what the sweep was started with, by which `resume=` recognises it."""
        self.sweep.record(self.config)


def compose_job(config_loader: ConfigLoader, sweep: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """Raise UserError unless the name of the job's folder begins with its number, which tells jobs apart."""
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


def plain(config: Any) -> dict[str, Any]:
    return {str(name): value for name, value in OmegaConf.to_container(config).items()}  # type: ignore[union-attr]


def compared(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity(config).items() if not has_prefix(name, NO_PART_OF_A_JOB)}
