import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import summary

from reslab.training import ending, hparams


def varied(monkeypatch, folder, mode, asked, job, params=None):
    record = {"hydra": {"overrides": {"hydra": [], "task": asked}, "sweeper": {"params": params}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(record))
    config = OmegaConf.create({"mode": mode, "sweep": {"dir": str(folder)}})
    monkeypatch.setattr(HydraConfig, "get", lambda: config)
    monkeypatch.setattr(hparams, "task_overrides", lambda: job)
    return hparams.varied_overrides()


def test_only_what_the_sweep_varies_is_shown_first(monkeypatch, tmp_path):
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


def plugin_data(events, tag):
    return HParamsPluginData.FromString(events.PluginTagToContent("hparams")[f"_hparams_/{tag}"])


def test_hparams_show_the_final_metrics(events, trained):
    tags = [info.name.tag for info in plugin_data(events, "experiment").experiment.metric_infos]
    assert tags == [f"result/{name}" for name in ending.HPARAMS_METRICS]  # and no hp_metric
    for tag in tags:
        ((step, value),) = ((event.step, event.value) for event in events.Scalars(tag))
        assert (step, value) == (80, pytest.approx(trained.result[tag.removeprefix("result/")]))
    assert plugin_data(events, "session_end_info").HasField("session_end_info")


def test_hparams_show_the_settings(events, trained):
    settings = plugin_data(events, "session_start_info").session_start_info.hparams
    assert settings["optimizer"].string_value == "SGD"
    assert settings["optimizer.lr"].number_value == trained.config.optimizer.lr
    assert settings["trainer.max_epochs"].number_value == 4
    assert settings["model.layers"].string_value == "[1, 1, 1]"
    assert settings["seed"].number_value == 42
    assert settings["mixup"].number_value == settings["cutmix"].number_value == 0.0
    assert not [name for name in settings if "checkpoint" in name or "folder" in name]


def test_settings_of_the_command_line_are_shown_first():
    settings = {
        "data.name": "digits",
        "model": "ResNet",
        "model.name": "resnet8",
        "optimizer": "SGD",
        "optimizer.lr": 1,
    }
    experiment, _, _ = summary.hparams(settings, {})
    hparams.mark_as_varied(experiment, ["model=resnet8", "++optimizer.lr=1", "trainer=cpu", "~callbacks.ema"])
    infos = HParamsPluginData.FromString(experiment.value[0].metadata.plugin_data.content).experiment.hparam_infos
    assert {info.name: info.differs for info in infos} == {
        "data.name": False, "model": False, "model.name": True, "optimizer": False, "optimizer.lr": True,
    }  # fmt: skip


def test_plain_settings():
    nested = {"a": {"_target_": "pkg.Class", "_partial_": True, "lr": 0.1, "none": None}, "list": [1, 2], "on": False}
    assert hparams.plain_settings(nested) == {"a": "Class", "a.lr": 0.1, "list": "[1, 2]", "on": False}
    assert hparams.plain_settings({"root": "\udcffx"}) == {"root": "?x"}
