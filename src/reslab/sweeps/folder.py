"""A sweep's folder: how it is recognised, what it was started with, and its jobs."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from reslab.files import LOCK, remove_empty_folders, write_json, write_text
from reslab.run import SETTINGS_ERRORS, SWEEP_FILE, Run, read_yaml, sweep_arguments
from reslab.training.options import RUN


class Sweep:
    """One sweep, read from its folder, which holds a folder for each job: `<number>_<overrides>`."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.record_file = self.folder / SWEEP_FILE

    @property
    def exists(self) -> bool:
        return self.record_file.is_file()

    @property
    def arguments(self) -> list[str]:
        """The overrides that the sweep was started with. Raise one of `reslab.run.SETTINGS_ERRORS`."""
        return sweep_arguments(self.folder)

    @property
    def jobs(self) -> list[Run]:
        """The jobs that have begun."""
        runs = (Run(folder) for folder in self.folder.glob("[0-9]*"))
        return [run for run in runs if run.hydra_folder.is_dir()]

    def jobs_by_number(self) -> dict[int, list[Run]]:
        """Return the jobs that have begun by their numbers. One number has two folders if other options named them."""
        found: dict[int, list[Run]] = {}
        for run in self.jobs:
            number = run.folder.name.partition("_")[0]
            if number.isdecimal():
                found.setdefault(int(number), []).append(run)
        return found

    @property
    def storage(self) -> str | None:
        """The URL of the database of a search; None for the one in the folder. It may hold a password."""
        url: str | None = OmegaConf.select(OmegaConf.load(self.record_file), "hydra.sweeper.storage")
        return url

    @property
    def outputs(self) -> object:
        """The folder of all runs when the sweep began; None if it is not known."""
        try:
            return read_yaml(self.record_file).get("outputs")
        except (*SETTINGS_ERRORS, AttributeError):
            return None

    @property
    def threads(self) -> int | None:
        """The number of threads of each job; None for a new sweep and one of an older version, and if it is wrong."""
        try:
            number = read_yaml(self.record_file).get("threads")
        except (*SETTINGS_ERRORS, AttributeError):
            return None
        return number if RUN["threads"].allows(number) else None

    def write_record(self, config: DictConfig) -> None:
        """Write what the sweep was started with, as Hydra's own sweeper does."""
        write_text(self.record_file, OmegaConf.to_yaml(config))

    def write_result(self, status: str, jobs: int, failed: int) -> None:
        """Write how the sweep ended; `resume=auto` looks for one that has not finished."""
        write_json(Run(self.folder).result_file, {"status": status, "jobs": jobs, "failed": failed})

    def remove_unused(self, outputs: Path) -> None:
        """Remove the folder of a sweep that was refused before its first job, unless it holds other files.

        The empty folders between it and the one of all runs, `outputs`, are removed too.
        """
        for name in (self.record_file.name, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        remove_empty_folders(self.folder, outputs)
