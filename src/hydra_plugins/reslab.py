"""Registers ResLab's sweepers and launchers with Hydra, which accepts them from this package only.

Hydra imports this file at every start, so the modules behind it import torch, Optuna, submitit and Ray only when used.
"""

from typing import Any

from hydra.core.config_store import ConfigStore

from reslab.sweeps import sweepers
from reslab.sweeps.launchers import parallel, ray, slurm


class GridSweeper(sweepers.GridSweeper):
    """hydra/sweeper=basic"""


class OptunaSweeper(sweepers.OptunaSweeper):
    """hydra/sweeper=optuna"""


class ParallelLauncher(parallel.ParallelLauncher):
    """hydra/launcher=parallel"""


class RayLauncher(ray.RayLauncher):
    """hydra/launcher=ray"""


class SlurmLauncher(slurm.SlurmLauncher):
    """hydra/launcher=slurm"""


# The grid replaces Hydra's default sweeper. If conf/config.yaml chose it, an experiment could not choose another one.
GRID: dict[str, Any] = {"_target_": f"{__name__}.GridSweeper", "max_batch_size": None, "params": {}}
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=GRID, provider="reslab")
