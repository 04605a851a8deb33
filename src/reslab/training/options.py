"""The values that each option of a run may take. Nothing here imports torch."""

import re
from typing import Any

from reslab.configuration import as_list
from reslab.data.options import DATA
from reslab.errors import UserError
from reslab.machine import processors
from reslab.models.options import MODEL, check_description
from reslab.options import (
    FRACTION,
    FRACTION_BELOW_1,
    NAME,
    NOT_NEGATIVE,
    NULL,
    PATH,
    POSITIVE,
    TEXT,
    TRUE_OR_FALSE,
    Kind,
    Schema,
    integer,
    list_of,
    number,
    one_of,
    one_or_list,
)

BATCHES = integer(1) | Kind(  # 1 is one batch, 1.0 is all of them
    "a fraction above 0.0 and up to 1.0", lambda value: isinstance(value, float) and 0 < value <= 1
)
NO_BATCHES = one_of(0, 0.0)
DURATION = Kind(
    "days:hours:minutes:seconds, e.g. 00:12:00:00, and above 0",
    lambda value: (
        isinstance(value, str)
        and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value) is not None
        and re.search("[1-9]", value) is not None
    ),
)
# torch's Beta distribution refuses a smaller alpha.
ALPHA = number("of at least 0.001, or 0", lambda value: value >= 1e-3 or value == 0)
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
VALIDATION_METRICS = ("val/accuracy", "val/loss", "val/top5_accuracy")
TEST_METRICS = ("test/accuracy", "test/loss", "test/top5_accuracy", "test/f1_macro", "test/calibration_error")
TRAINING_METRICS = ("train/accuracy", "train/loss", "train/top5_accuracy", "train/seconds", "train/images_per_second")
TRAINER = {
    "trainer.accelerator": one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": one_of("auto") | integer(1) | list_of(integer(0)),
    "trainer.num_nodes": integer(1),
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
    "trainer.gradient_clip_val": POSITIVE | NULL,
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
RUN = {
    "seed": integer(0, 2**32 - 1),  # the limit of NumPy and Lightning
    "label_smoothing": FRACTION,
    "mixup": ALPHA,
    "cutmix": ALPHA,
    "flip_averaging": TRUE_OR_FALSE,
    "compile": TRUE_OR_FALSE,
    "test": TRUE_OR_FALSE,
    "objective": one_or_list(one_of(*VALIDATION_METRICS, *TEST_METRICS, *TRAINING_METRICS, "parameters")),
    "resume": PATH | NULL,
    "checkpoint.every_minutes": POSITIVE,
    "sweep.stop_on_failure": TRUE_OR_FALSE,
    "outputs": PATH,
    "folder": PATH,
    "optimizer._partial_": one_of(True),
    "optimizer.lr": POSITIVE,
    "optimizer.momentum": FRACTION_BELOW_1,
    "optimizer.nesterov": TRUE_OR_FALSE,
    "optimizer.betas": list_of(FRACTION_BELOW_1, 2),
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.fused": TRUE_OR_FALSE,
    "scheduler._partial_": one_of(True),
    "scheduler.warmup_fraction": FRACTION_BELOW_1,
    "scheduler.anneal": one_of("cos", "linear"),
    "scheduler.milestones": list_of(FRACTION),
    "scheduler.gamma": POSITIVE,
    "scheduler.warmup_steps": integer(0),
    "callbacks.best_checkpoint.monitor": one_of(*VALIDATION_METRICS),
    "callbacks.best_checkpoint.mode": one_of("max", "min"),
    "callbacks.last_checkpoint.every_minutes": POSITIVE,
    "callbacks.tensorboard_report.num_images": integer(0),
    "callbacks.tensorboard_report.num_mistakes": integer(0),
    "callbacks.early_stopping.monitor": one_of(*VALIDATION_METRICS),
    "callbacks.early_stopping.mode": one_of("max", "min"),
    "callbacks.early_stopping.patience": integer(1),
    "callbacks.ema.decay": FRACTION,
    "callbacks.ema.warmup": TRUE_OR_FALSE,
    "logger.save_dir": PATH,
    "logger.name": TEXT,
    "logger.version": TEXT,
    "logger.default_hp_metric": TRUE_OR_FALSE,
}


def check_together(value: dict[str, Any]) -> None:
    """Raise UserError for values that are wrong only in combination."""
    if value.get("trainer.max_epochs") == -1 and value["trainer.max_steps"] == -1:
        raise UserError("trainer.max_epochs=-1 and trainer.max_steps=-1 would never end: set one of them")
    devices, available = value.get("trainer.devices"), processors()
    if value.get("trainer.accelerator") in ("auto", "cpu") and isinstance(devices, int) and devices > available:
        raise UserError(f"trainer.devices={devices}: this process may use {available} processors")
    if value.get("optimizer.nesterov") and value.get("optimizer.momentum") == 0:
        raise UserError("optimizer.nesterov=true needs optimizer.momentum above 0")
    if value.get("optimizer.fused") and value["trainer.gradient_clip_val"] and value["trainer.precision"] == "16-mixed":
        raise UserError("trainer.gradient_clip_val in trainer.precision=16-mixed needs optimizer.fused=false")
    mixed = {"train/accuracy", "train/top5_accuracy"}.intersection(as_list(value.get("objective", [])))
    if mixed and (value.get("mixup") or value.get("cutmix")):
        raise UserError(f"objective={min(mixed)} is not measured with mixup or cutmix, which give images two labels")
    untested = set(TEST_METRICS).intersection(as_list(value.get("objective", [])))
    if untested and not value["test"]:
        raise UserError(f"objective={min(untested)} needs test=true")
    interval = value.get("trainer.val_check_interval")
    within_epoch = isinstance(interval, int) or interval not in (None, 1.0)  # 1 is one batch
    if within_epoch and value["trainer.accumulate_grad_batches"] > 1:
        raise UserError(
            "trainer.val_check_interval would validate between the batches of one optimizer step: "
            "it needs trainer.accumulate_grad_batches=1"
        )
    if "callbacks.early_stopping" in value and value["trainer.limit_val_batches"] == 0:
        raise UserError("callbacks=early_stopping needs validation, which trainer.limit_val_batches=0 leaves out")
    if "model.layers" in value:
        check_description({name.removeprefix("model."): value[name] for name in value if name.startswith("model.")})


TRAINING_SCHEMA = Schema("config", RUN | MODEL | DATA | TRAINER, check_together)
