"""hydra/sweeper=basic, optuna. Hydra imports this file at every start, so what they need comes when they are used."""

from collections.abc import Mapping
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reslab.errors import UserError
from reslab.files import FolderInUseError, sole_user
from reslab.options import NULL, SEARCH, as_list, check_option, whole
from reslab.sweeps.jobs import SweepJobs
from reslab.sweeps.summary import Summary


class ResumableSweeper(Sweeper):
    """Goes on in a folder that has jobs already. `params` are overrides beside those of the command line."""

    def __init__(self, params: dict[str, Any], **options: Any) -> None:
        self.params, self.options = params, options
        if nested := [name for name, value in params.items() if isinstance(value, Mapping)]:
            raise UserError(f"hydra.sweeper.params takes {nested[0]}.<option> as one name, not {nested[0]}: {{…}}")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader = hydra_context.config_loader
        self.jobs = SweepJobs(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        lines = [*(f"{name}={value}" for name, value in self.params.items()), *arguments]
        try:
            with sole_user(self.jobs.folder):
                self.run(lines)
        except FolderInUseError:
            Summary.folder = None  # another process tells of it
            raise

    def run(self, lines: list[str]) -> None:
        raise NotImplementedError


class GridSweeper(ResumableSweeper):
    """All combinations, as Hydra's own; the launcher is given max_batch_size jobs at once, None for all."""

    def run(self, lines: list[str]) -> None:
        check_option("hydra.sweeper.max_batch_size", size := self.options["max_batch_size"], whole(1) | NULL)
        overrides = OverridesParser.create(config_loader=self.config_loader).parse_overrides(lines)
        for override in overrides:
            if override.is_interval_sweep():
                raise UserError(f"{override.input_line} has no end of values: hydra/sweeper=optuna searches intervals")
            if override.is_sweep_override() and not list(override.sweep_iterator()):
                raise UserError(f"{override.input_line} has no values")
        batches = BasicSweeper.split_arguments(overrides, size)
        Summary.planned = sum(map(len, batches))
        self.jobs.record()
        number = 0
        for batch in batches:
            self.jobs.run(dict(enumerate(batch, number)))
            number += len(batch)


# in the place of Hydra's default; were it chosen in conf/config.yaml, no experiment could choose another
GRID: dict[str, Any] = {"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": {}}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GRID, provider="reslab")


class OptunaSweeper(ResumableSweeper):
    """See conf/hydra/sweeper/optuna.yaml for the options."""

    def run(self, lines: list[str]) -> None:
        from reslab.sweeps.search import Search, check_space, read_space

        if unknown := sorted(self.options.keys() - SEARCH.keys()):
            raise UserError(f"there is no option hydra.sweeper.{unknown[0]}: {', '.join(SEARCH)}")
        fixed, space = read_space(lines, self.config_loader)
        check_space(self.jobs, fixed, space)
        self.jobs.record()
        objectives = as_list(self.jobs.config.objective)
        search = Search(self.jobs.folder, fixed, space, objectives, **self.options)
        Summary.planned = search.trials
        search.run(self.jobs)
