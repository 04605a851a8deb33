"""Classify image files with a trained network."""

import logging
from collections.abc import Generator, Iterator, Sequence
from itertools import compress
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslab.data.batches import BatchOrder, FolderImages, SeededBatchOrder, SeededIndex, make_data_loader
from reslab.data.images import (
    FirstNames,
    first_few,
    has_transparent_parts,
    report_unreadable,
)
from reslab.data.options import OnError
from reslab.data.readers import ReadSquare
from reslab.inference.answering import load_answering
from reslab.inference.named_images import Images, find_images
from reslab.inference.options import PREDICT, Top
from reslab.internals import shut_down_workers
from reslab.options import check_option, plain_value
from reslab.text import counted, valid_text
from reslab.training.build import require_accelerator

log = logging.getLogger(__name__)

LEAST_CONTRAST = 0.3  # between the brightness of an image and of its negative
# From -1, the usual brightness, to 1, that of its negative: bold black digits on white paper have 0.25 and more. Beyond
# are 2% of the test images of Fashion-MNIST, and none of MNIST or the digits.
BRIGHT_AS_NEGATIVE = 0.2
Prediction = dict[str, Any]  # {"image": path, "classes": [{"class": name, "probability": 0.9}, …]}


class Predicted(NamedTuple):
    """What a network answered to a batch of image files.

    Attributes:
        paths: the files, as text.
        logits: float32 (N, num_classes), on the CPU. They rank the classes, also where probabilities round to equal
            ones, as in a test; a temperature has not divided them.
        probabilities: of each class, float32 (N, num_classes), on the CPU.
        sets: the labels in the set of each image, the most probable first; None without `coverage`.
    """

    paths: list[str]
    logits: Tensor
    probabilities: Tensor
    sets: list[list[int]] | None = None


class Predictions:
    """The predictions for image files, batch by batch, in the order of the files.

    An iteration holds a few batches at a time, whatever the number of files. At its end it warns about images that
    were left out, have transparent parts, look like negatives or have no probabilities.

    Args:
        checkpoint: a checkpoint, best.ckpt or last.ckpt, or several, whose probabilities are averaged.
        images: a file, a folder (all images below it), a glob, or a list of them.
        batch_size: how many images the network takes at a time.
        num_workers: processes that decode images; 0 decodes in this one, and so does an iteration of one batch.
        on_error: whether to "stop" at images that cannot be read or to "skip" them.
        device: "auto", "cpu", "gpu", "cuda" or "mps"; "auto" is a CUDA GPU if there is one, otherwise the CPU.
        views: the copies of each image whose logits are averaged; None: those of the run.
        calibrated: divide the logits by the temperature that `calibrate` has stored in the checkpoint.
        coverage: also give a set of classes, which contains the true one with this probability.
        config_dir: a folder of configuration that names classes of the user's own, as for `load_classifier`.

    Attributes:
        paths: the files.
        classes: the names of the classes, in the order of the columns of probabilities.

    Raises:
        UserError: an argument is wrong, or there is no such image; while iterating, images cannot be read.
    """

    def __init__(
        self,
        checkpoint: Path | Sequence[Path],
        images: Images,
        *,
        batch_size: int,
        num_workers: int,
        on_error: OnError,
        device: str,
        views: str | Sequence[str] | None = None,
        calibrated: bool = False,
        coverage: float | None = None,
        config_dir: str | Path | None = None,
    ) -> None:
        given: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers, "on_error": on_error}
        given["device"] = device
        given |= {"views": plain_value(views), "calibrated": calibrated, "coverage": coverage}
        for name, value in given.items():
            check_option(name, value, PREDICT[name])
        self.paths = find_images(images)
        self.answering = load_answering(
            [checkpoint] if isinstance(checkpoint, Path) else checkpoint, choose_device(device).type,
            views=views, calibrated=calibrated, coverage=coverage, config_dir=config_dir,
        )  # fmt: skip
        self.trained = self.answering.first
        self.classes = self.trained.spec.classes
        self.batch_size, self.num_workers, self.on_error = batch_size, num_workers, on_error

    def __iter__(self) -> Generator[Predicted, None, None]:
        without = FirstNames()
        for paths, logits in self.computed():
            together = self.answering.together(logits)
            probabilities = self.answering.probabilities(together)
            without.extend(compress(paths, probabilities.isnan().any(1).tolist()))
            yield Predicted(paths, together, probabilities, self.answering.sets(together))
        report_no_probabilities(without)

    def computed(self) -> Iterator[tuple[list[str], list[Tensor]]]:
        """Yield the files that can be read and the logits that each network has for them."""
        computed: tuple[list[str], list[Tensor]] | None = None
        for paths, pixels in self.batches():
            # A GPU computes this batch while the one before it is used, and while the next one is decoded.
            previous, computed = computed, (paths, self.answering.logits(pixels))
            if previous is not None:
                yield previous
        if computed is not None:
            yield computed

    def batches(self) -> Iterator[tuple[list[str], Tensor]]:
        """Yield the files that can be read and their pixels, uint8 (N, C, H, W), and report the others."""
        unreadable, transparent, negatives = FirstNames(), FirstNames(), Negatives(fmean(self.trained.spec.mean))
        loader = self.loader()
        try:
            for pixels, numbers, failures, facts in loader:
                if failures and self.on_error == "stop":
                    report_unreadable(failures, len(self.paths), "stop", "on_error")
                paths = [valid_text(self.paths[number]) for number in numbers.tolist()]
                unreadable.extend(failures)
                negatives.add(facts.levels)
                transparent.extend(compress(paths, facts.transparent))
                if paths:
                    yield paths, pixels
        finally:
            shut_down_workers(loader)
        report_unreadable(unreadable, len(self.paths), self.on_error, "on_error")
        if transparent:
            report_transparency(transparent, self.trained.config.data.name)
        else:
            negatives.report()

    def loader(self) -> DataLoader[Any]:
        spec, numbers = self.trained.spec, torch.arange(len(self.paths))
        read = ReadSquare(spec.fitting(training=False), self.trained.file_channels, self.trained.background)
        files = FolderImages(self.paths, numbers, read, self.on_error)
        batches = SeededBatchOrder(BatchOrder(numbers, self.batch_size, shuffle=False))
        num_workers = min(self.num_workers, len(batches)) if len(batches) > 1 else 0
        images = ImagesWithFacts(files, is_white_instead=self.trained.background != spec.background)
        return make_data_loader(images, batches, num_workers)


class Facts(NamedTuple):
    """What the warnings about the images of a batch need.

    Attributes:
        levels: float32 (N,), the mean of each image's pixels, from 0 to 1.
        transparent: whether white stands for transparent parts of each image.
    """

    levels: Tensor
    transparent: list[bool]


class ImagesWithFacts(Dataset[Any]):
    """Image files with their facts, which the processes that decode the images compute too.

    Args:
        files: the files. The labels are their numbers.
        is_white_instead: whether transparent parts are white because the data set has no background of its own.
    """

    def __init__(self, files: FolderImages, *, is_white_instead: bool) -> None:
        self.files, self.is_white_instead = files, is_white_instead

    def __getitem__(self, batch: list[SeededIndex]) -> tuple[Tensor, Tensor, list[str], Facts]:
        pixels, numbers, unreadable = self.files[batch]
        levels = pixels.flatten(1).float().mean(1) / 255 if len(pixels) else torch.empty(0)
        looks = self.is_white_instead
        transparent = [looks and has_transparent_parts(self.files.paths[number]) for number in numbers.tolist()]
        return pixels, numbers, unreadable, Facts(levels, transparent)


def predict(
    checkpoint: Path | Sequence[Path],
    images: Images,
    *,
    top: Top = 3,
    batch_size: int = 64,
    num_workers: int = 0,
    on_error: OnError = "stop",
    device: str = "auto",
    views: str | Sequence[str] | None = None,
    calibrated: bool = False,
    coverage: float | None = None,
    config_dir: str | Path | None = None,
) -> list[Prediction]:
    """Classify image files.

    Args:
        checkpoint: a checkpoint, best.ckpt or last.ckpt, or several, whose probabilities are averaged.
        images: a file, a folder (all images below it), a glob, or a list of them.
        top: how many classes to return for each image; "all" for every class.
        batch_size, num_workers, on_error, device, views, calibrated, coverage, config_dir: those of `Predictions`.

    Returns:
        One dictionary per image, in the order of the files: "image" is its path, "classes" lists the `top` most
        probable classes as dictionaries of "class" and "probability", the most probable first, and with `coverage`,
        "set" lists the names of the classes in its set. If the output of the network is not finite, the probabilities
        are NaN, the classes mean nothing, and a warning says so. What a folder or a glob finds is left out if it was
        found before.

    Raises:
        UserError: an argument is wrong, there is no such image, or images cannot be read.
    """
    check_option("top", top, PREDICT["top"])
    predictions = Predictions(
        checkpoint, images, batch_size=batch_size, num_workers=num_workers, on_error=on_error, device=device,
        views=views, calibrated=calibrated, coverage=coverage, config_dir=config_dir,
    )  # fmt: skip
    return [row for batch in predictions for row in as_dictionaries(batch, predictions.classes, top)]


def as_dictionaries(batch: Predicted, classes: Sequence[str], top: Top) -> list[Prediction]:
    """Return what `predict` returns for the images of a batch."""
    best, order = most_probable(batch, top)
    rows = [
        {
            "image": path,
            "classes": [
                {"class": classes[label], "probability": probability}
                for label, probability in zip(labels, probabilities, strict=True)
            ],
        }
        for path, labels, probabilities in zip(batch.paths, order.tolist(), best.tolist(), strict=True)
    ]
    if batch.sets is None:
        return rows
    return [row | {"set": [classes[label] for label in labels]} for row, labels in zip(rows, batch.sets, strict=True)]


def most_probable(batch: Predicted, top: Top) -> tuple[Tensor, Tensor]:
    """Return the probabilities and the labels of the `top` most probable classes, (N, top), the most probable first.

    Of classes with equal logits, which are usual in bfloat16, the lower label comes first, as where a test takes the
    most probable one.
    """
    labels = batch.logits.sort(dim=1, descending=True, stable=True).indices[:, : None if top == "all" else top]
    return batch.probabilities.gather(1, labels), labels


# warnings


def report_transparency(images: Sequence[str], data: str) -> None:
    """Warn about transparent images in place of which a data set without transparency would have something else."""
    log.warning(
        "transparent parts of %s are white (%s): data=%s has no background of its own, and images must look like "
        "those of the training", counted(len(images), "image"), first_few(images), data,
    )  # fmt: skip


def report_no_probabilities(images: Sequence[str]) -> None:
    """Warn about images whose logits have no softmax, e.g. because one of them is NaN."""
    if images:
        log.warning(
            "%s without a prediction (%s): the output of the network is not finite, so that the probabilities are nan, "
            "in .json null, and the class that is named means nothing",
            counted(len(images), "image"), first_few(images),
        )  # fmt: skip


class Negatives:
    """Counts images that have the brightness of a negative of the training images.

    Args:
        usual: the mean level of the training images. Nothing is counted if it is near a half, as that of photographs
            is, or 0 or 1, which stand for no normalization.
    """

    def __init__(self, usual: float) -> None:
        self.usual, self.images, self.negatives, self.sum = usual, 0, 0, 0.0

    def add(self, levels: Tensor) -> None:
        """Count images with these mean levels, (N,) from 0 to 1."""
        self.images += len(levels)
        if abs(1 - 2 * self.usual) < LEAST_CONTRAST or self.usual in (0, 1):
            return
        # The usual brightness gives -1, that of its negative 1, a thin line on white paper more, and a bold one less.
        found = levels[(levels - 0.5) / (0.5 - self.usual) > BRIGHT_AS_NEGATIVE]
        self.negatives += len(found)
        self.sum += float(found.double().sum())

    def report(self) -> None:
        """Warn if most images are negatives."""
        if 2 * self.negatives > self.images:
            log.warning(
                "%s of %d as bright as a negative (a mean of %.2f, in the training %.2f): if dark and light are "
                "exchanged, invert the images", self.negatives, self.images, self.sum / self.negatives, self.usual,
            )  # fmt: skip


def choose_device(name: str) -> torch.device:
    """Return the device of a name. Raise UserError if it is not there."""
    require_accelerator(name, "device")
    if name in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if name in ("gpu", "mps") else "cpu")
