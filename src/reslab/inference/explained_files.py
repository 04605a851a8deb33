"""Explain what a network answers to image files: an overlay for each, a contact sheet, and a list."""

import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional

from reslab.data.images import UnreadableImageError, first_few, load_image, report_unreadable
from reslab.data.options import OnError
from reslab.data.thumbnails import write_picture
from reslab.drawing import literal_text, report_undrawable, shortened
from reslab.errors import UserError, suggest
from reslab.files import output_errors, replaced, write_valid_json
from reslab.inference.answering import Answering, load_answering
from reslab.inference.explanation import BATCH_SIZE, find_maps, grad_cam, laid_over, overlay, require_captum
from reslab.inference.loading import Trained
from reslab.inference.named_images import Images, find_images
from reslab.inference.options import EXPLAIN
from reslab.inference.prediction import choose_device, report_no_probabilities
from reslab.inference.test_data import LISTED_CLASSES, labels_by_name
from reslab.options import check_option
from reslab.text import counted, file_name, printable, valid_text

log = logging.getLogger(__name__)

LIST, SHEET = "explanations.json", "sheet.png"
LEAST_SIDE, MOST_SIDE = 256, 768  # pixels of the longer side of an overlay
UNSEEN = 0.35  # brightness of the parts of an image that the network does not see
SHEET_IMAGES, COLUMNS = 48, 3
CELL = 200  # pixels of the sides of both pictures of a cell, the image and its overlay
TITLE_COLUMNS = 44  # characters over a cell


class Explained(NamedTuple):
    """One image, and what speaks for a class in it.

    Attributes:
        row: "image", its path; "class", the explained one, and its "probability"; the "predicted" class; the "layer".
        picture: uint8 (C, H, W), the image in the size of its overlay.
        heat: float (H, W), from 0 to 1, as `grad_cam` gives it, laid over the part that the network saw.
        seen: bool (H, W), that part.
    """

    row: dict[str, Any]
    picture: Tensor
    heat: Tensor
    seen: Tensor

    def overlay(self) -> Image.Image:
        """Return the image with the heat as colour. Parts that the network did not see are dark."""
        dimmed = torch.where(self.seen, self.picture, self.picture * UNSEEN).to(torch.uint8)
        return functional.to_pil_image(overlay(dimmed, self.heat))


class Explanations:
    """What speaks for the classes of image files, by Grad-CAM (see `grad_cam`), in the order of the files.

    An iteration reads the images as for `predict`, and holds a few of them at a time.

    Args:
        checkpoint: a checkpoint, best.ckpt or last.ckpt.
        images: a file, a folder (all images below it), a glob, or a list of them.
        class_name: the class to explain; None for the predicted class of each image.
        layer: the layer of the maps, as for `grad_cam`.
        on_error: whether to "stop" at images that cannot be read or to "skip" them.
        device: "auto", "cpu", "gpu", "cuda" or "mps"; "auto" is a CUDA GPU if there is one, otherwise the CPU.
        config_dir: a folder of configuration that names classes of the user's own, as for `load_classifier`.

    Attributes:
        paths: the files.

    Raises:
        UserError: an argument is wrong, or there is no such image; while iterating, images cannot be read.
    """

    def __init__(
        self,
        checkpoint: Path,
        images: Images,
        *,
        class_name: str | None = None,
        layer: str | None = None,
        on_error: OnError = "stop",
        device: str = "auto",
        config_dir: str | Path | None = None,
    ) -> None:
        for name, value in {"class": class_name, "layer": layer, "on_error": on_error, "device": device}.items():
            check_option(name, value, EXPLAIN[name])
        require_captum()
        self.paths, self.on_error = find_images(images), on_error
        self.answering = load_answering(
            [checkpoint], choose_device(device).type, views=None, calibrated=False, coverage=None, config_dir=config_dir
        )
        self.trained = self.answering.first
        self.label = None if class_name is None else label_of(class_name, self.trained.spec.classes)
        with self.answering.precisions[0].forward_context():
            self.layer = find_maps(self.trained.classifier, layer).name

    def __iter__(self) -> Iterator[Explained]:
        paths, unreadable, without, no_probabilities = self.paths, list[str](), list[str](), list[str]()
        for start in range(0, len(paths), BATCH_SIZE):
            read = list[Read]()
            for number in range(start, min(start + BATCH_SIZE, len(paths))):
                try:
                    read.append(read_file(paths[number], self.trained))
                except UnreadableImageError as error:
                    unreadable.append(str(error))
            if unreadable and self.on_error == "stop":
                break
            for explained in explain_batch(self.answering, read, self.label, self.layer) if read else ():
                if math.isnan(explained.row["probability"]):
                    no_probabilities.append(explained.row["image"])
                elif not explained.heat.any():
                    without.append(explained.row["image"])
                yield explained
        report_unreadable(unreadable, len(paths), self.on_error, "on_error")
        if without:
            log.warning(
                "nothing in the maps of %s speaks for the class: %s", counted(len(without), "image"), first_few(without)
            )
        report_no_probabilities(no_probabilities)


def label_of(name: str, classes: Sequence[str]) -> int:
    """Return the number of a class; `0` is also `0 - zero`. Raise UserError if not exactly one has the name."""
    (label,) = labels_by_name([name], classes)
    if label < 0:
        raise UserError(
            f"class={name} is no class of this network"
            f"{suggest(name, classes, f'it knows {first_few(classes, LISTED_CLASSES)}')}"
        )
    return label


class Read(NamedTuple):
    """An image file.

    Attributes:
        path: its path as text.
        square: uint8 (C, S, S), as the network takes it.
        picture: uint8 (C, H, W), the whole image in the size of its overlay.
    """

    path: str
    square: Tensor
    picture: Tensor


def read_file(path: str, trained: Trained) -> Read:
    """Read an image. Raise UnreadableImageError if it cannot be read."""
    image = load_image(path, trained.file_channels, trained.background)
    square = trained.spec.fitting(training=False).of_file(image)
    return Read(valid_text(path), square, functional.pil_to_tensor(in_overlay_size(image)))


def in_overlay_size(image: Image.Image) -> Image.Image:
    """Return an image whose longer side has from LEAST_SIDE to MOST_SIDE pixels. Enlarged pixels stay visible."""
    longest = max(image.size)
    scale = max(1, -(-LEAST_SIDE // longest)) if longest < MOST_SIDE else MOST_SIDE / longest
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BICUBIC)


def explain_batch(answering: Answering, read: Sequence[Read], label: int | None, layer: str) -> Iterator[Explained]:
    """Explain one class of some images, or the predicted class of each, with one network as it answers in `predict`."""
    classifier, spec = answering.first.classifier, answering.first.spec
    classes, fitting = spec.classes, spec.fitting(training=False)
    squares = torch.stack([each.square for each in read])
    logits = answering.together(answering.logits(squares))
    probabilities, predicted = answering.probabilities(logits), logits.argmax(1)  # ranked as in `most_probable`
    labels = predicted if label is None else torch.full_like(predicted, label)
    with answering.precisions[0].forward_context():
        heats = grad_cam(classifier, squares, labels, layer)
    for number, heat in enumerate(heats):
        picture = read[number].picture
        height, width = picture.shape[1:]
        part = fitting.part_of(width, height, fitting.fit or "crop")
        over, seen = laid_over(torch.stack([heat, torch.ones_like(heat)])[:, None], part, height, width)
        row = {
            "image": read[number].path,
            "class": classes[labels[number]],
            "probability": float(probabilities[number, labels[number]]),
            "predicted": classes[predicted[number]],
            "layer": layer,
        }
        yield Explained(row, picture, over, seen > 0)


# files


def write_explanations(explained: Iterable[Explained], folder: Path) -> list[dict[str, Any]]:
    """Write an overlay of each image, a contact sheet of the first ones, and the list.

    Args:
        explained: e.g. `Explanations`.
        folder: it is made if it does not exist; earlier files of the same names are replaced.

    Returns:
        The rows of the list, with "overlay", the name of each image's file in the folder.

    Raises:
        UserError: a file cannot be written.
    """
    rows, shown = list[dict[str, Any]](), list[tuple[dict[str, Any], Image.Image]]()
    for number, each in enumerate(explained):
        picture = each.overlay()
        row = each.row | {"overlay": file_name(number, Path(each.row["image"]).stem)}
        with output_errors(folder):
            write_picture(folder / row["overlay"], picture)
        rows.append(row)
        if number < SHEET_IMAGES:
            shown.append((row, side_by_side(functional.to_pil_image(each.picture).convert("RGB"), picture)))
    with output_errors(folder):
        write_sheet(folder / SHEET, shown)
        write_valid_json(folder / LIST, rows)
    if len(rows) > len(shown):
        log.info("%s shows the first %d of %s", folder / SHEET, len(shown), counted(len(rows), "image"))
    return rows


def side_by_side(image: Image.Image, overlay: Image.Image) -> Image.Image:
    """Return two pictures of the same size beside each other, each within a square of CELL pixels."""
    both = Image.new("RGB", (2 * CELL, CELL), "white")
    for number, picture in enumerate((image, overlay)):
        small = ImageOps.contain(picture, (CELL, CELL))
        both.paste(small, (number * CELL + (CELL - small.width) // 2, (CELL - small.height) // 2))
    return both


def write_sheet(path: Path, shown: Sequence[tuple[dict[str, Any], Image.Image]]) -> None:
    """Write a picture of images and their overlays, with the class, its probability and the path above each."""
    titles = [sheet_title(row) for row, _ in shown]
    report_undrawable(titles, f"{path} shows boxes, {LIST} has the names")
    columns = min(COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.6 * rows), dpi=100, layout="constrained")
    with literal_text(*titles), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the line above has said it
        for axes in figure.subplots(rows, columns, squeeze=False).flat:
            axes.axis("off")
        for axes, title, (_, picture) in zip(figure.axes, titles, shown, strict=False):
            axes.imshow(picture)
            axes.set_title(title, fontsize=9)
        with replaced(path) as partial:
            figure.savefig(partial, format="png")


def sheet_title(row: Mapping[str, Any]) -> str:
    name, percent = row["class"], f"{row['probability']:.1%}"
    other = "" if row["predicted"] == name else f", predicted {shortened(row['predicted'], TITLE_COLUMNS // 3)}"
    room = TITLE_COLUMNS - len(f" {percent}{other}")
    return f"{shortened(name, room)} {percent}{other}\n{shortened(printable(row['image']), TITLE_COLUMNS)}"
