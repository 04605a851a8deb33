"""What TensorBoard's tab of hyperparameters shows: the settings that runs may differ in, and their final metrics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from reslab.configuration import has_prefix, name_of, parsed, task_overrides
from reslab.run import SETTINGS_ERRORS, SWEEP_FILE, WITHOUT_EFFECT, read_yaml, sweep_arguments

Settings = Mapping[str, str | int | float | bool]

# The settings that come first. The groups among them are complete.
FIRST = (
    "model", "data", "optimizer", "scheduler", "loss", "seed", "label_smoothing", "mixup", "cutmix", "flip_averaging",
    "trainer.max_epochs", "trainer.max_steps", "trainer.precision",
)  # fmt: skip


def run_settings(config: Mapping[str, Any]) -> Settings:
    """Return the settings of a configuration by their dotted names, without those that have no effect on a result."""
    settings = plain_settings(config)
    settings.pop("trainer", None)  # its class; the option stands for one of its presets
    first = {name: value for name, value in settings.items() if has_prefix(name, FIRST)}
    return first | {name: value for name, value in settings.items() if not has_prefix(name, WITHOUT_EFFECT)}


def varied_choices(settings: Settings, overrides: Sequence[str]) -> Settings:
    """Return what the command line chooses where no setting says it: a group's file, or null.

    Example:
        >>> varied_choices({"loss": "focal"}, ["loss=focal", "callbacks=ema", "trainer.gradient_clip_val=null"])
        {'callbacks': 'ema', 'trainer.gradient_clip_val': 'null'}
    """
    texts = {name_of(override).lstrip("+"): override.partition("=")[2] for override in overrides}
    return {
        name: plain_text(text)
        for name, text in texts.items()
        if text and not has_prefix(name, WITHOUT_EFFECT) and not name.endswith("._target_")
        and not settings.keys() & {name, f"{name}.name"}
    }  # fmt: skip


def add_hparams(writer: SummaryWriter, config: Mapping[str, Any], result: Mapping[str, float], step: int) -> None:
    """Fill TensorBoard's hparams tab with the settings of a run and the metrics of the result.

    The tab shows the last value of a tag, so the metrics need tags of their own: the last value of val/accuracy is not
    the best one. For all jobs of a sweep, it shows only the settings that one of them has, so each job has what varies,
    also where that is null.
    """
    for name, value in result.items():
        writer.add_scalar(name, value, step)
    varied = varied_overrides() if HydraConfig.initialized() else []
    settings = run_settings(config)
    experiment, *session = hparams({**settings, **varied_choices(settings, varied)}, dict(result))
    mark_as_varied(experiment, varied)
    for summary in (experiment, *session):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # add_scalar has opened it
    writer.flush()


def varied_overrides() -> list[str]:
    """Return the overrides of a job that its sweep varies; of a single run, and of a sweep that says nothing, all."""
    overrides, job = task_overrides(), HydraConfig.get()
    if job.mode != RunMode.MULTIRUN:
        return overrides
    try:
        folder = Path(job.sweep.dir)
        asked = [parsed(each) for each in sweep_arguments(folder)]
        params = read_yaml(folder / SWEEP_FILE)["hydra"]["sweeper"].get("params") or {}
    except SETTINGS_ERRORS:
        return overrides
    swept = {each.key_or_group for each in asked if each is not None and each.is_sweep_override()}
    swept |= params.keys()
    return [each for each in overrides if name_of(each).lstrip("+") in swept] or overrides


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
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | bool) else plain_text(value)
    return flat


def plain_text(value: object) -> str:
    """Return a value as text for TensorBoard, which refuses a path with bytes that are no text."""
    return str(value).encode(errors="replace").decode()
