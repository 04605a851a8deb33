"""The LightningModule: a network with its preprocessing, loss, metrics, optimizer and learning-rate schedule."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from reslab.data.batches import Batch, NumberedBatch, derive_seed
from reslab.data.preprocessing import Preprocessing, require_pixels
from reslab.data.spec import ImageSpec
from reslab.data.training_files import trained_files
from reslab.training.answers import MAX_NUMBERS, Answers
from reslab.training.checkpoints import refuse_lost_weights
from reslab.training.confusion import Confusion
from reslab.training.freezing import Freezing
from reslab.training.graph import Inputs, StepGraphs
from reslab.training.losses import cross_entropy
from reslab.training.metrics import Metrics, TrainingMetrics
from reslab.training.mixing import Mix, batch_mixing
from reslab.training.optimizers import parameter_groups
from reslab.training.record import EARLIER_ORIGINS, FILES, WHERE
from reslab.training.schedules import optimizer_steps
from reslab.training.views import Views

log = logging.getLogger(__name__)

Schedule = Callable[[int, int], float]  # (step, total_steps) -> factor on the learning rate
Loss = Callable[[Tensor, Tensor, Tensor | None, float], Tensor]  # see losses.py


class Classifier(L.LightningModule):
    """A classifier of images. It takes the images as they are stored; all computation on them is on its device.

    Args:
        network: maps normalized float images (N, C, H, W) to logits (N, num_classes).
        spec: the classes, the shape and the statistics of the images.
        augmentation: is applied to uint8 training images (N, C, H, W).
        optimizer: makes the optimizer of parameter groups; needed for training only.
        schedule: maps (step, total_steps) to a factor on the learning rate; needed for training only.
        loss: what training minimizes, one of losses.py or of the same kind.
        class_weights: by how much the images of each class count in it, one per class; None: all alike.
        label_smoothing: from 0 to 1, for the training loss only.
        mixup: alpha of MixUp's Beta distribution; 0 turns it off.
        cutmix: alpha of CutMix's Beta distribution; 0 turns it off. With both, each batch uses one of them at random.
        flip_averaging: evaluate each image and its mirror image, and average their logits.
        seed: with the step and the rank, it determines everything that a training step draws.
        freezing: freezes a part of the network in some epochs.
        layer_decay: the learning rate of each stage, as a fraction of that of the stage after it.

    Attributes:
        record: the configuration, spec and origin of the run, as plain values. A checkpoint holds it as "reslab".
        views: the copies of each image whose logits validation, tests and predictions average.
        graphs: replay training steps as CUDA graphs; None if every step runs eagerly.
        evaluated_images: the number of images of the last validation, "val", and of the last test, "test".
        confusion: how often each pair of a true and a predicted class occurred in the last test.
        answers: the logits of the last test, without the names of files; None if they are too many to be kept.

    Raises:
        UserError: `mixup` or `cutmix` has a value that it may not take.

    Example:
        >>> spec = ImageSpec(classes=["cat", "dog"], channels=1, image_size=4, mean=[0.5], std=[0.25])
        >>> classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), spec)
        >>> classifier(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)).shape
        torch.Size([3, 2])
    """

    confusion: Confusion
    class_weights: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        spec: ImageSpec,
        *,
        augmentation: nn.Module | None = None,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer] | None = None,
        schedule: Schedule | None = None,
        loss: Loss = cross_entropy,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        flip_averaging: bool = False,
        seed: int = 0,
        freezing: Freezing | None = None,
        layer_decay: float = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocessing(
            mean=spec.mean,
            std=spec.std,
            channels=spec.channels,
            fitting=spec.fitting(training=True),
            in_evaluation=spec.fitting(training=False),
        )
        self.augment = augmentation or nn.Identity()
        self.optimizer, self.schedule = optimizer, schedule
        self.loss = loss
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)
        self.label_smoothing, self.seed = label_smoothing, seed
        self.views = Views(flip=flip_averaging)
        self.freezing, self.layer_decay = freezing, layer_decay
        self.record: dict[str, Any] = {}
        self.graphs: StepGraphs | None = None
        self.is_replayed = False  # whether a graph has computed the gradients of the present step
        self.evaluated_images: dict[str, int] = {}
        self.example_input_array: Tensor = torch.zeros(
            2, len(spec.mean), spec.image_size, spec.image_size, dtype=torch.uint8
        )
        num_classes = len(spec.classes)
        self.mixing = batch_mixing(mixup, cutmix, num_classes, spec.image_size)
        # These are of this process, so that none waits for another at each logged step. History averages them over the
        # processes at the end of an epoch.
        self.train_metrics = TrainingMetrics(num_classes)
        self.val_metrics = Metrics(num_classes)
        self.test_metrics = Metrics(num_classes, final=True)
        self.classes = spec.classes
        self.tested_pairs: list[Tensor] = []  # as `Confusion.of_codes` takes them
        self.answers: Answers | None = None
        self.tested: list[tuple[Tensor, Tensor, Tensor]] | None = []  # logits, labels and indices of each batch

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute. Lightning notes fifty times in a step which hook runs, which nn.Module would check."""
        if name in self.__dict__ and isinstance(value, str | bool | None):
            self.__dict__[name] = value  # it is neither a parameter nor a module, and stays so
        else:
            super().__setattr__(name, value)

    @property
    def loss_name(self) -> str:
        """The name of the function that training minimizes."""
        return str(getattr(getattr(self.loss, "func", self.loss), "__name__", type(self.loss).__name__))

    def forward(self, images: Tensor) -> Tensor:  # uint8 (N, C, H, W) -> logits (N, num_classes)
        require_pixels(images)
        return self.network(self.preprocess(images))

    def evaluation_logits(self, images: Tensor) -> Tensor:  # uint8 (N, C, H, W) -> float32 logits (N, num_classes)
        """Return the logits that validation, tests and predictions use."""
        require_pixels(images)
        return self.views.mean_logits(images, self.preprocess, self.network)

    # steps

    def on_train_start(self) -> None:
        self._freeze()  # a run that is resumed within an epoch does not start this epoch again
        self._set_learning_rates()

    def on_train_epoch_start(self) -> None:
        self._freeze()

    def _freeze(self) -> None:
        if self.freezing is not None:
            self.freezing.apply(self.trainer.current_epoch)

    def _set_learning_rates(self) -> None:
        """Give the first step of a resumed run the schedule's rate: the optimizer has that of the earlier length."""
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            assert isinstance(scheduler, LambdaLR)
            groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            for group, base, factor in groups:
                group["lr"] = base * factor(scheduler.last_epoch)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, labels = batch
        # Everything that this step draws is a function of the seed, the batch's number since the start of the run and
        # the rank, so that a resumed run draws the same.
        number = self.trainer.current_epoch * int(self.trainer.num_training_batches) + batch_index
        seed = derive_seed(self.seed, number, self.global_rank)
        factor = self._accumulation_factor(batch_index)
        has_graphs = self.graphs is not None and self.graphs.is_active
        replayed = self._replay(images, labels, seed, factor, batch_index) if has_graphs else None
        self.is_replayed = replayed is not None
        if replayed is not None:
            loss, sums = replayed
        else:
            seed_generators(seed, self.device)
            loss, sums = self.loss_and_sums(images, labels, self.draw_mix)
        self.train_metrics.add(sums, len(labels))
        return scaled(loss, factor)

    def loss_and_sums(
        self, images: Tensor, labels: Tensor, draw_mix: Callable[[], Mix | None]
    ) -> tuple[Tensor, Tensor]:
        """Return the mean loss of a training batch, and what its metrics add (`TrainingMetrics.of_batch`).

        It is a function of its arguments, the weights and the generators: nothing here looks at a value on a GPU.

        Args:
            images: uint8 (N, C, H, W).
            labels: int64 (N,).
            draw_mix: called once the augmentation has drawn, because on a CPU both draw from one generator.
        """
        x, targets = self.preprocess(self.augment(images)), labels
        if self.mixing is not None and (mix := draw_mix()) is not None:
            x, targets = self.mixing.apply(mix, x, labels)  # targets: (N, num_classes)
            x = x.contiguous(memory_format=self.preprocess.memory_format)  # mixing on a GPU loses the format
        logits = self.network(x)  # (N, num_classes)
        loss = self.loss(logits, targets, self.class_weights, self.label_smoothing)
        return loss, self.train_metrics.of_batch(loss.detach(), logits.detach(), labels)

    def draw_mix(self) -> Mix | None:
        return self.mixing.draw(self.device) if self.mixing is not None else None

    # graphs

    def _replay(
        self, images: Tensor, labels: Tensor, seed: int, factor: float, batch_index: int
    ) -> tuple[Tensor, Tensor] | None:
        """Return the loss and the metrics' sums of a step that a graph has computed; None if it must run eagerly."""
        assert self.graphs is not None
        seed_generators(seed, self.device)
        inputs = Inputs(images, labels, self.draw_mix())
        divisor = self.trainer.accumulate_grad_batches

        def step(inputs: Inputs) -> tuple[Tensor, Tensor]:
            loss, sums = self.loss_and_sums(inputs.images, inputs.labels, lambda: inputs.mix)
            with torch.autocast(self.device.type, enabled=False):  # as Lightning calls backward
                (scaled(loss, factor) / divisor).backward()
            return loss.detach(), sums

        return self.graphs.run(step, inputs, factor, accumulates=batch_index % divisor > 0)

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        if not self.is_replayed:
            super().backward(loss, *args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer) -> None:
        if not self.is_replayed:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def _accumulation_factor(self, batch_index: int) -> float:
        """Return what makes the gradient of an optimizer step the mean over its batches.

        Lightning divides by `accumulate_grad_batches`, also at the end of an epoch where fewer batches are left.
        """
        accumulated = self.trainer.accumulate_grad_batches
        first = batch_index - batch_index % accumulated
        return accumulated / min(accumulated, int(self.trainer.num_training_batches) - first)

    def training_metrics(self) -> dict[str, Tensor]:
        """Return the metrics of the epoch so far, by name, as scalars of this process.

        MixUp and CutMix give each image two labels. An accuracy that counts only its own one is called "mixed_accuracy"
        then, because it cannot be compared with that of validation.
        """
        values = self.train_metrics.compute()
        return {mixed_name(name) if self.mixing else name: value for name, value in values.items()}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        self._evaluate(self.val_metrics, batch)

    def test_step(self, batch: NumberedBatch, batch_index: int) -> Tensor:
        images, labels, indices = batch
        logits, scored = self._evaluate(self.test_metrics, (images, labels))
        self.tested_pairs.append(labels * len(self.classes) + scored.argmax(1))
        if self.tested is not None:
            self.tested.append((logits.cpu(), labels.cpu(), indices.cpu()))
            if len(self.tested) * logits.numel() * self.trainer.world_size > MAX_NUMBERS:
                self.tested = None
        return logits

    def _evaluate(self, metrics: Metrics, batch: Batch) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self.evaluation_logits(images)
        return logits, metrics.add(F.cross_entropy(logits, labels), logits, labels)

    # ends of epochs

    def on_validation_epoch_end(self) -> None:
        self._log_and_reset("val", self.val_metrics)

    def on_test_epoch_start(self) -> None:
        self.tested_pairs, self.tested = [], []

    def on_test_epoch_end(self) -> None:
        self._log_and_reset("test", self.test_metrics)
        parts = [torch.cat(self.tested_pairs).cpu()] if self.tested_pairs else []
        gathered = gather_by_rank(parts)  # here, where all processes take part
        self.confusion = Confusion.of_codes([part for parts in gathered for part in parts], len(self.classes))
        self.answers = self._gathered_answers()

    def _gathered_answers(self) -> Answers | None:
        """Return the answers of all processes; None if those of one of them were too many, and in further processes.

        Logits have N x C numbers, which only the process that writes them has to hold.
        """
        own = None if self.tested is None else [torch.cat(parts) for parts in zip(*self.tested, strict=True)]
        self.tested = []
        gathered = gather_at_first(own)
        if gathered is None or any(parts is None for parts in gathered) or not any(gathered):
            return None
        logits, labels, indices = (torch.cat(parts) for parts in zip(*filter(None, gathered), strict=True))
        order = indices.argsort()
        return Answers(logits[order], labels[order], indices[order], self.classes)

    def _log_and_reset(self, name: str, metrics: Metrics) -> None:
        values = {f"{name}/{metric}": value for metric, value in metrics.compute().items()}
        self.log_dict(values, sync_dist=True)  # the values are equal already; without it Lightning would warn
        images = self.trainer.strategy.reduce(metrics.loss.images, reduce_op="sum")
        self.evaluated_images[name] = int(images)
        metrics.reset()

    # checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        refuse_lost_weights(checkpoint, self.trainer)
        checkpoint["reslab"] = self.record
        checkpoint["train_metrics"] = gather_by_rank(self.train_metrics.state())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if not self.trainer.training:
            return
        before, now = checkpoint["reslab"]["origin"], self.record["origin"]
        self._keep_training_files(checkpoint["reslab"])
        self._keep_origin(checkpoint["reslab"], checkpoint["global_step"])
        if before["precision"] != now["precision"]:
            log.warning("the run began in %s and continues in %s", before["precision"], now["precision"])
        self.train_metrics.load_states(checkpoint["train_metrics"], self.global_rank, self.trainer.world_size)

    def _keep_origin(self, earlier: dict[str, Any], step: int) -> None:
        """Record where the run was trained before, if it continues on another device or with other software."""
        parts = earlier.get(EARLIER_ORIGINS, [])
        before, now = ({name: each.get(name) for name in WHERE} for each in (earlier["origin"], self.record["origin"]))
        if before != now:
            parts = [*parts, {"until_step": step} | before]
        if parts:
            self.record[EARLIER_ORIGINS] = parts

    def _keep_training_files(self, earlier: dict[str, Any]) -> None:
        """Add the files that the run has trained on before; an older version has not recorded them."""
        if "validation_files" not in earlier:
            self.record.pop("validation_files", None)
        elif all(each.get(name) is not None for each in (earlier, self.record) for name in FILES):
            self.record["validation_files"] = self._only_validated(earlier)
        if "training_files" not in earlier:
            self.record.pop("training_files", None)
        elif earlier["training_files"] is not None and self.record["training_files"] is not None:
            self.record["training_files"] = torch.cat(
                [earlier["training_files"], self.record["training_files"]]
            ).unique()

    def _only_validated(self, earlier: dict[str, Any]) -> Tensor:
        """Return the files that the run has validated on and never trained on, and count in a warning the others."""
        before, now = ((each["training_files"], each["validation_files"]) for each in (earlier, self.record))
        trained_before, trained_now = trained_files(*before), trained_files(*now)
        if count := int(torch.isin(now[1], trained_before).sum()):
            log.warning(
                "%s of the %s validation images were training images before: the validation accuracy may be too high",
                f"{count:,}", f"{len(now[1]):,}",
            )  # fmt: skip
        validated = torch.cat([before[1], now[1]]).unique()
        return validated[~torch.isin(validated, torch.cat([trained_before, trained_now]))]

    # optimization

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        assert self.optimizer is not None
        assert self.schedule is not None
        frozen = self.freezing.parameters if self.freezing else frozenset[nn.Parameter]()
        optimizer = self.optimizer(parameter_groups(self.network, frozen, self.layer_decay))
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_factor", 1.0)
        schedule, total_steps = self.schedule, optimizer_steps(self.trainer)
        scheduler = LambdaLR(optimizer, lambda step: schedule(min(step, total_steps - 1), total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        """Clip the norm of all gradients together, or each of their values.

        Lightning's own clipping refuses fused optimizers in bf16-mixed too, where no gradient is scaled.
        """
        if gradient_clip_val is None:
            return
        if gradient_clip_algorithm == "value":
            nn.utils.clip_grad_value_(self.network.parameters(), gradient_clip_val)
        else:
            nn.utils.clip_grad_norm_(self.network.parameters(), gradient_clip_val)


def scaled(loss: Tensor, factor: float) -> Tensor:
    return loss if factor == 1 else loss * factor


def mixed_name(metric: str) -> str:
    """Return the name of a metric over mixed images, e.g. mixed_accuracy."""
    return f"mixed_{metric}" if metric.endswith("accuracy") else metric


def gather_by_rank(value: Any) -> list[Any]:
    """Return the value of every process, in the order of their ranks."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def gather_at_first(value: Any) -> list[Any] | None:
    """Return the value of every process, in the order of their ranks, to the first process; None to the others."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(value, values)
    return values


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of the device.

    torch.manual_seed would format a stack trace for absent GPUs, which takes up to 1 ms.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)
