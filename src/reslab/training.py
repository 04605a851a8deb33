"""One run: build everything from a composed configuration, fit, test, write the result."""

import ctypes
import functools
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import BackboneFinetuning, Callback, Checkpoint, EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from torch import distributed, nn

from reslab.checkpoints import CheckpointFiles, resumed_checkpoint
from reslab.classifier import Classifier
from reslab.data.base import ImageDataModule
from reslab.errors import RunError, UserError
from reslab.files import sole_user, write_json, write_text
from reslab.history import History, ProgressBar
from reslab.interruption import signals
from reslab.models.build import build_network, check_shapes
from reslab.models.whitening import whiten_stem
from reslab.resuming import is_first_process
from reslab.sweeps.pruning import pruning, was_pruned
from reslab.tensorboard import add_hparams, writer_of

log = logging.getLogger(__name__)

Result = dict[str, Any]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
HPARAMS_METRICS = ("val/accuracy", "val/loss", "test/accuracy", "test/loss", "train/loss", "train/seconds")


def train(config: DictConfig) -> Result:
    """Train, test the best weights by validation accuracy (the last without validation), write result.json."""
    require_accelerator(config.trainer.accelerator)
    folder = Path(config.folder)
    with sole_user(folder) if is_first_process() else nullcontext():
        try:
            return run(config, folder)
        finally:
            if distributed.is_initialized():
                distributed.destroy_process_group()  # the next job of a sweep makes its own


def run(config: DictConfig, folder: Path) -> Result:
    checkpoint, step = resumed_checkpoint(Path(config.resume), config) if config.resume else (None, 0)
    begin(config, folder)
    prepare_process(config.seed)
    data = build_data(config, stages=("fit", "test") if config.test else ("fit",))
    classifier = build_classifier(config, data)
    history = History(config.folder)
    trainer = build_trainer(config, build_callbacks(config, data, history), build_logger(config, step))
    origin = provenance(config, data, classifier, trainer)
    classifier.record["origin"] = origin
    with signals.wait(), memory_advice(config):
        trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    best = best_checkpoint(trainer, data)
    pruned = was_pruned(trainer)
    result: Result = {"status": "pruned" if pruned else "finished"}
    result |= {name: value for name, value in history.best().items() if name.startswith(("train/", "val/"))}
    result |= {"epochs": len(history.rows), "steps": trainer.global_step}
    result |= {"train/seconds": history.train_seconds, "train/images_per_second": history.images_per_second}
    if config.test and not pruned:
        result |= test(trainer, classifier, data, best)
    result |= origin | {"folder": str(folder)}
    if trainer.is_global_zero:
        if writer := writer_of(trainer):
            final = {name: result[name] for name in HPARAMS_METRICS if name in result}
            add_hparams(writer, classifier.record["config"], final, result["steps"])
        write_json(folder / "result.json", result)  # last: a run that has one never goes on
    return result


@rank_zero_only
def begin(config: DictConfig, folder: Path) -> None:
    """From here on the folder tells of this run: its result is open, and its settings are those it is resumed with."""
    (folder / "result.json").unlink(missing_ok=True)
    if config.resume and HydraConfig.initialized():
        overrides = [argument for argument in HydraConfig.get().overrides.task if not argument.startswith("resume=")]
        write_text(folder / ".hydra" / "overrides.yaml", OmegaConf.to_yaml(overrides))
        write_text(folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(OmegaConf.merge(config, {"resume": None})))


@contextmanager
def memory_advice(config: DictConfig) -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        size, accumulated = config.data.batch_size, config.trainer.accumulate_grad_batches
        fewer = f"data.batch_size={size // 2} trainer.accumulate_grad_batches={2 * accumulated}"
        advice = f"try {fewer}, which takes the same steps" if size > 1 else "the network is too large for it"
        raise RunError(f"out of memory on the GPU with data.batch_size={size}: {advice}") from error


def prepare_process(seed: int) -> None:
    """What training sets for the whole process."""
    quiet_lightning()
    keep_freed_memory()
    torch.set_float32_matmul_precision("high")  # TF32 where the GPU has it
    L.seed_everything(seed, verbose=False)


def quiet_lightning() -> None:
    """Keep its warnings, but for what it tells of every run and what a user cannot mend."""
    for package in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(package).setLevel(logging.WARNING)
    for message in (
        ".*LeafSpec.* is deprecated",
        ".*exists and is not empty",  # a run is resumed
        "The number of training batches",  # is less than log_every_n_steps, but the last step is logged always
        "Total length of `list` across ranks is zero",  # no validation was asked for
        "Precision .* is not supported by the model summary",  # which tells megabytes; ours tells parameters
        "The `srun` command is available",  # README tells how SLURM is used
        "You requested to overfit",  # and the loader does not shuffle then
        "The provided params to be frozen already exist",  # BackboneFinetuning meets the norms that it left trainable
    ):
        warnings.filterwarnings("ignore", message=message)


def keep_freed_memory() -> None:
    """Keep blocks of up to 1 GiB for the next step, where glibc would return them and fault each page in again.

    On a CPU that took 5 to 10% of a step (benchmarks/README.md). Other C libraries have no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, 2**30)
        mallopt(M_MMAP_THRESHOLD, 2**30)


def build_data(config: DictConfig, stages: Sequence[str]) -> ImageDataModule:
    data: ImageDataModule = instantiate(config.data, seed=config.seed, _convert_="all")
    for stage in stages:
        data.setup(stage)
    return data


def build_classifier(config: DictConfig, data: ImageDataModule) -> Classifier:
    spec = data.spec
    network = build_network(config.model, spec.channels, len(spec.classes), spec.image_size)
    check_shapes(network, data.batch_size, spec.channels, spec.image_size)
    classifier = Classifier(
        network.to(memory_format=torch.channels_last),
        spec,
        augmentation=data.augmentation(),
        optimizer=tried("optimizer", instantiate(config.optimizer, _convert_="all"), [nn.Parameter(torch.zeros(1))]),
        schedule=tried("scheduler", without_checks(instantiate(config.scheduler, _convert_="all")), 0, 1),
        label_smoothing=config.label_smoothing,
        mixup=config.mixup,
        cutmix=config.cutmix,
        flip_averaging=config.flip_averaging,
        seed=config.seed,
    )
    if config.model.get("whiten_stem"):
        if config.model.weights is not None:
            raise UserError("model.whiten_stem=true would overwrite the first convolution of model.weights: choose one")
        images, _ = next(iter(data.train_dataloader()))
        whiten_stem(network, classifier.preprocess(images))
    classifier.record = {"config": OmegaConf.to_container(config, resolve=True), "spec": asdict(spec)}
    if config.compile:
        network.compile()  # in place: wrapping would change the checkpoint's keys
    return classifier


def tried(group: str, partial: functools.partial[Any], *arguments: Any) -> functools.partial[Any]:
    """The same, after one call. Raises UserError for an option that its class does not have, or not with this value."""
    try:
        partial(*arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{group}: {error}") from error
    return partial


def without_checks(partial: functools.partial[Any]) -> functools.partial[Any]:
    """A plain partial: Hydra's own checks every call again, which for a schedule is two a step, 0.4 ms each."""
    return functools.partial(partial.func, *partial.args, **partial.keywords)


def build_callbacks(config: DictConfig, data: ImageDataModule, history: History) -> list[Callback]:
    callbacks: list[Callback] = [history, *instantiate(config.callbacks, _convert_="all").values()]
    if data.splits["val"] is None:
        if any(isinstance(callback, EarlyStopping) for callback in callbacks):
            raise UserError("early stopping needs validation images: set data.val_fraction")
        callbacks = [callback for callback in callbacks if not watches_validation(callback)]
    callbacks += [*freezing(config), *pruning(Path(config.folder))]
    if config.trainer.enable_progress_bar and sys.stdout.isatty():
        callbacks.append(ProgressBar(history))
    return callbacks


def freezing(config: DictConfig) -> list[Callback]:
    freeze = config.model.freeze
    if freeze is False:
        return []
    epoch = config.trainer.max_epochs if freeze is True else freeze  # true: never unfrozen
    return [BackboneFinetuning(unfreeze_backbone_at_epoch=epoch)]


def watches_validation(callback: Callback) -> bool:
    return isinstance(callback, ModelCheckpoint) and (callback.monitor or "").startswith("val/")


def require_accelerator(name: str, option: str = "trainer.accelerator") -> None:
    """Told before a data set is downloaded for it."""
    if name in ("gpu", "cuda") and not torch.cuda.is_available() and not torch.mps.is_available():
        raise UserError(
            f"{option}={name}, but torch {torch.__version__} finds no GPU here: {option}=cpu runs the same on the CPU"
        )


def build_trainer(config: DictConfig, callbacks: list[Callback], logger: Logger | None) -> L.Trainer:
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
    """`auto` is bf16-mixed where the device computes in bf16 itself, else 32-true."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if computes_in_bf16(accelerator) else "32-true"


def computes_in_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if accelerator == "cpu" or not torch.mps.is_available():
        abilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # newer torch has it
        return any(abilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return False


def build_logger(config: DictConfig, step: int) -> Logger | None:
    """A resumed run's curves go on where its checkpoint was written: TensorBoard drops what came after."""
    if not config.logger:
        return None
    return instantiate(config.logger, purge_step=step) if config.resume else instantiate(config.logger)


def best_checkpoint(trainer: L.Trainer, data: ImageDataModule) -> str | None:
    """The best one by validation accuracy; None, for the last weights, where nothing but the test set was watched."""
    if data.splits["val"] is None or data.validate_on_test:
        return None
    watching = [callback for callback in trainer.checkpoint_callbacks if watches_validation(callback)]
    return watching[0].best_model_path or None if watching else None  # type: ignore[attr-defined]


def test(trainer: L.Trainer, classifier: Classifier, data: ImageDataModule, checkpoint: str | None) -> Result:
    if data.splits["test"] is None:
        log.info("data=%s has no test set: nothing to test", data.name)
        return {}
    classifier.record["step"] = trainer.global_step
    (metrics,) = trainer.test(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False)
    return dict(metrics)


def provenance(config: DictConfig, data: ImageDataModule, classifier: Classifier, trainer: L.Trainer) -> Result:
    """What the figures come from, as plain values: it is in result.json and in every checkpoint."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.seed,
        "parameters": sum(parameter.numel() for parameter in classifier.network.parameters()),
        "device": name,
        "precision": trainer.precision,
        "versions": versions(),
        "git_commit": git_commit(),
        "data_checksum": data.checksum(),
    }


def versions() -> dict[str, str]:
    return {
        "python": sys.version.split()[0],
        "torch": str(torch.__version__),  # a plain string for the checkpoint
        "torchvision": torchvision.__version__,
        "lightning": L.__version__,
    }


def git_commit() -> str | None:
    """Of ResLab's own checkout, with `-dirty` where files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
