"""One run, from its composed configuration to its result: train, test the best weights, write the result."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import lightning as L
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import distributed

from reslab.configuration import task_overrides
from reslab.data.base import ImageDataModule
from reslab.errors import RunError
from reslab.files import sole_user
from reslab.interruption import signals
from reslab.machine import is_first_process
from reslab.run import Result, Run
from reslab.training.build import (
    build_callbacks,
    build_classifier,
    build_data,
    build_logger,
    build_trainer,
    require_accelerator,
    watches_validation,
)
from reslab.training.checkpoints import resumed_checkpoint
from reslab.training.classifier import Classifier
from reslab.training.history import History
from reslab.training.process import prepare_process
from reslab.training.provenance import provenance
from reslab.training.tensorboard import add_hparams, summary_writer

log = logging.getLogger(__name__)

HPARAMS_METRICS = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train/loss", "train/seconds")


def train(config: DictConfig) -> Result:
    """Train a network, test it and write the result.

    The weights with the best validation accuracy are tested; without validation, the last ones.

    Args:
        config: a composed conf/config.yaml. The run is written into `config.folder`.

    Returns:
        The content of the run's result.json: metrics by name ("test/accuracy"), seconds of training, versions, …

    Raises:
        UserError: the configuration cannot be trained, or the folder is in use or holds another run.
        RunError: training failed, e.g. because the loss is no longer finite.
        Interrupted: a signal ended the run, after its last checkpoint was written.
    """
    require_accelerator(config.trainer.accelerator)
    run = Run(config.folder)
    with sole_user(run.folder) if is_first_process() else nullcontext():
        try:
            return fit_and_test(config, run)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()  # the next job of a sweep makes another one


def fit_and_test(config: DictConfig, run: Run) -> Result:
    """Train in the run's folder, or continue there if `config.resume` is set, then test and write the result."""
    checkpoint, step = resumed_checkpoint(Path(config.resume), config) if config.resume else (None, 0)
    prepare_process(config.seed)
    data = build_data(config, stages=("fit", "test") if config.test else ("fit",))
    classifier = build_classifier(config, data)
    history = History(run)
    trainer = build_trainer(config, build_callbacks(config, data, history), build_logger(config, step))
    origin = provenance(config, data, classifier, trainer)
    classifier.record["origin"] = origin
    begin(config, run)
    with signals.deferred(), memory_advice(config):
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best = best_checkpoint(trainer, data)
    pruned = was_pruned(trainer)
    result = {name: value for name, value in history.best().items() if name.startswith(("train/", "val/"))}
    result |= {"epochs": len(history.rows), "steps": trainer.global_step}
    result |= {"train/seconds": history.train_seconds, "train/images_per_second": history.images_per_second}
    if config.test and not pruned:
        result |= test(trainer, classifier, data, best)
    return finish(trainer, classifier, run, result | origin, pruned)


def finish(trainer: L.Trainer, classifier: Classifier, run: Run, result: Result, pruned: bool) -> Result:
    """Write the result into TensorBoard, and then into the run's folder, which ends the run."""
    if not trainer.is_global_zero:
        return result
    if writer := summary_writer(trainer):
        final = {name: result[name] for name in HPARAMS_METRICS if name in result}
        add_hparams(writer, classifier.record["config"], final, result["steps"])
    return run.finish(result, pruned=pruned)


@rank_zero_only
def begin(config: DictConfig, run: Run) -> None:
    """Remove an earlier result, and write the settings with which a resumed run continues."""
    run.reopen()
    if config.resume and HydraConfig.initialized():
        overrides = [argument for argument in task_overrides() if not argument.startswith("resume=")]
        run.write_settings(OmegaConf.to_yaml(OmegaConf.merge(config, {"resume": None})), overrides)


@contextmanager
def memory_advice(config: DictConfig) -> Iterator[None]:
    """Turn an error of a GPU that is out of memory into a RunError that says what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, accumulated = config.data.batch_size, config.trainer.accumulate_grad_batches
        smaller = f"data.batch_size={size // 2} trainer.accumulate_grad_batches={2 * accumulated}"
        advice = f"try {smaller}, which takes the same steps" if size > 1 else "the network is too large for it"
        raise RunError(f"out of memory on the GPU with data.batch_size={size}: {advice}") from error


def best_checkpoint(trainer: L.Trainer, data: ImageDataModule) -> str | None:
    """Return the path of the best checkpoint by validation accuracy.

    None stands for the last weights: there were no validation images, or the test images took their place.
    """
    if data.splits["val"] is None or data.validate_on_test:
        return None
    watching = [callback for callback in trainer.checkpoint_callbacks if watches_validation(callback)]
    return watching[0].best_model_path or None if watching else None  # type: ignore[attr-defined]


def was_pruned(trainer: L.Trainer) -> bool:
    """Return whether a callback ended the run because it fell behind in a search."""
    return any(getattr(callback, "pruned", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]


def test(trainer: L.Trainer, classifier: Classifier, data: ImageDataModule, checkpoint: str | None) -> Result:
    """Return the test metrics by name; nothing if the data set has no test images."""
    if data.splits["test"] is None:
        log.info("data=%s has no test set, so the network is not tested", data.name)
        return {}
    classifier.record["step"] = trainer.global_step
    (metrics,) = trainer.test(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return dict(metrics)
