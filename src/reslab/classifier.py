"""The LightningModule: a network, what its images need before it, its loss, metrics, optimizer and schedule."""

import logging
import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torchmetrics.classification import MulticlassConfusionMatrix
from torchvision.transforms import v2

from reslab.data.base import ImageSpec
from reslab.data.batches import Batch, mix
from reslab.data.transforms import Preprocessing
from reslab.errors import UserError
from reslab.metrics import Metrics
from reslab.models.build import classifier_layer
from reslab.schedules import ScheduledLR

log = logging.getLogger(__name__)

Schedule = Callable[[int, int], float]  # (step, total_steps) -> factor on the learning rate


class Classifier(L.LightningModule):
    """Takes uint8 images as they are stored; augmentation and normalisation happen here, on the training device."""

    def __init__(
        self,
        network: nn.Module,
        spec: ImageSpec,
        *,
        augmentation: nn.Module | None = None,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
        schedule: Schedule | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        flip_averaging: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocessing(
            mean=spec.mean, std=spec.std, channels=spec.channels, image_size=spec.image_size
        )
        self.augment = augmentation or nn.Identity()
        self.optimizer, self.schedule = optimizer, schedule
        self.label_smoothing, self.flip_averaging, self.seed = label_smoothing, flip_averaging, seed
        self.record: dict[str, Any] = {}  # the run's config, spec and origin, as plain values for the checkpoint
        self.example_input_array: Tensor = torch.zeros(
            2, len(spec.mean), spec.image_size, spec.image_size, dtype=torch.uint8
        )
        num_classes = len(spec.classes)
        self.mixing = batch_mixing(mixup, cutmix, num_classes)
        self.train_metrics = Metrics(num_classes, local=True)  # the progress bar of one process reads them
        self.val_metrics = Metrics(num_classes)
        self.test_metrics = Metrics(num_classes, final=True)
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self.confusion_matrix: Tensor  # of the last test: int64 (num_classes, num_classes), true by predicted

    def forward(self, images: Tensor) -> Tensor:  # uint8 (N, C, H, W) -> logits (N, num_classes)
        return self.network(self.preprocess(images))

    def evaluation_logits(self, images: Tensor) -> Tensor:  # uint8 (N, C, H, W) -> float32 logits (N, num_classes)
        """What validation, test and prediction go by."""
        logits = self(images).float()
        return (logits + self(images.flip(3)).float()) / 2 if self.flip_averaging else logits

    # the four steps

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, labels = batch
        # whatever is drawn in this step is a function of the seed, the step and the rank, so a resumed run draws it too
        seed_generators(mix(self.seed, self.trainer.fit_loop.epoch_loop.total_batch_idx, self.global_rank), self.device)
        x, targets = self.preprocess(self.augment(images)), labels
        if self.mixing:
            x, targets = self.mixing(x, labels)  # targets: (N, num_classes)
            x = x.contiguous(memory_format=self.preprocess.memory_format)  # which blending on a GPU loses
        logits = self.network(x)  # (N, num_classes)
        loss = F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        self.train_metrics.add(loss.detach(), logits.detach(), labels)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate(self.val_metrics, batch)

    def test_step(self, batch: Batch, batch_index: int) -> Tensor:
        logits = self._evaluate(self.test_metrics, batch)
        self.confusion.update(logits, batch[1])
        return logits

    def predict_step(self, batch: Tensor, batch_index: int) -> Tensor:
        return self.evaluation_logits(batch).softmax(1)

    def _evaluate(self, metrics: Metrics, batch: Batch) -> Tensor:
        images, labels = batch
        logits = self.evaluation_logits(images)
        metrics.add(F.cross_entropy(logits, labels), logits, labels)
        return logits

    def on_validation_epoch_end(self) -> None:
        self._log_and_reset("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self.confusion.reset()

    def on_test_epoch_end(self) -> None:
        self._log_and_reset("test", self.test_metrics)
        self.confusion_matrix = self.confusion.compute().cpu()  # here, where every device takes part

    def _log_and_reset(self, name: str, metrics: Metrics) -> None:
        values = {f"{name}/{metric}": value for metric, value in metrics.compute().items()}
        self.log_dict(values, sync_dist=True)  # they agree on all devices by now; it says so to Lightning
        metrics.reset()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reslab"] = self.record
        checkpoint["train_metrics"] = gather(self.train_metrics.state())  # each process has its own

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.trainer.training:
            return
        before, now = checkpoint["reslab"]["origin"], self.record["origin"]
        if before["data_checksum"] != now["data_checksum"]:
            raise UserError(f"data={now['data']}: the images are not those that the run began with; start a new run")
        if before["precision"] != now["precision"]:
            log.warning("the run began in %s and goes on in %s", before["precision"], now["precision"])
        states = checkpoint["train_metrics"]
        if len(states) == self.trainer.world_size:
            self.train_metrics.load_state(states[self.global_rank])

    # optimization

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.optimizer is not None
        assert self.schedule is not None
        optimizer = self.optimizer(parameter_groups(self.network))
        schedule, total_steps = self.schedule, optimizer_steps(self.trainer)
        scheduler = ScheduledLR(optimizer, lambda step: schedule(min(step, total_steps - 1), total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """By the norm of all gradients; Lightning would refuse fused optimizers in bf16-mixed, which scales none."""
        if gradient_clip_val is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)

    @property
    def backbone(self) -> nn.Module:
        """All but the classifier layer, under the name that Lightning's BackboneFinetuning looks for."""
        head = classifier_layer(self.network)
        return nn.ModuleList(module for module in self.network.children() if module is not head)


def batch_mixing(mixup: float, cutmix: float, num_classes: int) -> nn.Module | None:
    """MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899) of a float batch and its labels; of both, one a batch.

    Each image takes from the one before it. What is drawn is drawn on the CPU, so that a GPU is not waited for.
    """
    for name, alpha in (("mixup", mixup), ("cutmix", cutmix)):
        if alpha < 0:
            raise UserError(f"{name}={alpha} must not be negative: it is the alpha of a Beta distribution, 0 for none")
    choices: list[nn.Module] = []  # torch's Beta draws from no integer
    if mixup:
        choices.append(v2.MixUp(alpha=float(mixup), num_classes=num_classes))
    if cutmix:
        choices.append(v2.CutMix(alpha=float(cutmix), num_classes=num_classes))
    return v2.RandomChoice(choices) if choices else None


def gather(value: Any) -> list[Any]:
    """Of every process, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def seed_generators(seed: int, device: torch.device) -> None:
    """The CPU's and the device's own; torch.manual_seed formats a stack trace for absent GPUs, up to 1 ms each time."""
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def optimizer_steps(trainer: L.Trainer) -> int:
    """All steps of a run.

    Lightning's `estimated_stepping_batches` would set up the loader before a checkpoint's state of it is read, and then
    pass over that state.
    """
    batches, limit = trainer.datamodule.batches_per_epoch, trainer.limit_train_batches  # type: ignore[attr-defined]
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    if batches == 0:
        raise UserError(f"trainer.limit_train_batches={limit} leaves none of the batches of an epoch: raise it")
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * (trainer.max_epochs or 0)
    if trainer.max_steps < 0:
        return steps
    return min(trainer.max_steps, steps) if trainer.max_epochs != -1 else trainer.max_steps


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Weights with the optimizer's weight decay; biases and norms, the one-dimensional ones, without."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in parameters if parameter.ndim > 1]},
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
