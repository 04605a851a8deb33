"""The parts of a run, built from its composed configuration: data, classifier, callbacks, trainer, logger."""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from hydra.utils import get_class, instantiate
from lightning.pytorch.callbacks import BackboneFinetuning, Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from reslab.data.base import ImageDataModule
from reslab.errors import UserError
from reslab.models.build import build_network, check_shapes
from reslab.models.whitening import whiten_stem
from reslab.training.checkpoints import CheckpointFiles
from reslab.training.classifier import Classifier
from reslab.training.history import History, ProgressBar

# data and classifier


def build_data(config: DictConfig, stages: Sequence[str]) -> ImageDataModule:
    """Build the data module of `config.data` and read the splits of the stages: "fit", "test"."""
    data: ImageDataModule = instantiate(config.data, seed=config.seed, _convert_="all")
    for stage in stages:
        data.setup(stage)
    return data


def build_classifier(config: DictConfig, data: ImageDataModule) -> Classifier:
    """Build the classifier of a configuration for data whose stage "fit" has been read.

    Raises:
        UserError: the network, the optimizer or the schedule cannot be built, or the images do not fit the network.
    """
    spec = data.spec
    network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size)
    check_shapes(network, data.batch_size, spec.channels, spec.image_size)
    classifier = Classifier(
        network.to(memory_format=torch.channels_last),
        spec,
        augmentation=data.augmentation(),
        optimizer=build_optimizer(config.optimizer),
        schedule=build_schedule(config.scheduler),
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        flip_averaging=config.flip_averaging,
        seed=config.seed,
    )
    if config.model.get("whiten_stem"):
        whiten(classifier, config, data)
    classifier.record = {"config": OmegaConf.to_container(config, resolve=True), "spec": asdict(spec)}
    if config.compile:
        network.compile()  # in place: a wrapper would change the names in checkpoints
    return classifier


def build_optimizer(options: DictConfig) -> functools.partial[torch.optim.Optimizer]:
    """Return a function of parameter groups. Raise UserError for options that its class refuses."""
    optimizer = instantiate(options, _convert_="all")
    check_call("optimizer", optimizer, [nn.Parameter(torch.zeros(1))])
    return optimizer


def build_schedule(options: DictConfig) -> functools.partial[float]:
    """Return a function of (step, total_steps). Raise UserError for options that it refuses.

    The result is a plain partial. Hydra's partial checks its arguments in every call, which takes 0.4 ms, and there are
    two calls in each step.
    """
    hydra_partial = instantiate(options, _convert_="all")
    schedule = functools.partial(hydra_partial.func, *hydra_partial.args, **hydra_partial.keywords)
    check_call("scheduler", schedule, 0, 1)
    return schedule


def check_call(group: str, partial: functools.partial[Any], *arguments: Any) -> None:
    """Call once, and raise UserError for an option that does not exist or may not have its value."""
    try:
        partial(*arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{group}: {error}") from error


def whiten(classifier: Classifier, config: DictConfig, data: ImageDataModule) -> None:
    """Whiten the first convolution with the first batch of training images."""
    if config.model.weights is not None:
        raise UserError("model.whiten_stem=true would overwrite the first convolution of model.weights: choose one")
    images, _ = next(iter(data.train_dataloader()))
    whiten_stem(classifier.network, classifier.preprocess(images))


# callbacks


def build_callbacks(config: DictConfig, data: ImageDataModule, history: History) -> list[Callback]:
    """Build the callbacks of a run. Without validation images, the best checkpoint is left out."""
    callbacks: list[Callback] = [history, *instantiate(config.callbacks, _convert_="all").values()]
    if data.splits["val"] is None:
        if any(isinstance(callback, EarlyStopping) for callback in callbacks):
            raise UserError("early stopping needs validation images: set data.val_fraction")
        callbacks = [callback for callback in callbacks if not watches_validation(callback)]
    callbacks += freezing_callbacks(config)
    if config.trainer.enable_progress_bar and sys.stdout.isatty():
        callbacks.append(ProgressBar(history))
    return callbacks


def freezing_callbacks(config: DictConfig) -> list[Callback]:
    """Return the callback that `model.freeze` asks for, or none."""
    freeze = config.model.freeze
    if freeze is False:
        return []
    epoch = config.trainer.max_epochs if freeze is True else freeze  # with true, the backbone is never unfrozen
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=epoch)]


def watches_validation(callback: Callback) -> bool:
    return isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith("val/")


# trainer and logger


def require_accelerator(name: str, option: str = "trainer.accelerator") -> None:
    """Raise UserError if there is no such accelerator, before a data set is downloaded for it."""
    if name in ("gpu", "cuda") and not torch.cuda.is_available() and not torch.mps.is_available():
        raise UserError(
            f"{option}={name}, but torch {torch.__version__} finds no GPU here: {option}=cpu runs the same on the CPU"
        )


def build_trainer(config: DictConfig, callbacks: list[Callback], logger: Logger | None) -> L.Trainer:
    """Build Lightning's Trainer from `config.trainer`."""
    options = config.trainer
    return instantiate(
        options,
        precision=resolve_precision(options.precision, options.accelerator),
        benchmark=not options.deterministic,  # cuDNN times its algorithms once per shape
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        logger=logger or False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
        _convert_="all",
    )


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return the precision that `auto` stands for: bf16-mixed if the device computes in bf16 itself, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if computes_in_bf16(accelerator) else "32-true"


def computes_in_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu" or not torch.mps.is_available():
        capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has none
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def build_logger(config: DictConfig, step: int) -> Logger | None:
    """Build the logger of a run.

    Args:
        config: the composed configuration.
        step: the step of the checkpoint that a resumed run continues from. TensorBoard drops later points from its
            curves; other loggers have no such argument.
    """
    if not config.logger:
        return None
    if config.resume and issubclass(get_class(config.logger._target_), TensorBoardLogger):
        return instantiate(config.logger, purge_step=step)
    return instantiate(config.logger)
