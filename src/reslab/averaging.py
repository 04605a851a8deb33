"""An exponential moving average of the weights: what validation, checkpoints and tests then take."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from reslab.classifier import Classifier
from reslab.errors import UserError

State = dict[str, Tensor]  # what of the network's state_dict is averaged: all but batch norm's counts of batches


class WeightAverage(Callback):
    """Averages weights and batch-norm statistics after each optimizer step, without a wait for the device.

    A checkpoint's state_dict holds the average, its `last_weights` those that training goes on from. Lightning's
    EMAWeightAveraging (2.6) keeps its average on the CPU, waits for the device twice a step, and lets the test load the
    last weights.
    """

    def __init__(self, *, decay: float, warmup: bool) -> None:
        if not 0 <= decay <= 1:
            raise UserError(f"callbacks.ema.decay={decay} must be from 0 to 1")
        self.decay, self.warmup = decay, warmup
        self.average: State = {}  # float32 whatever the weights are
        self.weights: State = {}  # the network's own tensors; both are empty outside training

    def decay_at(self, step: int) -> float:
        """Warmed up as TensorFlow's is: by (1 + step) / (10 + step) while that is less."""
        return min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay

    # training

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Classifier)
        state = pl_module.network.state_dict()
        self.weights = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
        start = self.average or self.weights
        self.average = {
            name: start[name].to(weight.device, torch.float32, copy=True) for name, weight in self.weights.items()
        }
        self.step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:  # gradients are being accumulated
            return
        self.step = trainer.global_step
        weights = [weight.float() for weight in self.weights.values()]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay_at(self.step))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        copy(self.average, self.weights)
        self.average = self.weights = {}

    # validation within it

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last_weights = {name: weight.clone() for name, weight in self.weights.items()}
        copy(self.average, self.weights)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        copy(self.last_weights, self.weights)
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


def copy(source: State, target: State) -> None:
    for name, tensor in source.items():
        target[name].copy_(tensor)
