import itertools

import pytest
from hydra.core.config_loader import ConfigLoader
from omegaconf import OmegaConf, open_dict

from reslab.configuration import to_dict
from reslab.sweeps.composition import Composer

SWEPT = {
    "a grid of values": ["model=resnet8", "seed=1,2", "optimizer.lr=0.1,1e-05", "test=true,false"],
    "groups and values": ["model=resnet8,resnet14", "optimizer=sgd,adamw", "seed=1,2"],
    "text, null, lists": [
        "trainer.max_time=null,'00:01:00:00'",
        "objective=val/loss,[val/accuracy]",
        "data.batch_size=3,${seed}",
    ],
    "one within another": ["data.augment.crop=1,2", "data.augment=null,{crop: 3}"],
    "additions": ["+trainer.max_depth=1,2", "++seed=3,4"],
}


def composed_by_hydra(context, sweep, number, overrides):
    config = context.config_loader.load_sweep_config(sweep, list(overrides))
    with open_dict(config):
        config.hydra.job.num = number
    return config.hydra.sweep.subdir, {name: value for name, value in to_dict(config).items() if name != "hydra"}


@pytest.mark.slow
@pytest.mark.parametrize("swept", SWEPT.values(), ids=SWEPT)
def test_a_job_is_what_hydra_composes_for_it_alone(sweep_config, swept):
    context, sweep = sweep_config()
    composer = Composer(context.config_loader, sweep)
    choices = [
        [f"{name}={value}" for value in values.split(",")] for name, _, values in (s.partition("=") for s in swept)
    ]
    for number, overrides in enumerate(itertools.product(*choices)):
        job = composer.compose(number, overrides)
        assert (job.folder.name, job.options) == composed_by_hydra(context, sweep, number, overrides)
        assert job.config == OmegaConf.create(job.options)


@pytest.mark.slow
def test_jobs_that_differ_in_values_only_are_composed_once(sweep_config, monkeypatch):
    context, sweep = sweep_config()
    loader, composed = context.config_loader, []
    load = type(loader).load_sweep_config
    monkeypatch.setattr(
        type(loader), "load_sweep_config", lambda self, *each: composed.append(each[1]) or load(self, *each)
    )
    assert isinstance(loader, ConfigLoader)
    composer = Composer(loader, sweep)
    jobs = [
        composer.compose(number, [f"model=resnet{8 + 6 * (number % 2)}", f"optimizer.lr={number + 1}", "test=false"])
        for number in range(50)
    ]
    assert composed == []  # nothing is composed before it is needed
    assert [job.config.optimizer.lr for job in jobs] == list(range(1, 51))
    assert [job.config.model.name for job in jobs] == ["resnet8", "resnet14"] * 25
    assert composed == [
        ["model=resnet8", "optimizer.lr=1", "test=false"],
        ["model=resnet14", "optimizer.lr=2", "test=false"],
    ]
