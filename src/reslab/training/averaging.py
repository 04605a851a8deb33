"""An exponential moving average of the weights, which validation, checkpoints and tests use."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from reslab.options import check_option
from reslab.training.checkpoints import ends_optimizer_step, is_validated_in_training
from reslab.training.classifier import Classifier
from reslab.training.options import RUN
from reslab.training.schedules import optimizer_steps

State = dict[str, Tensor]  # the floating-point part of a state_dict; batch norm's counts of batches are not averaged


class WeightAverage(Callback):
    """Average the weights and batch-norm statistics exponentially.

    In a checkpoint, `state_dict` holds the average, and `last_weights` the weights with which training continues.
    Lightning's EMAWeightAveraging (2.6) keeps the average on the CPU, waits for the device twice in each step, and
    tests the last weights instead of the average.

    With `every_steps` and `copy_fraction`, the updates are those of torchvision's references/classification/train.py.
    There, `--model-ema-decay d --model-ema-steps k` gives the decay 1 - (1 - d) * batch size * k / epochs.

    Args:
        decay: the weight of the old average in each update, from 0 to 1.
        warmup: use a smaller decay at first, (1 + n) / (10 + n), as TensorFlow's ExponentialMovingAverage does with
            `num_updates`. n is the number of optimizer steps divided by `every_steps`, rounded up. The average of a
            short run then forgets the initial weights.
        every_steps: optimizer steps from one update to the next. The first step of each epoch has one.
        copy_fraction: in this fraction of all steps and in the step after them, an update copies the weights; None: the
            average begins with the initial weights.

    Raises:
        UserError: an argument has a value that it may not take.
    """

    def __init__(self, *, decay: float, warmup: bool, every_steps: int = 1, copy_fraction: float | None = None) -> None:
        for name, value in (("decay", decay), ("every_steps", every_steps), ("copy_fraction", copy_fraction)):
            check_option(f"callbacks.ema.{name}", value, RUN[f"callbacks.ema.{name}"])
        self.decay, self.warmup, self.every_steps, self.copy_fraction = decay, warmup, every_steps, copy_fraction
        self.last_copied_step = 0
        self.average: State = {}  # in float32, whatever the type of the weights is
        self.weights: State = {}  # the network's own tensors; both are empty outside training

    def decay_at(self, step: int) -> float:
        """Return the decay after an optimizer step; the first step is 1."""
        if step <= self.last_copied_step:
            return 0.0
        n = 1 + (step - 1) // self.every_steps  # rounded up
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    # training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        state = pl_module.network.state_dict()
        self.weights = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
        if self.copy_fraction is not None:
            self.last_copied_step = 1 + round(self.copy_fraction * optimizer_steps(trainer))
        start = self.average or self.weights
        self.average = {
            name: start[name].to(weight.device, torch.float32, copy=True) for name, weight in self.weights.items()
        }

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step_in_epoch = batch_idx // trainer.accumulate_grad_batches
        if not ends_optimizer_step(trainer, batch_idx) or step_in_epoch % self.every_steps:
            return
        weights = [weight.float() for weight in self.weights.values()]
        update = get_ema_multi_avg_fn(self.decay_at(trainer.global_step))
        update(list(self.average.values()), weights, trainer.global_step)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        copy_tensors(self.average, self.weights)
        self.average = self.weights = {}

    # validation during training

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validated_in_training(trainer):  # the network has the averages already
            return
        self.last_weights = {name: weight.clone() for name, weight in self.weights.items()}
        copy_tensors(self.average, self.weights)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not is_validated_in_training(trainer):
            return
        copy_tensors(self.last_weights, self.weights)
        self.last_weights = {}

    # checkpoints

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["last_weights"] = checkpoint["state_dict"]
        average = {f"network.{name}": tensor for name, tensor in self.average.items()}
        checkpoint["state_dict"] = checkpoint["state_dict"] | average

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.training and "last_weights" in checkpoint:
            self.average = {name.removeprefix("network."): tensor for name, tensor in checkpoint["state_dict"].items()}
            pl_module.load_state_dict(checkpoint["last_weights"])


def copy_tensors(source: State, target: State) -> None:
    """Write the values of the source's tensors into the target's tensors of the same names."""
    for name, tensor in source.items():
        target[name].copy_(tensor)
