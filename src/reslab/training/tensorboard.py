"""What TensorBoard shows besides the curves: the configuration, layers, graph, images, figures and hparams of a run."""

import html
import logging
import re
import threading
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import matplotlib
import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torchvision.utils import make_grid

from reslab.configuration import name_of, task_overrides
from reslab.data.batches import FolderImages
from reslab.drawing import literal_text, report_undrawable, shortened
from reslab.models.summary import layers, markdown
from reslab.training.classifier import Classifier, gather_by_rank
from reslab.training.confusion import Confusion
from reslab.training.logger import LAYOUT

log = logging.getLogger(__name__)

matplotlib.use("agg")
show_thread_error = threading.excepthook


def log_writer_error(arguments: threading.ExceptHookArgs) -> None:
    """Log an error of the thread that writes TensorBoard's files, and show an error of any other thread.

    The thread keeps its error, and the training raises it when it writes or saves next.
    """
    if type(arguments.thread).__name__ == "_AsyncWriterThread":
        log.debug("TensorBoard's files cannot be written", exc_info=arguments.exc_value)
    else:
        show_thread_error(arguments)


threading.excepthook = log_writer_error

Mistake = tuple[float, int, int, Tensor]  # confidence, true class, predicted class, image: uint8 (C, H, W)
MAX_NAMES = 30  # classes whose names have room at a confusion matrix
MAX_CLASSES = 1000  # of a complete confusion matrix: the figure has fewer pixels than twice as many rows
LABEL_COLUMNS, TITLE_COLUMNS = 24, 20  # width of a class name at a confusion matrix and above an image, in characters
GRAPH_LAYERS = 300  # tracing a network of a thousand layers takes minutes, and its graph is too large to read


def summary_writer(trainer: L.Trainer) -> SummaryWriter | None:
    """Return TensorBoard's writer; None in a run without TensorBoard and in all processes but the first."""
    found = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return found[0].experiment if found and trainer.is_global_zero else None


class TensorBoardReport(Callback):
    """Show the configuration, the layers, augmented images, the graph and the errors of the test in TensorBoard.

    Args:
        num_images: augmented training images in the grid at the start of the run.
        num_mistakes: misclassified test images to show, those with the most confident predictions.
    """

    def __init__(self, num_images: int, num_mistakes: int) -> None:
        self.num_images, self.num_mistakes = num_images, num_mistakes
        self.mistakes: list[Mistake] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        writer = summary_writer(trainer)
        if writer is None or trainer.global_step:
            return
        assert isinstance(pl_module, Classifier)
        config = yaml.safe_dump(pl_module.record["config"], sort_keys=False, allow_unicode=True)
        writer.add_custom_scalars(LAYOUT)
        writer.add_text("config", f"```\n{config}```")
        writer.add_text("classes", class_list(pl_module.record["spec"]["classes"]))
        spec = pl_module.record["spec"]
        writer.add_text("layers", markdown(layers(pl_module.network, spec["channels"], spec["image_size"])))
        if (grid := self.augmented_grid(trainer, pl_module)) is not None:
            writer.add_image("train/augmented_images", grid)

    def augmented_grid(self, trainer: L.Trainer, classifier: Classifier) -> Tensor | None:
        """Return a picture (3, H, W) of the first training images, augmented; None if none of them can be read."""
        split = trainer.datamodule.splits["train"]  # type: ignore[attr-defined]
        indices = split.indices[: self.num_images].tolist()
        if isinstance(split.images, FolderImages):
            images, _, _ = split.images[[(index, index) for index in indices]]
        else:
            images = split.images[indices]
        with torch.random.fork_rng(devices=[]):
            return make_grid(classifier.augment(images), nrow=8) if len(images) else None

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        writer = summary_writer(trainer)
        assert isinstance(pl_module, Classifier)
        if writer is not None and len(list(pl_module.network.modules())) <= GRAPH_LAYERS:
            add_graph(writer, pl_module)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mistakes = []

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        images, labels, _ = batch
        confidence, predicted = outputs.softmax(1).max(1)
        confidence = confidence.masked_fill(predicted == labels, 0).nan_to_num(0)  # NaN is no confidence
        for index in confidence.topk(min(self.num_mistakes, len(labels))).indices.tolist():
            if confidence[index] > 0:
                numbers = confidence[index].item(), labels[index].item(), predicted[index].item()
                self.mistakes.append((*numbers, images[index].cpu()))
        self.mistakes = sorted(self.mistakes, key=lambda mistake: -mistake[0])[: self.num_mistakes]

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        mistakes = [mistake for of_a_process in gather_by_rank(self.mistakes) for mistake in of_a_process]
        self.mistakes = sorted(mistakes, key=lambda mistake: -mistake[0])[: self.num_mistakes]
        writer = summary_writer(trainer)
        if writer is None:
            return
        assert isinstance(pl_module, Classifier)
        classes = pl_module.record["spec"]["classes"]
        step = pl_module.record.get("step", 0)
        figures = {"test/confusion_matrix": confusion_figure(pl_module.confusion, classes)}
        if self.mistakes:
            figures["test/most_confident_mistakes"] = mistakes_figure(self.mistakes, classes)
        report_undrawable(classes, "the pictures in TensorBoard show boxes, the table of the classes shows the names")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the line above has said it
            for tag, figure in figures.items():
                writer.add_figure(tag, figure, step)


def add_graph(writer: SummaryWriter, classifier: Classifier) -> None:
    """Add the network's graph, traced in evaluation mode."""
    example = classifier.preprocess(classifier.example_input_array.to(classifier.device))
    training = classifier.network.training
    classifier.network.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # add_graph uses torch.jit's tracer, which warns
        writer.add_graph(classifier.network, example)
    classifier.network.train(training)


def class_list(classes: list[str]) -> str:
    """Return a Markdown table of the classes with their complete names. Figures shorten long names."""
    rows = [f"| {number} | {as_markdown(name)} |" for number, name in enumerate(classes)]
    return "\n".join(["| number | class |", "|--:|---|", *rows])


def as_markdown(text: str) -> str:
    """Return Markdown that shows a text of one line as it is."""
    printable = text.encode("utf-8", "replace").decode()  # a file's name may have bytes that are no text
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|])", r"\\\1", html.escape(" ".join(printable.splitlines()), quote=False))


def confusion_figure(confusion: Confusion, classes: list[str]) -> Figure:
    """Draw a confusion matrix, or of more than `MAX_CLASSES` classes the part of those that are confused most often.

    Each row is one true class, in fractions of its images.
    """
    drawn, title = torch.arange(len(classes)), ""
    if len(classes) > MAX_CLASSES:
        drawn = confusion.most_confused(MAX_NAMES)
        title = f"the {len(drawn)} of {len(classes):,} classes that are confused most often"
    share = confusion.matrix(drawn) / confusion.by_true_class()[drawn, None].clamp(min=1)
    classes = [classes[number] for number in drawn.tolist()]
    size = min(4 + 0.35 * len(classes), 16)
    figure = Figure(figsize=(size, size), layout="constrained")
    names = [shortened(name, LABEL_COLUMNS) for name in classes] if len(classes) <= MAX_NAMES else []
    with literal_text(*names):
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="predicted", ylabel="true", title=title)
        if names:
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
            write_shares(axes, share)
    return figure


def write_shares(axes: Axes, share: Tensor) -> None:
    for true, row in enumerate(share.tolist()):
        for predicted, value in enumerate(row):
            if value >= 0.005:
                color = "white" if value > 0.5 else "black"
                axes.text(predicted, true, f"{value:.2f}", ha="center", va="center", color=color, fontsize=7)


def mistakes_figure(mistakes: list[Mistake], classes: list[str]) -> Figure:
    """Draw misclassified images, each with its true class, its predicted class and the confidence."""
    columns = 8
    rows = -(-len(mistakes) // columns)
    figure = Figure(figsize=(1.6 * columns, 2.0 * rows), layout="constrained")
    with literal_text(*(classes[number] for mistake in mistakes for number in mistake[1:3])):
        for axes, mistake in zip(figure.subplots(rows, columns, squeeze=False).flat, mistakes, strict=False):
            confidence, true, predicted, image = mistake
            axes.imshow(image.permute(1, 2, 0).expand(-1, -1, 3))
            axes.set_title(mistake_title(classes[true], classes[predicted], confidence), fontsize=8)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def mistake_title(true: str, predicted: str, confidence: float) -> str:
    percent = f"{confidence:.0%}"
    room = TITLE_COLUMNS - len(f"as  {percent}")
    return f"{shortened(true, TITLE_COLUMNS)}\nas {shortened(predicted, room)} {percent}"


def add_hparams(writer: SummaryWriter, config: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
    """Fill TensorBoard's hparams tab with the settings that a sweep may vary and the metrics of the result.

    The metrics get tags of their own, `result/…`: the tab shows the last value of a tag, and the last value of
    val/accuracy is not the best one.
    """
    settings = {group: config[group] for group in ("model", "data", "optimizer", "scheduler")}
    settings |= {name: config[name] for name in ("seed", "label_smoothing", "mixup", "cutmix", "flip_averaging")}
    settings["trainer"] = {name: config["trainer"][name] for name in ("max_epochs", "max_steps", "precision")}
    result = {f"result/{name}": value for name, value in metrics.items()}
    for name, value in result.items():
        writer.add_scalar(name, value, step)
    experiment, *session = hparams(plain_settings(settings), result)
    if HydraConfig.initialized():
        mark_as_varied(experiment, task_overrides())
    for summary in (experiment, *session):
        writer.file_writer.add_summary(summary)  # type: ignore[attr-defined]  # add_scalar has opened it
    writer.flush()


def mark_as_varied(experiment: Any, overrides: Sequence[str]) -> None:
    """Mark the settings of the command line as different between runs.

    The tab shows only five settings at first: the marked ones, and then the others in alphabetical order.
    """
    plugin_data = experiment.value[0].metadata.plugin_data
    content = HParamsPluginData.FromString(plugin_data.content)
    settings = {setting.name: setting for setting in content.experiment.hparam_infos}
    for name in (name_of(override).lstrip("+") for override in overrides):
        if setting := settings.get(f"{name}.name", settings.get(name)):
            setting.differs = True
    plugin_data.content = content.SerializeToString()


def plain_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Return settings by their dotted names: a class as its name, a list as text, without those that are null."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= plain_settings(value, f"{prefix}{key}.")
        elif key == "_target_":
            flat[prefix.removesuffix(".")] = value.rpartition(".")[2]
        elif value is not None and key != "_partial_":
            # TensorBoard refuses a path with bytes that are no text.
            text = str(value).encode(errors="replace").decode()
            flat[prefix + key] = value if isinstance(value, int | float | bool) else text
    return flat
