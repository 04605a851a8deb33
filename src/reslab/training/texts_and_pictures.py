"""What a run gives to its loggers besides curves: its configuration, layers, images and the errors of its test."""

import html
import re
import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L
import matplotlib
import torch
import yaml
from lightning.pytorch.callbacks import Callback
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.utils import make_grid

from reslab.data.batches import FolderImages
from reslab.drawing import literal_text, report_undrawable, shortened
from reslab.models.summary import layers, markdown
from reslab.training.adapters import Adapter
from reslab.training.classifier import Classifier, gather_by_rank
from reslab.training.confusion import Confusion

matplotlib.use("agg")

Mistake = tuple[float, int, int, Tensor]  # confidence, true class, predicted class, image: uint8 (C, H, W)
MAX_NAMES = 30  # classes whose names have room at a confusion matrix
MAX_CLASSES = 1000  # of a complete confusion matrix: the figure has fewer pixels than twice as many rows
LABEL_COLUMNS, TITLE_COLUMNS = 24, 20  # width of a class name at a confusion matrix and above an image, in characters


class LogTextsAndPictures(Callback):
    """Give loggers the configuration, the layers, augmented images, the graph and the errors of the test.

    TensorBoard takes all of them; what other loggers take stands in `adapters.py`.

    Args:
        num_images: augmented training images in the grid at the start of the run.
        num_mistakes: misclassified test images to show, those with the most confident predictions.

    Attributes:
        adapters: the loggers of the run; none in all processes but the first.
    """

    adapters: Sequence[Adapter] = ()

    def __init__(self, num_images: int, num_mistakes: int) -> None:
        self.num_images, self.num_mistakes = num_images, num_mistakes
        self.mistakes: list[Mistake] = []
        self.figures: dict[str, Figure] = {}  # of the test, by tag

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.adapters or trainer.global_step:
            return
        assert isinstance(pl_module, Classifier)
        config = yaml.safe_dump(pl_module.record["config"], sort_keys=False, allow_unicode=True)
        spec = pl_module.record["spec"]
        texts = {
            "config": f"```\n{config}```",
            "classes": class_list(spec["classes"]),
            "layers": markdown(layers(pl_module.network, spec["channels"], spec["image_size"])),
        }
        grid = self.augmented_grid(trainer, pl_module)
        for adapter in self.adapters:
            adapter.layout()
            for tag, text in texts.items():
                adapter.text(tag, text)
            if grid is not None:
                adapter.image("train/augmented_images", grid)

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

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mistakes, self.figures = [], {}

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
        # In bfloat16, the logits of several classes can have one probability; the test takes the largest logit.
        confidence, predicted = outputs.float().softmax(1).amax(1), outputs.argmax(1)
        confidence = confidence.masked_fill(predicted == labels, 0).nan_to_num(0)  # NaN is no confidence
        for index in confidence.topk(min(self.num_mistakes, len(labels))).indices.tolist():
            if confidence[index] > 0:
                numbers = confidence[index].item(), labels[index].item(), predicted[index].item()
                self.mistakes.append((*numbers, images[index].cpu()))
        self.mistakes = sorted(self.mistakes, key=lambda mistake: -mistake[0])[: self.num_mistakes]

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        mistakes = [mistake for of_a_process in gather_by_rank(self.mistakes) for mistake in of_a_process]
        self.mistakes = sorted(mistakes, key=lambda mistake: -mistake[0])[: self.num_mistakes]

    def give_figures(self, adapter: Adapter, classifier: Classifier, step: int) -> None:
        """Give a logger the pictures of the test, once its result is written."""
        if not self.figures:
            classes = classifier.record["spec"]["classes"]
            self.figures["test/confusion_matrix"] = confusion_figure(classifier.confusion, classes)
            if self.mistakes:
                self.figures["test/most_confident_mistakes"] = mistakes_figure(self.mistakes, classes)
            report_undrawable(classes, "the pictures show boxes, the table of the classes shows the names")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # the line above has said it
            for tag, figure in self.figures.items():
                adapter.figure(tag, figure, step)


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
