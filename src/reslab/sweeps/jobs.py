"""The jobs of a sweep that goes on: those that have ended are left out, those that were cut off are resumed."""

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

from reslab.errors import UserError
from reslab.files import write_text
from reslab.options import OPTIONS, check_together, checked_values
from reslab.resuming import ENDED, OVERRIDES, SWEEP_FILE, differences, quoted, read_result


@dataclass
class Job:
    """One that is to be launched: its overrides (with `resume=` where its folder exists), folder and configuration."""

    number: int
    overrides: list[str]
    folder: Path
    config: DictConfig


class JobLauncher(Launcher):
    """A launcher that is given composed jobs, of any numbers, at once; Hydra's are given overrides."""

    config_loader: ConfigLoader
    config: DictConfig

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """For a sweeper that is not of this project."""
        numbered = enumerate(job_overrides, initial_job_idx)
        return self.launch_jobs([compose_job(self.config_loader, self.config, *each) for each in numbered])

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        raise NotImplementedError


class SweepJobs:
    """Gives a launcher the jobs of a sweep that have not ended; what a job comes to stands in its result.json."""

    def __init__(self, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Writes where the sweep lies into its settings: named by the time, it is the same in every process."""
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")
        self.config_loader, self.config = hydra_context.config_loader, config
        self.folder = Path(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def run(self, numbered: Mapping[int, list[str]]) -> dict[int, dict[str, Any]]:
        """The result of each job. Raises UserError, before any is launched, for a folder of another configuration."""
        jobs = [self.compose(*each) for each in numbered.items()]
        left = [job for job in jobs if not has_ended(job.folder, job.config)]
        self.check(left)
        for job in left:
            if (job.folder / OVERRIDES).is_file():
                job.overrides = [*job.overrides, f"resume={quoted(job.folder)}"]
        if left and isinstance(self.launcher, JobLauncher):
            self.launcher.launch_jobs(left)
        else:
            for group in adjoining(left):
                self.launcher.launch([job.overrides for job in group], initial_job_idx=group[0].number)
        return {job.number: read_result(job.folder) for job in jobs}

    def compose(self, number: int, overrides: Sequence[str]) -> Job:
        return compose_job(self.config_loader, self.config, number, overrides)

    def check(self, jobs: list[Job]) -> None:
        """Raises UserError for a value that is wrong by itself, in any job, or beside the same others in all of them.

        What is wrong beside others in some jobs is left to these: the others may do without it.
        """
        name = self.config.hydra.job.config_name
        wrong: set[str | None] = set()
        for job in jobs:
            config = job.config.copy()
            if "folder" in config:  # which Hydra tells a run when it begins
                config.folder = str(job.folder)
            values = checked_values(config, name if name in OPTIONS else "config")
            try:
                check_together(values)
                wrong.add(None)
            except UserError as error:
                wrong.add(str(error))
        if len(wrong) == 1 and (line := wrong.pop()):
            raise UserError(line)

    def record(self) -> None:
        """multirun.yaml, as Hydra's own sweeper writes it, which `resume=` knows a sweep by."""
        write_text(self.folder / SWEEP_FILE, OmegaConf.to_yaml(self.config))


def compose_job(config_loader: ConfigLoader, sweep: DictConfig, number: int, overrides: Sequence[str]) -> Job:
    """Raises UserError where a sweep names its jobs' folders otherwise than `<number>_…`, which tells them apart."""
    config = config_loader.load_sweep_config(sweep, list(overrides))
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
        sweep_folder, name = config.hydra.sweep.dir, str(config.hydra.sweep.subdir)
        del config["hydra"]
    if name.partition("_")[0] != str(number) or "/" in name:
        raise UserError(f"hydra.sweep.subdir={name} must be ${{hydra.job.num}}, or begin with ${{hydra.job.num}}_")
    return Job(number, list(overrides), Path(sweep_folder, name), config)


def adjoining(jobs: list[Job]) -> list[list[Job]]:
    """Groups whose numbers follow each other."""
    groups: list[list[Job]] = []
    for job in jobs:
        if groups and groups[-1][-1].number + 1 == job.number:
            groups[-1].append(job)
        else:
            groups.append([job])
    return groups


def has_ended(folder: Path, config: DictConfig) -> bool:
    """Raises UserError where the folder's run has another configuration."""
    try:
        saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
    except (OSError, yaml.YAMLError):
        return False
    if not saved:  # killed while it was written; its checkpoint has the configuration too
        return False
    beside = {"resume": None, "sweep": None}  # of which the result is no function
    then, now = (OmegaConf.to_container(OmegaConf.merge(each, beside)) for each in (saved, config))
    if different := differences(then, now):
        raise UserError(f"{folder} was another job: {'; '.join(different)}; start a new sweep instead")
    return then == now and read_result(folder)["status"] in ENDED
