import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf
from outcomes import read_events
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter, summary

from reslab.configuration import to_dict
from reslab.reports.settings import comparable_settings
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
    assert settings["loss"].string_value == "cross_entropy"
    assert not [name for name in settings if "last_checkpoint" in name or "folder" in name]


def test_the_settings_are_all_that_a_result_depends_on(composed):
    config = composed("loss=focal", "callbacks=[ema,early_stopping]", "trainer.gradient_clip_val=1", "threads=1")
    settings = hparams.run_settings(to_dict(config, resolve=True))
    compared = comparable_settings(to_dict(config, resolve=True))
    renamed = {"model.name": "model", "data.name": "data"}  # reports call them so
    of_runs = {"seed", "threads"}  # reports tell them apart otherwise
    names = {renamed.get(name, name) for name in settings} - of_runs
    of_other_choices = {"data.on_error", "optimizer.eps"}  # reports give older runs options that they did not have
    assert names | {"trainer"} == set(compared) - of_other_choices | {"data.root", "data.num_workers"}
    assert (settings["loss"], settings["loss.gamma"]) == ("focal", 2)
    assert settings["callbacks.ema.decay"] == config.callbacks.ema.decay
    assert settings["callbacks.early_stopping.patience"] == 10
    assert settings["trainer.gradient_clip_val"] == settings["trainer.accumulate_grad_batches"] == 1
    assert settings["compile"] is False
    order = [*settings]
    last_group = max(order.index(name) for name in settings if name.startswith(("model", "data", "optimizer", "loss")))
    assert last_group < order.index("callbacks.ema.decay")


@pytest.mark.parametrize(
    "override", ["loss.gamma=3", "callbacks.ema.decay=0.9", "callbacks.early_stopping.patience=3", "compile=true",
                 "trainer.limit_train_batches=3", "trainer.accumulate_grad_batches=2", "threads=2"]
)  # fmt: skip
def test_jobs_that_differ_have_other_settings(composed, override):
    one, other = (
        hparams.run_settings(composed("loss=focal", "callbacks=[ema,early_stopping]", *more))
        for more in ((), (override,))
    )
    name, _, value = override.partition("=")
    assert {each for each in one.keys() | other.keys() if one.get(each) != other.get(each)} == {name}
    assert str(other[name]).lower() == value


def test_what_varies_is_in_every_job_also_where_it_is_null(composed, tmp_path, monkeypatch):
    """TensorBoard takes the names of the settings from one job."""
    overrides = ["callbacks=default", "trainer.gradient_clip_val=null", "+data.mean=[0.1]", "page=false", "loss=focal"]
    monkeypatch.setattr(HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(hparams, "varied_overrides", lambda: overrides)
    with SummaryWriter(tmp_path) as writer:
        hparams.add_hparams(writer, to_dict(composed(*overrides[:2], overrides[4])), {"result/val/loss": 0.5}, 3)
    events = read_events(tmp_path)
    infos = plugin_data(events, "experiment").experiment.hparam_infos
    assert {info.name for info in infos if info.differs} == {
        "callbacks",
        "trainer.gradient_clip_val",
        "data.mean",
        "loss",
    }
    settings = plugin_data(events, "session_start_info").session_start_info.hparams
    assert settings["callbacks"].string_value == "default"
    assert settings["trainer.gradient_clip_val"].string_value == "null"


def test_only_what_no_setting_says_is_taken_from_the_command_line():
    settings = {"model.name": "resnet8", "loss": "focal", "callbacks.mine": "Mine"}
    said = ["model=resnet8", "loss=focal", "+callbacks.mine._target_=my.Mine", "~callbacks.ema", "page=false",
            "callbacks=ema", "++data.class_weights=null"]  # fmt: skip
    chosen = {"callbacks": "ema", "data.class_weights": "null"}
    assert hparams.varied_choices(settings, said) == chosen


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
    assert hparams.plain_settings({"root": "\udcffx", "of": {1: 2}}) == {"root": "?x", "of.1": 2}
