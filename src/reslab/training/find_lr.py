"""A range test of the learning rate (Smith 2015, arXiv:1506.01186, section 3.3): the loss while the rate rises."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf, open_dict

from reslab.errors import RunError
from reslab.files import write_csv
from reslab.interruption import signals
from reslab.training.build import build_classifier, build_data, build_trainer, require_accelerator
from reslab.training.checkpoints import any_process, ends_optimizer_step, interruption_error
from reslab.training.classifier import Classifier
from reslab.training.fit import memory_advice
from reslab.training.options import first_device
from reslab.training.process import prepare_process
from reslab.training.threads import given_threads

STEPS = 100  # optimizer steps, as in fastai's and Lightning's tests
LOWEST, HIGHEST = 1e-6, 10.0  # from a rate at which no loss moves to one at which no loss falls
WARMUP = 10  # steps whose rates are too small to move the loss
SMOOTHING = 0.9  # the weight of the earlier losses in the mean; a mean over about ten steps
SAFETY = 3  # the factor between the edge and the suggestion
LEAST_FALL = 0.02  # of the first loss; less is noise
TOO_LARGE = 4.0  # times the lowest loss: the test ends there, as fastai's and Lightning's do
OPTIONS = {  # of the trainer, which the test sets: it trains a few steps on one device, and validates nothing
    "num_nodes": 1, "strategy": "auto", "max_steps": STEPS, "max_epochs": -1, "max_time": None,
    "limit_val_batches": 0, "check_val_every_n_epoch": 1, "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


class Curve(NamedTuple):
    """The losses of a range test, one for each optimizer step."""

    rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """The exponential mean of the losses so far, without its bias towards 0."""
        means, mean = [], 0.0
        for step, loss in enumerate(self.losses, 1):
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            means.append(mean / (1 - SMOOTHING**step))
        return means

    @property
    def suggestion(self) -> float | None:
        """A third of the rate with the lowest mean loss; None if no rate lowers the loss.

        The mean falls until the loss begins to rise, so the lowest one is at the edge of what can be trained with.
        """
        means = self.smoothed
        best = min(range(len(means)), key=means.__getitem__)
        return self.rates[best] / SAFETY if means[best] < means[0] * (1 - LEAST_FALL) else None

    @property
    def is_over(self) -> bool:
        """Whether larger rates will show nothing more."""
        means = self.smoothed
        return not math.isfinite(means[-1]) or means[-1] > TOO_LARGE * min(means)


class RangeTest(Callback):
    """Record the loss of each optimizer step, and end the training where the loss has become too large."""

    def __init__(self) -> None:
        self.curve = Curve([], [])

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Classifier)
        if any_process(trainer, signals.caught is not None):
            raise interruption_error()
        if not ends_optimizer_step(trainer, batch_idx):
            return
        loss = float(pl_module.train_metrics.compute()["loss"])
        pl_module.train_metrics.reset()
        if math.isfinite(loss):
            self.curve.rates.append(rate_at(len(self.curve.rates)))
            self.curve.losses.append(loss)
        trainer.should_stop = not math.isfinite(loss) or self.curve.is_over


def rate_at(step: int) -> float:
    """Return the learning rate of an optimizer step, from 0 to STEPS - 1."""
    return LOWEST * (HIGHEST / LOWEST) ** (min(step, STEPS - 1) / (STEPS - 1))


def range_test(config: DictConfig) -> Curve:
    """Train a network of its own for a few steps with a rising learning rate, and return its losses.

    Raises:
        UserError: the configuration cannot be trained.
        RunError: the loss is not finite at the lowest rate.
    """
    require_accelerator(config.trainer.accelerator)
    config = config.copy()
    with open_dict(config):
        OmegaConf.update(config, "trainer", OPTIONS | {"devices": first_device(config.trainer.devices)})
    prepare_process(config.seed)
    data = build_data(config, stages=("fit",))
    _ = data.batches_per_epoch  # a batch that is too large is a mistake
    classifier = build_classifier(config, data)
    classifier.schedule = lambda step, total_steps: rate_at(step) / config.optimizer.lr
    test = RangeTest()
    trainer = build_trainer(config, [test], None)
    with given_threads(config), signals.deferred(), memory_advice(config):
        trainer.fit(classifier, datamodule=data)
    if not test.curve.losses:
        raise RunError(f"the loss of the first step, at a learning rate of {LOWEST:g}, is not finite: no suggestion")
    return test.curve


def write_curve(curve: Curve, folder: Path) -> None:
    """Write find_lr.csv and find_lr.png into a folder."""
    rows = zip(curve.rates, curve.losses, curve.smoothed, strict=True)
    columns = ("learning_rate", "loss", "mean_loss")
    write_csv(folder / "find_lr.csv", [dict(zip(columns, row, strict=True)) for row in rows])
    draw(curve).savefig(folder / "find_lr.png", dpi=110)


def draw(curve: Curve) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color="0.8", label="loss of a step")
    axes.plot(curve.rates, curve.smoothed, label="mean over about ten steps")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, color="0.3", linestyle="--", label=f"suggestion: {rounded(curve.suggestion):g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="train loss", ylim=limits(curve))
    axes.legend()
    return figure


def limits(curve: Curve) -> tuple[float, float]:
    """Return the range of losses to show: what comes after the divergence would flatten the rest."""
    lowest, first = min(curve.losses), max(curve.losses[:WARMUP])
    margin = 0.2 * (first - lowest) + 0.01
    return lowest - margin, first + margin


def rounded(rate: float) -> float:
    """Return a rate with two digits: the test is no more exact than that."""
    return float(f"{rate:.1e}")


def suggested(curve: Curve) -> float:
    """Return the rate to try. Raise RunError if the loss has not fallen at any rate."""
    if curve.suggestion is None:
        raise RunError(f"the loss did not fall at any learning rate from {LOWEST:g} to {HIGHEST:g}: no suggestion")
    return rounded(curve.suggestion)
