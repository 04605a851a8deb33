"""hydra/sweeper=basic, optuna. Hydra imports this file at every start, so what they need comes when they are used."""

from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reslab.errors import UserError
from reslab.options import as_list
from reslab.sweeps.jobs import SweepJobs, pin_folder


class GridSweeper(BasicSweeper):
    """Hydra's own, which goes on in a folder that has jobs already.

    max_batch_size: jobs that the launcher is given at once, None for all; params: lists beside those of the command
    line, e.g. {seed: "1,2"}.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pin_folder(config)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        assert self.launcher is not None
        self.launcher = SweepJobs(self.launcher, hydra_context, config)

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list[list[str]]]:
        for override in overrides:
            if override.is_interval_sweep():
                raise UserError(f"{override.input_line} has no end of values: hydra/sweeper=optuna searches intervals")
        return BasicSweeper.split_arguments(overrides, max_batch_size)


# in the place of Hydra's default; were it chosen in conf/config.yaml, no experiment could choose another
GRID: dict[str, Any] = {"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": {}}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GRID, provider="reslab")


class OptunaSweeper(Sweeper):
    """See conf/hydra/sweeper/optuna.yaml for the options."""

    def __init__(self, params: dict[str, Any], **options: Any) -> None:
        self.params, self.options = params, options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        pin_folder(config)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.config_loader, self.config = hydra_context.config_loader, config
        self.jobs = SweepJobs(launcher, hydra_context, config)

    def sweep(self, arguments: list[str]) -> None:
        from reslab.sweeps.search import Search, check_space, read_space

        assert self.config is not None
        lines = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        fixed, space = read_space(lines, self.config_loader)
        check_space(self.jobs, fixed, space)
        self.jobs.record()
        folder, objectives = Path(self.config.hydra.sweep.dir), as_list(self.config.objective)
        Search(folder, fixed, space, objectives, **self.options).run(self.jobs)
