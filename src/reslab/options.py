"""What each option may be: one table, by which a composed configuration is checked before torch is imported."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from reslab.errors import CONF, UserError, nodes, suggest


@dataclass(frozen=True)
class Kind:
    """What an option may be, as a test of its value and in the words that follow "must be"."""

    words: str
    allows: Callable[[Any], bool]

    def __or__(self, other: "Kind") -> "Kind":
        return Kind(f"{self.words} or {other.words}", lambda value: self.allows(value) or other.allows(value))


def whole(least: int, most: int = 2**31 - 1) -> Kind:
    words = f"of at least {least}, below 2**31" if most == 2**31 - 1 else f"from {least} to {most}"
    return Kind(f"a whole number {words}", lambda value: type(value) is int and least <= value <= most)


def number(within: str, fits: Callable[[float], bool]) -> Kind:
    return Kind(
        f"a number {within}", lambda value: type(value) in (int, float) and math.isfinite(value) and fits(value)
    )


def one_of(*values: Any) -> Kind:
    words = ", ".join(map(shown, values))
    return Kind(
        f"one of {words}" if len(values) > 1 else words,
        lambda given: any(type(given) is type(value) and given == value for value in values),  # 1 is not true
    )


def list_of(kind: Kind, *lengths: int) -> Kind:
    """Of one of these lengths; none: of any but 0."""
    count = " or ".join(map(str, lengths)) or "one or more"

    def allows(value: Any) -> bool:
        fits = isinstance(value, list) and (len(value) in lengths if lengths else len(value) > 0)
        return fits and all(map(kind.allows, value))

    return Kind(f"a list of {count}, each {kind.words}", allows)


def one_or_list(kind: Kind) -> Kind:
    return Kind(f"{kind.words}, or a list of these", (kind | list_of(kind)).allows)


def as_list(value: Any) -> list[Any]:
    """Of an option that is one value or a list."""
    return list(value) if isinstance(value, list | ListConfig) else [value]


def shown(value: Any) -> str:
    """As it is written on the command line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


NULL = one_of(None)
TRUE_OR_FALSE = Kind("true or false", lambda value: isinstance(value, bool))
NAME = Kind("text (a number in quotes: \"'7'\")", lambda value: isinstance(value, str) and value.strip() != "")
TEXT = NAME | one_of("")
PATH = Kind("a path (a number in quotes: \"'2024'\")", NAME.allows)
GROUP = Kind("a group of options", lambda value: isinstance(value, dict))
POSITIVE = number("above 0", lambda value: value > 0)
NOT_NEGATIVE = number("of at least 0", lambda value: value >= 0)
ALPHA = number("of at least 0.001, or 0", lambda value: value >= 1e-3 or value == 0)  # torch draws from no tiny one
FRACTION = number("from 0 to 1", lambda value: 0 <= value <= 1)
PART = number("from 0 to less than 1", lambda value: 0 <= value < 1)
SHARE = number("above 0 and up to 1", lambda value: 0 < value <= 1)
BATCHES = whole(1) | Kind(  # 1 is one batch, 1.0 all
    "a fraction above 0.0 and up to 1.0", lambda value: isinstance(value, float) and 0 < value <= 1
)
NO_BATCHES = one_of(0, 0.0)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
VALIDATION = ("val/accuracy", "val/loss", "val/top5_accuracy")
TEST = ("test/accuracy", "test/loss", "test/top5_accuracy", "test/f1_macro", "test/calibration_error")
TRAINING = ("train/accuracy", "train/loss", "train/top5_accuracy", "train/seconds", "train/images_per_second")

MODEL = {
    "model.name": NAME,
    "model.block": one_of("basic", "bottleneck"),
    "model.layers": list_of(whole(0)),
    "model.widths": list_of(whole(1)),
    "model.stem": one_of("auto", "imagenet", "deep", "cifar", "halving", "none"),
    "model.stem_width": whole(1) | NULL,
    "model.shortcut": one_of("A", "B", "C", "D", "none"),
    "model.preactivation": TRUE_OR_FALSE,
    "model.downsampling": one_of("stride", "pool"),
    "model.groups": whole(1),
    "model.width_per_group": whole(1),
    "model.squeeze_excitation": TRUE_OR_FALSE,
    "model.dropout": PART,
    "model.stochastic_depth": PART,
    "model.zero_init_residual": TRUE_OR_FALSE,
    "model.whiten_stem": TRUE_OR_FALSE,
    "model.weights": PATH | NULL,
    "model.freeze": TRUE_OR_FALSE | whole(1),
    "model.timm_name": NAME,
    "model.pretrained": TRUE_OR_FALSE,
}
DATA = {
    "data.name": NAME,
    "data.root": PATH | NULL,
    "data.batch_size": whole(1),
    "data.image_size": whole(1) | NULL,
    "data.channels": one_of(1, 3, None),
    "data.val_fraction": PART,
    "data.validate_on_test": TRUE_OR_FALSE,
    "data.augment": GROUP | NULL,
    "data.augment.crop": whole(0),
    "data.augment.flip": TRUE_OR_FALSE,
    "data.augment.erasing": FRACTION,
    "data.augment.scale": SHARE | NULL,
    "data.augment.randaugment": whole(0, 30),
    "data.balance": TRUE_OR_FALSE,
    "data.mean": list_of(FRACTION, 1, 3) | NULL,
    "data.std": list_of(POSITIVE, 1, 3) | NULL,
    "data.num_workers": whole(0),
    "data.in_memory": TRUE_OR_FALSE,
    "data.on_error": one_of("stop", "skip"),
    "data.test_fraction": PART,
    "data.num_classes": whole(2),
    "data.num_images": whole(1),
    "data.emnist_split": one_of("balanced", "byclass", "bymerge", "letters", "digits", "mnist"),
    "data.imagenette_size": one_of("160px", "320px", "full"),
}
TRAINER = {
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": one_of("auto") | whole(1) | list_of(whole(0)),
    "trainer.num_nodes": whole(1),
    "trainer.strategy": NAME,  # Lightning knows many
    "trainer.precision": one_of("auto", *PRECISIONS),
    "trainer.max_epochs": whole(1) | one_of(-1),
    "trainer.max_steps": whole(1) | one_of(-1),
    "trainer.limit_train_batches": BATCHES | NULL,
    "trainer.limit_val_batches": BATCHES | NO_BATCHES | NULL,
    "trainer.limit_test_batches": BATCHES | NO_BATCHES | NULL,
    "trainer.overfit_batches": BATCHES | NO_BATCHES,
    "trainer.log_every_n_steps": whole(1),
    "trainer.check_val_every_n_epoch": whole(1),
    "trainer.accumulate_grad_batches": whole(1),
    "trainer.gradient_clip_val": POSITIVE | NULL,
    "trainer.sync_batchnorm": TRUE_OR_FALSE,
    "trainer.deterministic": TRUE_OR_FALSE | one_of("warn"),
    "trainer.detect_anomaly": TRUE_OR_FALSE,
    "trainer.profiler": one_of("simple", "advanced", "pytorch", None),
    "trainer.enable_progress_bar": TRUE_OR_FALSE,
    "trainer.enable_model_summary": TRUE_OR_FALSE,
    "trainer.num_sanity_val_steps": whole(-1),
    "trainer.use_distributed_sampler": TRUE_OR_FALSE,
}
RUN = {
    "seed": whole(0, 2**32 - 1),  # numpy's and Lightning's limit
    "label_smoothing": FRACTION,
    "mixup": ALPHA,
    "cutmix": ALPHA,
    "flip_averaging": TRUE_OR_FALSE,
    "compile": TRUE_OR_FALSE,
    "test": TRUE_OR_FALSE,
    "objective": one_or_list(one_of(*VALIDATION, *TEST, *TRAINING, "parameters")),
    "resume": PATH | NULL,
    "checkpoint.every_minutes": POSITIVE,
    "sweep.stop_on_failure": TRUE_OR_FALSE,
    "outputs": PATH,
    "folder": PATH,
    "optimizer._partial_": one_of(True),
    "optimizer.lr": POSITIVE,
    "optimizer.momentum": PART,
    "optimizer.nesterov": TRUE_OR_FALSE,
    "optimizer.betas": list_of(PART, 2),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.fused": TRUE_OR_FALSE,
    "scheduler._partial_": one_of(True),
    "scheduler.warmup_fraction": PART,
    "scheduler.anneal": one_of("cos", "linear"),
    "scheduler.milestones": list_of(FRACTION),
    "scheduler.gamma": POSITIVE,
    "scheduler.warmup_steps": whole(0),
    "callbacks.best_checkpoint.dirpath": PATH,
    "callbacks.best_checkpoint.filename": NAME,
    "callbacks.best_checkpoint.monitor": one_of(*VALIDATION),
    "callbacks.best_checkpoint.mode": one_of("max", "min"),
    "callbacks.best_checkpoint.enable_version_counter": TRUE_OR_FALSE,
    "callbacks.last_checkpoint.dirpath": PATH,
    "callbacks.last_checkpoint.every_minutes": POSITIVE,
    "callbacks.tensorboard_report.num_images": whole(0),
    "callbacks.tensorboard_report.num_mistakes": whole(0),
    "callbacks.early_stopping.monitor": one_of(*VALIDATION),
    "callbacks.early_stopping.mode": one_of("max", "min"),
    "callbacks.early_stopping.patience": whole(1),
    "callbacks.early_stopping.strict": TRUE_OR_FALSE,
    "callbacks.ema.decay": FRACTION,
    "callbacks.ema.warmup": TRUE_OR_FALSE,
    "logger.save_dir": PATH,
    "logger.name": TEXT,
    "logger.version": TEXT,
    "logger.default_hp_metric": TRUE_OR_FALSE,
}
BENCHMARK = {
    "benchmark.devices": one_or_list(one_of("auto", "cpu", "gpu")),
    "benchmark.precisions": one_or_list(one_of("auto", *PRECISIONS)),
    "benchmark.memory_formats": one_or_list(one_of("channels_last", "contiguous")),
    "benchmark.compile": one_or_list(TRUE_OR_FALSE),
    "benchmark.batch_sizes": one_or_list(whole(1)),
    "benchmark.warmup_steps": whole(0),
    "benchmark.steps": whole(1),
    "benchmark.largest_batch": TRUE_OR_FALSE,
    "benchmark.memory_limit_mb": POSITIVE | NULL,
}
EVALUATE = {
    "trainer.precision": one_of("auto", *PRECISIONS, None),
    "checkpoint": PATH,
    "root": PATH | NULL,
    "output": PATH | NULL,
}
PREDICT = {
    "checkpoint": PATH,
    "images": one_or_list(Kind("a path", lambda value: PATH.allows(value) or type(value) is int)),  # 2024 is a folder
    "top": whole(1),
    "batch_size": whole(1),
    "on_error": one_of("stop", "skip"),
    "device": one_of("auto", "cpu", "cuda"),
    "output": Kind(
        "a path that ends in .csv or .json", lambda value: PATH.allows(value) and value.endswith((".csv", ".json"))
    )
    | NULL,
}
SEARCH = {  # of hydra/sweeper=optuna, behind hydra.sweeper.
    "trials": whole(1),
    "n_jobs": whole(1),
    "sampler": one_of("tpe", "random", "grid", "qmc"),
    "seed": whole(0),
    "pruner": one_of("none", "median", "halving"),
    "storage": Kind("a database's URL, e.g. sqlite:///searches.db", NAME.allows) | NULL,
}
OPTIONS: dict[str, dict[str, Kind]] = {  # of each command, by the name of its file in conf/
    "config": RUN | MODEL | DATA | TRAINER,
    "benchmark": RUN | MODEL | DATA | TRAINER | BENCHMARK,
    "evaluate": DATA | TRAINER | EVALUATE,
    "predict": PREDICT,
}


CLOSED = (
    "",
    "checkpoint",
    "sweep",
    "benchmark",
    "data.augment",
)  # no class takes these, which would refuse what it does not know
REMOVABLE = ("callbacks.", "optimizer.", "scheduler.")  # their classes have defaults, or are not needed


def check_options(config: DictConfig, config_name: str) -> None:
    """Raises UserError for the first option that is not what it must be, alone or beside the others."""
    check_together(checked_values(config, config_name))


def checked_values(config: DictConfig, config_name: str) -> dict[str, Any]:
    """Every option by its dotted name. Raises UserError for the first that is not what it must be by itself."""
    kinds = OPTIONS[config_name]
    values = dict(nodes(OmegaConf.to_container(config, resolve=True)))
    kinds = {group: GROUP for name in kinds for group in ancestors(name)} | kinds
    for name in kinds:
        if "." not in name and name not in values and (config_name, name) != ("evaluate", "data"):
            raise UserError(f"{name} must be given{choices_of(name)}")
    for name in values:
        if name not in kinds and name.rpartition(".")[0] in CLOSED:
            raise UserError(f"there is no option {name}{suggest(name, list(kinds), '--cfg job shows all options')}")
    for name, kind in kinds.items():
        if name in values:
            check_option(name, values[name], kind)
    return values


def check_option(name: str, value: Any, kind: Kind) -> None:
    if not kind.allows(value):
        raise UserError(f"{name}={shown(value)} must be {kind.words}")


def check_removals(overrides: Sequence[str], config_name: str) -> None:
    """Raises UserError for `~option`, but where the option's absence means something."""
    for override in overrides:
        name = override.removeprefix("~").partition("=")[0]
        known = any(option == name or option.startswith(f"{name}.") for option in OPTIONS[config_name])
        if override.startswith("~") and known and not name.startswith(REMOVABLE):
            raise UserError(f"~{name}: this option cannot be removed, only set")


def check_together(value: dict[str, Any]) -> None:
    """What is wrong only beside another option."""
    if value.get("trainer.max_epochs") == -1 and value["trainer.max_steps"] == -1:
        raise UserError("trainer.max_epochs=-1 and trainer.max_steps=-1 would never end: set one of them")
    devices, processors = value.get("trainer.devices"), os.cpu_count() or 1
    if value.get("trainer.accelerator") in ("auto", "cpu") and isinstance(devices, int) and devices > processors:
        raise UserError(f"trainer.devices={devices}: this machine has {processors} processors")
    if value.get("optimizer.nesterov") and value.get("optimizer.momentum") == 0:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")
    if value.get("optimizer.fused") and value["trainer.gradient_clip_val"] and value["trainer.precision"] == "16-mixed":
        raise UserError("trainer.gradient_clip_val in trainer.precision=16-mixed needs optimizer.fused=false")
    untested = set(TEST).intersection(as_list(value.get("objective", [])))
    if untested and not value["test"]:
        raise UserError(f"objective={min(untested)} needs test=true")
    if "callbacks.early_stopping" in value and value["trainer.limit_val_batches"] == 0:
        raise UserError("callbacks=early_stopping needs validation, which trainer.limit_val_batches=0 leaves out")
    if "model.layers" in value:
        check_description({name.removeprefix("model."): value[name] for name in value if name.startswith("model.")})


def check_description(model: dict[str, Any]) -> None:
    """Raises UserError for a ResNet that cannot be built."""
    layers, widths, groups, width_per_group = (
        model[name] for name in ("layers", "widths", "groups", "width_per_group")
    )
    if len(layers) != len(widths):
        raise UserError(f"model.layers has {len(layers)} stages and model.widths {len(widths)}")
    if model["block"] == "basic" and (groups, width_per_group) != (1, 64):
        raise UserError("model.groups and model.width_per_group belong to model.block=bottleneck")
    if model["block"] == "bottleneck" and min(widths) * width_per_group < 64:
        raise UserError(f"model.widths={widths} times model.width_per_group={width_per_group} must be at least 64 each")
    if model["squeeze_excitation"] and min(widths) * (4 if model["block"] == "bottleneck" else 1) < 16:
        raise UserError(f"model.squeeze_excitation=true needs blocks of 16 channels: model.widths={widths} are fewer")
    if model["stem"] == "deep" and (model["stem_width"] or widths[0]) < 2:
        raise UserError("model.stem=deep needs model.stem_width of at least 2")


def ancestors(name: str) -> list[str]:
    """callbacks and callbacks.ema of callbacks.ema.decay."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def choices_of(group: str) -> str:
    files = sorted((CONF / group).glob("[!_]*.yaml"))
    return f": {group}= takes {', '.join(file.stem for file in files)}" if files else ""
