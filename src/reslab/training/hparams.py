"""What TensorBoard's tab of hyperparameters shows: the settings that runs may differ in, and their final metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from reslab.configuration import name_of, task_overrides

Settings = Mapping[str, str | int | float | bool]


def run_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration that a sweep may vary, by their dotted names."""
    settings = {group: config[group] for group in ("model", "data", "optimizer", "scheduler")}
    settings |= {name: config[name] for name in ("seed", "label_smoothing", "mixup", "cutmix", "flip_averaging")}
    settings["trainer"] = {name: config["trainer"][name] for name in ("max_epochs", "max_steps", "precision")}
    return plain_settings(settings)


def add_hparams(writer: SummaryWriter, config: Mapping[str, Any], result: Mapping[str, float], step: int) -> None:
    """Fill TensorBoard's hparams tab with the settings that a sweep may vary and the metrics of the result.

    The tab shows the last value of a tag, so the metrics need tags of their own: the last value of val/accuracy is not
    the best one.
    """
    for name, value in result.items():
        writer.add_scalar(name, value, step)
    experiment, *session = hparams(dict(run_settings(config)), dict(result))
    if HydraConfig.initialized():
        mark_as_varied(experiment, task_overrides())
    for summary in (experiment, *session):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # add_scalar has opened it
    writer.flush()


def mark_as_varied(experiment: Any, overrides: Sequence[str]) -> None:
    """Mark the settings of the command line as different between runs.

    The tab shows only five settings at first: the marked ones, and then the others in alphabetical order.
    """
    plugin_data = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    settings = {setting.name: setting for setting in content.experiment.hparam_infos}
    for name in (name_of(override).lstrip("+") for override in overrides):
        if setting := settings.get(f"{name}.name", settings.get(name)):
            setting.differs = True
    plugin_data.content = content.SerializeToString()


def plain_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return settings by their dotted names: a class as its name, a list as text, without those that are null."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= plain_settings(value, f"{prefix}{key}.")
        elif key == "_target_":
            flat[prefix.removesuffix(".")] = value.rpartition(".")[2]
        elif value is not None and key != "_partial_":
            # TensorBoard refuses a path with bytes that are no text.
            text = str(value).encode(errors="replace").decode()
            flat[prefix + key] = value if isinstance(value, int | float | bool) else text
    return flat
