import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from reslab.training import hparams


def varied(monkeypatch, folder, mode, asked, job, params=None):
    record = {"hydra": {"overrides": {"hydra": [], "task": asked}, "sweeper": {"params": params}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(record))
    config = OmegaConf.create({"mode": mode, "sweep": {"dir": str(folder)}})
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    monkeypatch.setattr(hparams, "task_overrides", lambda: job)
    return hparams.varied_overrides()


def test_only_what_the_sweep_varies_is_shown_first(monkeypatch, tmp_path):
    from hydra.types import RunMode

    asked = ["model=resnet8,resnet20", "trainer.max_epochs=2", "+optimizer.eps=choice(0.1,0.2)"]
    job = ["model=resnet20", "trainer.max_epochs=2", "+optimizer.eps=0.2", "seed=3"]
    sweep = RunMode.MULTIRUN
    assert varied(monkeypatch, tmp_path, sweep, asked, job) == ["model=resnet20", "+optimizer.eps=0.2"]
    assert varied(monkeypatch, tmp_path, sweep, ["model=a"], job, {"seed": "1,2"}) == ["seed=3"]
    assert varied(monkeypatch, tmp_path, sweep, ["model=a"], job) == job  # nothing is known to vary
    assert varied(monkeypatch, tmp_path, RunMode.RUN, asked, job) == job
    (tmp_path / "multirun.yaml").write_text("[")
    monkeypatch.setattr(HydraConfig, "get", lambda: OmegaConf.create({"mode": sweep, "sweep": {"dir": str(tmp_path)}}))
    assert hparams.varied_overrides() == job
