"""The jobs of a sweep that goes on: those that have ended are left out, those that were cut off are resumed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from reslab.errors import UserError
from reslab.files import write_text
from reslab.resuming import SWEEP_FILE, differences, quoted, read_result

ENDED = ("finished", "pruned")


def pin_folder(config: DictConfig) -> None:
    """The sweep's folder, named by the time, is the same one in whatever process a launcher composes a job."""
    config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(config.hydra.sweep.dir)}")


class SweepJobs(Launcher):
    """Gives a launcher the jobs that have not ended, with `resume=` where their folder exists.

    What a job comes to stands in its result.json, so it is not returned. Raises UserError, before any job is
    launched, for a folder of another configuration.
    """

    def __init__(self, launcher: Launcher, hydra_context: HydraContext, config: DictConfig) -> None:
        self.launcher, self.config_loader, self.config = launcher, hydra_context.config_loader, config

    def setup(self, **kwargs: Any) -> None:
        """The launcher within has been set up."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        self.run({number: list(overrides) for number, overrides in enumerate(job_overrides, initial_job_idx)})
        return []

    def run(self, jobs: Mapping[int, list[str]]) -> None:
        """Those with adjoining numbers are launched together."""
        groups: list[tuple[int, list[list[str]]]] = []
        for number, overrides in jobs.items():
            folder, config = self.composed(number, overrides)
            if has_ended(folder, config):
                continue
            going_on = [*overrides, f"resume={quoted(folder)}"] if (folder / ".hydra").is_dir() else overrides
            if groups and groups[-1][0] + len(groups[-1][1]) == number:
                groups[-1][1].append(going_on)
            else:
                groups.append((number, [going_on]))
        for first, group in groups:
            self.launcher.launch(group, initial_job_idx=first)

    def composed(self, number: int, overrides: list[str]) -> tuple[Path, DictConfig]:
        """A job's folder and its configuration."""
        config = job_config(self.config_loader, self.config, number, overrides)
        folder = job_folder(config)
        with open_dict(config):
            del config["hydra"]
        return folder, config

    def result(self, number: int, overrides: list[str]) -> dict[str, Any]:
        """What a job left in its result.json; only a status where it left none."""
        return read_result(self.composed(number, overrides)[0])

    def record(self) -> None:
        """multirun.yaml, as Hydra's own sweeper writes it, which `resume=` knows a sweep by."""
        write_text(Path(self.config.hydra.sweep.dir) / SWEEP_FILE, OmegaConf.to_yaml(self.config))


def job_config(config_loader: ConfigLoader, sweep: DictConfig, number: int, overrides: list[str]) -> DictConfig:
    """Of job `number` of a sweep, Hydra's own settings with it."""
    config = config_loader.load_sweep_config(sweep, overrides)
    with open_dict(config):
        config.hydra.job.id = config.hydra.job.num = number
    return config


def job_folder(config: DictConfig) -> Path:
    return Path(config.hydra.sweep.dir, config.hydra.sweep.subdir)


def has_ended(folder: Path, config: DictConfig) -> bool:
    saved = folder / ".hydra" / "config.yaml"
    if not saved.is_file():
        return False
    then, now = ({**as_dict(each), "resume": None} for each in (OmegaConf.load(saved), config))
    if different := differences(then, now):
        raise UserError(f"{folder} was another job: {'; '.join(different)}; start a new sweep instead")
    return then == now and read_result(folder)["status"] in ENDED


def as_dict(config: Any) -> dict[str, Any]:
    return OmegaConf.to_container(config)  # type: ignore[return-value]
