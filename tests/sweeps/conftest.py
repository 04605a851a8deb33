"""What the tests of sweeps share: the jobs of a real configuration."""

import pytest
from conftest import CONF
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext

from reslab.sweeps.jobs import SweepJobs


@pytest.fixture
def sweep_config(tmp_path):
    """A function that composes the configuration of a sweep in `tmp_path / "sweep"`, and Hydra's context for it."""

    def make(*overrides):
        place = f"hydra.sweep.dir='{tmp_path / 'sweep'}'"
        config = compose("config", [place, "hydra.mode=MULTIRUN", *overrides], return_hydra_config=True)
        return HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=None), config

    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield make


@pytest.fixture
def sweep_jobs(sweep_config):
    """A function that makes the jobs of a sweep, which a given launcher launches."""

    def make(launcher=None, *overrides):
        context, config = sweep_config(*overrides)
        jobs = SweepJobs(context, None, config)
        jobs.launcher = launcher
        return jobs

    return make
