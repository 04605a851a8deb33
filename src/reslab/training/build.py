"""The parts of a run, built from its composed configuration: data, classifier, callbacks, trainer."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    Callback,
    Checkpoint,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import PassThroughProfiler
from omegaconf import DictConfig
from torch import Tensor, nn

from reslab.configuration import as_list, to_dict
from reslab.data.base import ImageDataModule
from reslab.errors import RefusedCallError, UserError
from reslab.machine import no_gpu_line
from reslab.models.build import build_network, check_evaluated_shape, check_shapes
from reslab.models.weights import StateDict
from reslab.models.whitening import whiten_stem
from reslab.options import check_made
from reslab.training.checkpoints import BestCheckpoint, CheckpointFiles, LastCheckpoint
from reslab.training.classifier import Classifier, seed_generators
from reslab.training.freezing import Freezing
from reslab.training.history import History
from reslab.training.limits import TrainingLimits, seconds_of
from reslab.training.metrics import TOP5_ABOVE
from reslab.training.opening import opening_level
from reslab.training.pace import Pace
from reslab.training.progress import EpochLines, ProgressBar, can_show_bar
from reslab.training.waiting import LoaderWait

# They change the length of a run or its optimizer steps, which schedules and resumed runs must know.
UNSUPPORTED = (BatchSizeFinder, GradientAccumulationScheduler, LearningRateFinder, StochasticWeightAveraging)

# data and classifier


def build_data(config: DictConfig, stages: Sequence[str], seen_files: Tensor | None = None) -> ImageDataModule:
    """Build the data module of `config.data` and read the splits of the stages: "fit", "test".

    Of files that the run was trained on before, `seen_files`, none is a test image.
    """
    data: ImageDataModule = instantiate(config.data, seed=config.seed, _convert_="all")
    check_made("data", data, ImageDataModule)
    data.seen_files = seen_files
    for stage in stages:
        data.setup(stage)
    return data


def build_classifier(config: DictConfig, data: ImageDataModule, restored: StateDict | None = None) -> Classifier:
    """Build the classifier of a configuration for data whose stage "fit" has been read.

    Args:
        config: the composed configuration.
        data: the data.
        restored: the weights of the checkpoint that a resumed run continues from, of which only the shapes count.
            `model.weights` is then not read.

    Raises:
        UserError: the network, the optimizer or the schedule cannot be built, or the images do not fit the network.
    """
    spec = data.spec
    seed_generators(config.seed, torch.device("cpu"))  # the first weights depend on nothing but the seed
    network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size, restored)
    check_shapes(network, data.batch_size, spec.channels, spec.image_size, len(spec.classes), config.data.name)
    if spec.size_in_evaluation != spec.image_size:
        check_evaluated_shape(network, spec.channels, spec.image_size, spec.size_in_evaluation)
    classifier = Classifier(
        network.to(memory_format=torch.channels_last),
        spec,
        augmentation=data.augmentation(),
        optimizer=build_optimizer(config.optimizer),
        schedule=build_schedule(config.scheduler),
        loss=build_loss(config.loss),
        class_weights=data.weights_of_classes(),
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        flip_averaging=config.flip_averaging,
        seed=config.seed,
        freezing=build_freezing(config.model, network),
        layer_decay=config.model.layer_decay,
    )
    if config.model.get("whiten_stem"):
        whiten(classifier, config, data)
    classifier.record = {"config": to_dict(config, resolve=True), "spec": asdict(spec)}
    if config.compile:
        network.compile()  # in place: a wrapper would change the names in checkpoints
    return classifier


def build_freezing(model: DictConfig, network: nn.Module) -> Freezing | None:
    if model.freeze is False:
        return None
    return Freezing(network, None if model.freeze is True else model.freeze, bool(model.get("train_norms")))


def build_optimizer(options: DictConfig) -> functools.partial[torch.optim.Optimizer]:
    """Return a function of parameter groups. Raise UserError for options that its class refuses."""
    optimizer = instantiate(options, _convert_="all")
    parameter = nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    made = check_call("optimizer", optimizer, [parameter])
    check_made("optimizer", made, torch.optim.Optimizer)
    with suppress(AssertionError, RuntimeError):  # a step may need a GPU, which this parameter is not on
        check_call("optimizer", made.step, lambda: torch.zeros(()))  # some options are read by a step only
    return optimizer


def build_schedule(options: DictConfig) -> functools.partial[float]:
    """Return a function of (step, total_steps). Raise UserError for options that it refuses."""
    schedule = plain_partial(options)
    check_call("scheduler", schedule, 0, 1)
    return schedule


def build_loss(options: DictConfig) -> functools.partial[Tensor]:
    """Return one of the functions of losses.py. Raise UserError for options that it refuses."""
    loss = plain_partial(options)
    check_call("loss", loss, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64), None, 0.0)
    return loss


def plain_partial(options: DictConfig) -> functools.partial[Any]:
    """Return the function of a group with its options.

    Hydra's own partial checks its arguments in every call, which takes 0.4 ms, and each step calls it.
    """
    hydra_partial = instantiate(options, _convert_="all")
    return functools.partial(hydra_partial.func, *hydra_partial.args, **hydra_partial.keywords)


def check_call(group: str, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns. Raise RefusedCallError for a wrong option or value."""
    try:
        return call(*arguments)
    except (TypeError, ValueError) as error:
        raise RefusedCallError(group, getattr(call, "func", call), error) from error


def whiten(classifier: Classifier, config: DictConfig, data: ImageDataModule) -> None:
    """Whiten the first convolution with the first batch of training images."""
    if config.model.weights is not None:
        raise UserError("model.whiten_stem=true would overwrite the first convolution of model.weights: choose one")
    images, _ = next(iter(data.train_dataloader()))
    whiten_stem(classifier.network, classifier.preprocess(images))


# callbacks


def build_callbacks(config: DictConfig, data: ImageDataModule, history: History) -> list[Callback]:
    """Build the callbacks of a run.

    Where there are no validation images, or the test images take their place, no checkpoint is chosen by validation.

    Raises:
        UserError: a callback needs validation images, or a callback or the objective a metric that will not exist.
    """
    made: dict[str, Callback] = instantiate(config.callbacks, _convert_="all")
    for name, callback in made.items():
        check_made(f"callbacks.{name}", callback, Callback)
    chosen = [*made.values()]
    for callback in chosen:
        if isinstance(callback, UNSUPPORTED):
            kind = type(callback).__name__
            raise UserError(f"callbacks: {kind} changes the steps of a run in a way that checkpoints do not hold")
    if not any(isinstance(callback, LastCheckpoint) for callback in chosen):
        raise UserError("callbacks.last_checkpoint cannot be removed: the run could not be resumed")
    monitors = [callback.monitor for callback in chosen if isinstance(callback, BestCheckpoint | EarlyStopping)]
    refuse_absent_metrics([*monitors, *as_list(config.objective)], data)
    if data.splits["val"] is None and any(isinstance(callback, EarlyStopping) for callback in chosen):
        raise UserError("early stopping needs validation images: set data.val_fraction")
    if data.splits["val"] is None or data.validate_on_test:
        chosen = [callback for callback in chosen if not isinstance(callback, BestCheckpoint)]
    # The limits come first: the other callbacks must know at the last step that it is the last one.
    max_time = None if config.trainer.max_time is None else seconds_of(config.trainer.max_time)
    limits = TrainingLimits(config.trainer.max_steps, max_time)
    validates = data.splits["val"] is not None and config.trainer.limit_val_batches != 0
    lines = EpochLines(history, best_of(chosen), validates=validates)
    return [limits, history, *chosen, *build_display(config, chosen, history, lines, max_time)]


def best_of(callbacks: Iterable[Callback]) -> BestCheckpoint | None:
    """Return the callback that keeps the best checkpoint; None if there is none."""
    return next((callback for callback in callbacks if isinstance(callback, BestCheckpoint)), None)


def build_display(
    config: DictConfig, chosen: Sequence[Callback], history: History, lines: EpochLines, max_time: float | None
) -> list[Callback]:
    """Build the callbacks that show what the run does."""
    pace = Pace(opening_level(), 2 if config.flip_averaging else 1, max_time)
    display: list[Callback] = [pace, lines, LoaderWait(opening_level())]
    has_own_bar = any(isinstance(callback, LightningProgressBar) for callback in chosen)
    if config.trainer.enable_progress_bar and can_show_bar() and not has_own_bar:
        display.append(ProgressBar(history, pace))
    return display


def refuse_absent_metrics(names: Iterable[str], data: ImageDataModule) -> None:
    """Raise UserError for a metric that exists only with more classes."""
    for name in names:
        if name.endswith("/top5_accuracy") and len(data.classes) <= TOP5_ABOVE:
            has = f"data={data.name} has {len(data.classes)}"
            raise UserError(f"{name} needs more than {TOP5_ABOVE} classes, and {has}")


# trainer


def require_accelerator(name: str, option: str = "trainer.accelerator") -> None:
    """Raise UserError if there is no such accelerator, before a data set is downloaded for it."""
    cuda, mps = torch.cuda.is_available(), torch.mps.is_available()
    if not {"gpu": cuda or mps, "cuda": cuda, "mps": mps}.get(name, True):
        raise UserError(no_gpu_line(name, option, f"{option}=gpu uses the GPU that is there, " if cuda or mps else ""))


def build_trainer(config: DictConfig, callbacks: list[Callback], logger: Sequence[Logger] | None) -> L.Trainer:
    """Build Lightning's Trainer from `config.trainer`."""
    options = config.trainer
    trainer: L.Trainer = instantiate(
        options,
        strategy=resolve_strategy(config),
        precision=resolve_precision(options.precision, options.accelerator),
        benchmark=not options.deterministic,  # cuDNN times its algorithms once per shape
        callbacks=callbacks,
        plugins=[CheckpointFiles()],
        default_root_dir=config.folder,
        max_time=None,  # TrainingLimits obeys it
        profiler=options.profiler or NoProfiler(),
        logger=[*logger] if logger else False,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, LightningProgressBar) for callback in callbacks),
        _convert_="all",
    )
    check_made("trainer", trainer, L.Trainer)
    if options.sync_batchnorm and trainer.world_size > 1 and trainer.strategy.root_device.type != "cuda":
        raise UserError("trainer.sync_batchnorm=true needs GPUs: torch has no such batch norm for CPUs")
    return trainer


class NoProfiler(PassThroughProfiler):
    """Profile nothing in less time than Lightning's own, which makes a generator for each of 70 actions in a step."""

    nothing: Any = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self.nothing


def resolve_strategy(config: DictConfig) -> str:
    """Return the strategy, with DDP's search for parameters without gradients where `model.freeze` needs it."""
    options = config.trainer
    devices = options.devices if isinstance(options.devices, int | str) else len(options.devices)
    several = devices != 1 or options.num_nodes != 1
    if config.model.freeze is not False and (options.strategy == "ddp" or (options.strategy == "auto" and several)):
        return "ddp_find_unused_parameters_true"
    return str(options.strategy)


def resolve_precision(precision: str, accelerator: str) -> str:
    """Return the precision in which the Trainer computes.

    `auto` is bf16-mixed if the device computes in bf16 itself, else 32-true. On a CPU, 16-mixed is bf16-mixed, as
    Lightning does with a warning of its own.

    Args:
        precision: the option `trainer.precision`.
        accelerator: the option `trainer.accelerator` or `device`.
    """
    if precision == "auto":
        return "bf16-mixed" if computes_in_bf16(accelerator) else "32-true"
    is_cpu = accelerator == "cpu" or not (torch.cuda.is_available() or torch.mps.is_available())
    return "bf16-mixed" if is_cpu and precision == "16-mixed" else precision


def computes_in_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu" or not torch.mps.is_available():
        capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has none
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False
