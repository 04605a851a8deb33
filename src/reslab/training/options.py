"""The values that each option of a run may take. Nothing here imports torch."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from reslab.configuration import as_list, flatten
from reslab.data.options import DATA, check_folds, check_sizes
from reslab.errors import UserError
from reslab.machine import processors
from reslab.models.options import MODEL, check_description
from reslab.options import (
    FRACTION,
    FRACTION_BELOW_1,
    MAX_PROCESSORS,
    MINUTES,
    NAME,
    NULL,
    PATH,
    TEXT,
    TRUE_OR_FALSE,
    Kind,
    Schema,
    between,
    elsewhere,
    integer,
    list_of,
    one_of,
    one_or_list,
    require_package,
)
from reslab.run import current_name

View = Literal["flip", "shifts", "crops"]  # copies of an image whose logits are averaged: see views.py
VIEWS = Kind(
    f"none, {', '.join(get_args(View))} or a list of these copies",
    (one_of("none") | one_or_list(one_of(*get_args(View)))).allows,
)

BATCHES = integer(1) | Kind(  # 1 is one batch, 1.0 is all of them
    "a fraction above 0.0 and up to 1.0", lambda value: isinstance(value, float) and 0 < value <= 1
)
NO_BATCHES = one_of(0, 0.0)
DURATION = Kind(
    "days:hours:minutes:seconds, e.g. 00:12:00:00, above 0 and below 100,000 days",
    lambda value: (
        isinstance(value, str)
        and re.fullmatch(r"\d{1,5}:\d\d:\d\d:\d\d", value) is not None
        and re.search("[1-9]", value) is not None
    ),
)
# torch's Beta distribution refuses a smaller alpha. At the largest, an image's share is between 0.45 and 0.55.
ALPHA = between(1e-3, 1000, or_zero=True)
# What multiplies or limits a gradient. Less changes no weight in float32, and more does not fit in it.
MAX_STEP_SIZE = 1e38
STEP_SIZE = between(1e-12, MAX_STEP_SIZE)
MAX_PICTURES = 1000  # in one figure of TensorBoard, which is held in memory
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
VALIDATION_METRICS = ("val/accuracy", "val/loss", "val/top5_accuracy")
TEST_METRICS = ("test/accuracy", "test/top5_accuracy", "test/loss", "test/f1_macro", "test/calibration_error")
TRAINING_METRICS = ("train/accuracy", "train/loss", "train/top5_accuracy", "train/seconds", "train/images_per_second")
IGNORED = {  # arguments of Lightning's Trainer that ResLab gives itself or has a preset for
    "trainer.callbacks": elsewhere("a callback is an entry of callbacks, e.g. +callbacks.mine._target_=my.Callback"),
    "trainer.plugins": elsewhere("ResLab chooses the plugins; trainer.precision and trainer.strategy are options"),
    "trainer.logger": elsewhere("logger= chooses a logger, e.g. logger=none"),
    "trainer.default_root_dir": elsewhere("hydra.run.dir= chooses the run's folder"),
    "trainer.enable_checkpointing": elsewhere("callbacks has the checkpoints, e.g. ~callbacks.best_checkpoint"),
    "trainer.fast_dev_run": elsewhere("trainer=debug trains on one batch, and writes checkpoints and a result"),
    "trainer.benchmark": elsewhere("trainer.deterministic=true turns it off"),
}
TRAINER = IGNORED | {
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": one_of("auto") | integer(1) | list_of(integer(0)),
    "trainer.num_nodes": integer(1, 100_000),  # ten times the largest cluster
    "trainer.strategy": NAME,  # Lightning has many
    "trainer.precision": one_of("auto", *PRECISIONS),
    "trainer.max_epochs": integer(1) | one_of(-1),
    "trainer.max_steps": integer(1) | one_of(-1),
    "trainer.max_time": DURATION | NULL,
    "trainer.limit_train_batches": BATCHES | NULL,
    "trainer.limit_val_batches": BATCHES | NO_BATCHES | NULL,
    "trainer.limit_test_batches": BATCHES | NO_BATCHES | NULL,
    "trainer.overfit_batches": BATCHES | NO_BATCHES,
    "trainer.log_every_n_steps": integer(1),
    "trainer.check_val_every_n_epoch": integer(1),
    "trainer.val_check_interval": BATCHES | NULL,
    "trainer.accumulate_grad_batches": integer(1),
    "trainer.gradient_clip_val": STEP_SIZE | NULL,
    "trainer.gradient_clip_algorithm": one_of("norm", "value"),
    "trainer.sync_batchnorm": TRUE_OR_FALSE,
    "trainer.deterministic": TRUE_OR_FALSE | one_of("warn"),
    "trainer.detect_anomaly": TRUE_OR_FALSE,
    "trainer.profiler": one_of("simple", "advanced", "pytorch", None),
    "trainer.enable_progress_bar": TRUE_OR_FALSE,
    "trainer.enable_model_summary": TRUE_OR_FALSE,
    "trainer.num_sanity_val_steps": integer(-1),
    "trainer.use_distributed_sampler": TRUE_OR_FALSE,
}
NO_UPLOAD = elsewhere("the checkpoints stay in the run's folder")
RUN = {
    "seed": integer(0, 2**32 - 1),  # the limit of NumPy and Lightning
    "label_smoothing": FRACTION_BELOW_1,  # at 1, all classes would be equally right
    "mixup": ALPHA,
    "cutmix": ALPHA,
    "flip_averaging": TRUE_OR_FALSE,
    "threads": integer(1, MAX_PROCESSORS) | NULL,
    "compile": TRUE_OR_FALSE,
    "graph": TRUE_OR_FALSE | one_of("auto"),
    "test": TRUE_OR_FALSE,
    "page": TRUE_OR_FALSE,
    "summary": TRUE_OR_FALSE,
    "find_lr": TRUE_OR_FALSE,
    "objective": one_or_list(one_of(*VALIDATION_METRICS, *TEST_METRICS, *TRAINING_METRICS, "parameters")),
    "resume": PATH | NULL,
    "checkpoint.every_minutes": MINUTES,
    "sweep.stop_on_failure": TRUE_OR_FALSE,
    "outputs": PATH,
    "folder": PATH,
    "loss._partial_": one_of(True),
    "loss.target_threshold": FRACTION_BELOW_1 | NULL,  # no target is above 1
    "loss.sum_classes": TRUE_OR_FALSE,
    "loss.gamma": between(0, 100),  # Lin et al. try up to 5; at 100, only images with a probability near 0 count
    "optimizer._partial_": one_of(True),
    "optimizer.lr": STEP_SIZE,
    "optimizer.momentum": FRACTION_BELOW_1,
    "optimizer.nesterov": TRUE_OR_FALSE,
    "optimizer.betas": list_of(FRACTION_BELOW_1, 2),
    "optimizer.weight_decay": between(1e-12, 1000, or_zero=True),
    "optimizer.maximize": one_of(False),  # it would maximize the loss
    "optimizer.dampening": FRACTION,
    "optimizer.eps": between(1e-38, 1),  # the smallest that a float32 holds without loss; it is added to a gradient
    "optimizer.max_grad_norm": STEP_SIZE | NULL,
    "optimizer.adjust_lr_fn": one_of("original", "match_rms_adamw", "rms_to_rms"),
    "optimizer.amsgrad": TRUE_OR_FALSE,
    "optimizer.foreach": TRUE_OR_FALSE | NULL,
    "optimizer.capturable": TRUE_OR_FALSE,
    "optimizer.differentiable": one_of(False),  # for gradients of the training itself
    "optimizer.fused": TRUE_OR_FALSE,
    "scheduler._partial_": one_of(True),
    "scheduler.warmup_fraction": FRACTION_BELOW_1,
    "scheduler.anneal": one_of("cos", "linear"),
    "scheduler.milestones": list_of(FRACTION),
    "scheduler.gamma": between(1e-6, 1000),  # beyond it, one milestone leaves the useful learning rates
    "scheduler.warmup_steps": integer(0),
    "callbacks.best_checkpoint.monitor": one_of(*VALIDATION_METRICS),
    "callbacks.best_checkpoint.mode": one_of("max", "min"),
    "callbacks.last_checkpoint.every_minutes": MINUTES,
    "callbacks.texts_and_pictures.num_images": integer(0, MAX_PICTURES),
    "callbacks.texts_and_pictures.num_mistakes": integer(0, MAX_PICTURES),
    "callbacks.early_stopping.monitor": one_of(*VALIDATION_METRICS),
    "callbacks.early_stopping.mode": one_of("max", "min"),
    "callbacks.early_stopping.patience": integer(1),
    "callbacks.ema.decay": FRACTION,
    "callbacks.ema.warmup": TRUE_OR_FALSE,
    "callbacks.ema.every_steps": integer(1),
    "callbacks.ema.copy_fraction": FRACTION_BELOW_1 | NULL,
    "logger.tensorboard.save_dir": PATH,
    "logger.tensorboard.name": TEXT,
    "logger.tensorboard.version": TEXT,
    "logger.tensorboard.default_hp_metric": TRUE_OR_FALSE,
    "logger.tensorboard.group_by": one_of("metric", "split"),
    "logger.csv.save_dir": PATH,
    "logger.csv.name": TEXT,
    "logger.csv.version": TEXT | integer(0) | NULL,
    "logger.csv.flush_logs_every_n_steps": integer(1),
    "logger.wandb.save_dir": PATH,
    "logger.wandb.project": NAME,
    "logger.wandb.group": NAME | NULL,
    "logger.wandb.name": NAME | NULL,
    "logger.wandb.offline": TRUE_OR_FALSE,
    "logger.wandb.log_model": NO_UPLOAD,
    "logger.mlflow.tracking_uri": NAME | NULL,
    "logger.mlflow.artifact_location": NAME | NULL,
    "logger.mlflow.experiment_name": NAME,
    "logger.mlflow.run_name": NAME | NULL,
    "logger.mlflow.log_model": NO_UPLOAD,
}

OF_ONE_RUN = {  # options that a sweep cannot have, with what is said of them
    "summary=true": "summary=true shows one network",
    "find_lr=true": "find_lr=true suggests one learning rate",
}


def check_together(value: dict[str, Any]) -> None:
    """Raise UserError for values that are wrong only in combination."""
    if value.get("trainer.max_epochs") == -1 and value["trainer.max_steps"] == -1:
        raise UserError(
            "trainer.max_epochs=-1 and trainer.max_steps=-1 give the learning-rate schedule no length: set one of "
            "them, also with trainer.max_time"
        )
    devices, available = value.get("trainer.devices"), processors()
    if value.get("trainer.accelerator") in ("auto", "cpu") and isinstance(devices, int) and devices > available:
        raise UserError(f"trainer.devices={devices}: this process may use {available} processors")
    if value.get("optimizer.nesterov") and value.get("optimizer.momentum") == 0:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")
    if value.get("optimizer.fused") and value.get("optimizer.foreach"):
        raise UserError("optimizer.foreach=true needs optimizer.fused=false")
    if value.get("optimizer.fused") and value["trainer.gradient_clip_val"] and value["trainer.precision"] == "16-mixed":
        raise UserError("trainer.gradient_clip_val in trainer.precision=16-mixed needs optimizer.fused=false")
    if value.get("find_lr") and value.get("resume"):
        raise UserError("find_lr=true tests the rates of a new run: leave out resume=, or take from= for its settings")
    if value.get("data.balance") and value.get("data.class_weights") is not None:
        raise UserError("data.balance=true and data.class_weights would count rare classes twice: choose one of them")
    check_folds(value.get("data.folds"), value.get("data.fold"))
    check_learning_rate(value)
    check_callbacks(value)
    check_loggers(value)
    check_sizes({name.removeprefix("data."): value[name] for name in value if name.startswith("data.")})
    mixed = {"train/accuracy", "train/top5_accuracy"}.intersection(as_list(value.get("objective", [])))
    if mixed and (value.get("mixup") or value.get("cutmix")):
        raise UserError(f"objective={min(mixed)} is not measured with mixup or cutmix, which give images two labels")
    untested = set(TEST_METRICS).intersection(as_list(value.get("objective", [])))
    if untested and not value["test"]:
        raise UserError(f"objective={min(untested)} needs test=true")
    interval = value.get("trainer.val_check_interval")
    within_epoch = isinstance(interval, int) or interval not in (None, 1.0)  # 1 is one batch
    accumulated = value["trainer.accumulate_grad_batches"]
    if within_epoch and accumulated > 1 and not (isinstance(interval, int) and interval % accumulated == 0):
        raise UserError(
            "trainer.val_check_interval would validate between the batches of one optimizer step: "
            "it needs trainer.accumulate_grad_batches=1, or a multiple of it"
        )
    if "callbacks.early_stopping" in value and value["trainer.limit_val_batches"] == 0:
        raise UserError("callbacks=early_stopping needs validation, which trainer.limit_val_batches=0 leaves out")
    if "model.layers" in value:
        check_description({name.removeprefix("model."): value[name] for name in value if name.startswith("model.")})


def refuse_unmeasured(objectives: Sequence[str], value: Mapping[str, Any]) -> None:
    """Raise UserError if a run with these options would not measure an objective of its search."""
    # Class folders may have a val/ of their own, and a fold may take the place of validation images.
    may_have_others = "data.in_memory" in value or value["data.folds"] is not None
    is_undivided = value["data.val_fraction"] == 0 and not may_have_others
    lacking = {
        "test/": {"trainer.limit_test_batches=0": value["trainer.limit_test_batches"] == 0},
        "val/": {
            "trainer.limit_val_batches=0": value["trainer.limit_val_batches"] == 0,
            "data.val_fraction=0": is_undivided and not value["data.validate_on_test"],
        },
    }
    for objective in objectives:
        for reason, holds in lacking.get(objective[: objective.find("/") + 1], {}).items():
            if holds:
                raise UserError(f"objective={objective} is not measured with {reason}")


# Optimizers whose step takes lr * weight_decay off a weight. Adam and LAMB scale the decay with the step.
SHRINKING = (
    "torch.optim.SGD", "torch.optim.AdamW", "reslab.training.optimizers.lion", "reslab.training.optimizers.muon",
)  # fmt: skip


def check_learning_rate(value: dict[str, Any]) -> None:
    """Raise UserError for a learning rate that would remove the weights in a step or grow without limit."""
    lr, decay = value.get("optimizer.lr"), value.get("optimizer.weight_decay")
    shrinks = value.get("optimizer._target_") in SHRINKING
    if shrinks and decay and lr * decay > 1:
        raise UserError(
            f"optimizer.lr={lr} times optimizer.weight_decay={decay} is {lr * decay:g}: above 1, each step would turn "
            "the sign of the weights; lower one of them"
        )
    gamma, milestones = value.get("scheduler.gamma"), value.get("scheduler.milestones", [])
    if lr and gamma and math.log10(lr) + len(milestones) * math.log10(gamma) > math.log10(MAX_STEP_SIZE):
        raise UserError(
            f"scheduler.gamma={gamma} at {len(milestones)} milestones raises optimizer.lr={lr} above "
            f"{MAX_STEP_SIZE:g}: lower scheduler.gamma"
        )


# The packages of loggers, which are extras of the same names.
LOGGER_PACKAGES = {
    "lightning.pytorch.loggers.WandbLogger": "wandb",
    "lightning.pytorch.loggers.MLFlowLogger": "mlflow",
}


def check_loggers(value: dict[str, Any]) -> None:
    """Raise UserError for an entry of logger that names no class, or one whose package is not installed."""
    if "logger._target_" in value:
        raise UserError(
            "logger._target_: several loggers may be chosen, so each stands below a name of its own: in its file in "
            "logger/, indent all lines below `mine:`, a name of your choice"
        )
    check_entries("logger", "my.Logger", value)
    for name, target in value.items():
        if re.fullmatch(r"logger\.\w+\._target_", name) and (package := LOGGER_PACKAGES.get(target)):
            require_package(package, name.removesuffix("._target_").replace(".", "="), package)


def check_entries(group: str, example: str, value: dict[str, Any]) -> None:
    """Raise UserError for an entry of a group that names no class."""
    for name, options in value.items():
        if name.rpartition(".")[0] == group and not (isinstance(options, dict) and "_target_" in options):
            if current_name(name) != name:
                raise UserError(f"{name} is called {current_name(name)} now")
            raise UserError(f"{name} must be a group of options that names a class, e.g. +{name}._target_={example}")


def check_callbacks(value: dict[str, Any]) -> None:
    """Raise UserError for an entry of callbacks that names no class, and for an average that would never change."""
    check_entries("callbacks", "my.Callback", value)
    for name in ("callbacks.best_checkpoint", "callbacks.early_stopping"):
        monitor, mode = value.get(f"{name}.monitor"), value.get(f"{name}.mode")
        right = "min" if str(monitor).endswith("loss") else "max"
        if monitor is not None and mode != right:
            raise UserError(f"{name}.monitor={monitor} needs {name}.mode={right}")
    if value.get("callbacks.ema.decay") == 1 and not value["callbacks.ema.warmup"]:
        raise UserError("callbacks.ema.decay=1 needs callbacks.ema.warmup=true: the average would never change")


# Values with which a training can diverge at any learning rate, and what to do then.
CAUSES_OF_DIVERGENCE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "trainer.precision": (lambda precision: precision == "16-true", "trainer.precision=16-mixed has a larger range"),
    "data.std": (lambda std: min(std) < 0.01, "raise data.std, by which the pixels are divided"),
    "model.logit_scale": (lambda scale: scale > 10, "lower model.logit_scale"),
    "scheduler.gamma": (lambda gamma: gamma > 1, "lower scheduler.gamma, which raises the learning rate"),
    "optimizer.weight_decay": (lambda decay: decay > 1, "lower optimizer.weight_decay"),
    "optimizer.momentum": (lambda momentum: momentum > 0.99, "lower optimizer.momentum"),
}


def divergence_advice(config: dict[str, Any]) -> str:
    """Return what to change in a configuration whose training has diverged."""
    values = flatten(config)
    for name, (is_cause, advice) in CAUSES_OF_DIVERGENCE.items():
        if values.get(name) is not None and is_cause(values[name]):
            return advice
    return "lower optimizer.lr"


TRAINING_SCHEMA = Schema("config", RUN | MODEL | DATA | TRAINER, check_together)


def first_device(devices: int | str | Sequence[int]) -> int | list[int]:
    """Return the option `trainer.devices` for one device: the first one of a list, otherwise any."""
    return 1 if isinstance(devices, int | str) else [devices[0]]
