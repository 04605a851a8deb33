"""The training of ashleve/lightning-hydra-template, one of the baselines in baselines.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichModelSummary, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MaxMetric, MeanMetric
from torchmetrics.classification import Accuracy

if TYPE_CHECKING:
    from baselines import Clock


class Module(L.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.criterion = net, nn.CrossEntropyLoss()
        self.train_acc, self.train_loss = Accuracy(task="multiclass", num_classes=10), MeanMetric()
        self.val_acc_best = MaxMetric()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self.net(x)
        loss = self.criterion(logits, y)
        self.train_loss(loss)
        self.train_acc(logits.argmax(1), y)
        self.log("train/loss", self.train_loss, on_step=False, on_epoch=True, prog_bar=True)
        self.log("train/acc", self.train_acc, on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


class Timer(Callback):
    def __init__(self, clock: "Clock") -> None:
        self.clock = clock

    def on_train_epoch_start(self, *_: Any) -> None:
        self.clock.start_epoch()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.clock.end_step(len(batch[1]))


def fit(net: nn.Module, loader: "DataLoader[Any]", epochs: int, clock: "Clock", folder: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[Timer(clock), ModelCheckpoint(folder, save_last=True), RichModelSummary(), RichProgressBar()],
        logger=TensorBoardLogger(folder),
        log_every_n_steps=50,
    )
    trainer.fit(Module(net), loader)
