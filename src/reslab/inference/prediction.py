"""Classify image files with a trained network."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from reslab.data.batches import FolderImages
from reslab.data.images import (
    SYSTEM_FOLDERS,
    counted,
    first_few,
    has_transparent_parts,
    list_images,
    report_dead_links,
    report_not_read,
    report_unreadable,
)
from reslab.data.options import OnError
from reslab.data.readers import ReadSquare
from reslab.errors import UserError
from reslab.files import output_errors, write_csv, write_json
from reslab.inference.loading import load_classifier
from reslab.inference.options import PREDICT
from reslab.newest import LATEST, require_text
from reslab.options import check_option
from reslab.text import for_shell
from reslab.training.build import require_accelerator
from reslab.training.classifier import Classifier

log = logging.getLogger(__name__)

LEAST_CONTRAST = 0.3  # between the brightness of an image and of its negative
Prediction = dict[str, Any]  # {"image": path, "classes": [{"class": name, "probability": 0.9}, …]}
Images = str | Path | Sequence[str | Path]


def predict(
    checkpoint: Path,
    images: Images,
    *,
    top: int = 3,
    batch_size: int = 64,
    on_error: OnError = "stop",
    device: str = "auto",
    config_dir: str | Path | None = None,
) -> list[Prediction]:
    """Classify image files.

    Args:
        checkpoint: a checkpoint, best.ckpt or last.ckpt.
        images: a file, a folder (all images below it), a glob, or a list of them.
        top: how many classes to return for each image.
        batch_size: how many images the network takes at a time.
        on_error: whether to "stop" at images that cannot be read or to "skip" them.
        device: "auto", "cpu", "gpu", "cuda" or "mps"; "auto" is a CUDA GPU if there is one, otherwise the CPU.
        config_dir: a folder of configuration that names classes of the user's own, as for `load_classifier`.

    Returns:
        One dictionary per image, in the order of the files: "image" is its path, "classes" lists the `top` most
        probable classes as dictionaries of "class" and "probability", the most probable first. What a folder or a glob
        finds is left out if it was found before.

    Raises:
        UserError: an argument is wrong, there is no such image, or images cannot be read.
    """
    for name, value in {"top": top, "batch_size": batch_size, "on_error": on_error, "device": device}.items():
        check_option(name, value, PREDICT[name])
    paths = find_images(images)
    trained = load_classifier(checkpoint, config_dir)
    classifier, config, spec = trained
    classifier.to(choose_device(device))
    numbers = torch.arange(len(paths))
    read = ReadSquare(spec.fitting(training=False), len(spec.mean), trained.background)
    files = FolderImages([str(path) for path in paths], numbers, read, on_error)
    predictions, unreadable, transparent, levels = list[Prediction](), list[str](), list[str](), list[float]()
    for part in numbers.split(batch_size):
        pixels, readable, failures = files[[(number, 0) for number in part.tolist()]]
        unreadable += failures
        if unreadable and on_error == "stop":
            break
        levels += [float(image.float().mean()) / 255 for image in pixels]
        for number, row in zip(readable.tolist(), class_probabilities(classifier, pixels), strict=True):
            image = path_text(paths[number])
            predictions.append({"image": image, "classes": most_probable(row, spec.classes, top)})
            if trained.background != spec.background and has_transparent_parts(paths[number]):
                transparent.append(image)
    report_unreadable(unreadable, len(paths), on_error, "on_error")
    if transparent:
        report_transparency(transparent, config.data.name)
    else:
        report_negatives(levels, sum(spec.mean) / len(spec.mean))
    return predictions


def report_transparency(images: Sequence[str], data: str) -> None:
    """Warn about transparent images in place of which a data set without transparency would have something else."""
    log.warning(
        "transparent parts of %s are white (%s): data=%s has no background of its own, and images must look like "
        "those of the training", counted(len(images), "image"), first_few(images), data,
    )  # fmt: skip


def report_negatives(levels: Sequence[float], usual: float) -> None:
    """Warn if most images have the brightness of a negative of the training images.

    Args:
        levels: the mean of each image's pixels, from 0 to 1.
        usual: that of the training images. Nothing is said if it is near a half, as that of photographs is, or 0 or 1,
            which stand for no normalization.
    """
    if abs(1 - 2 * usual) < LEAST_CONTRAST or usual in (0, 1):
        return
    # An image of the usual brightness gives -1, its negative 1, and a thin line on white paper more.
    negatives = [level for level in levels if (level - 0.5) / (0.5 - usual) > 0.6]
    if 2 * len(negatives) > len(levels):
        log.warning(
            "%s of %d as bright as a negative (a mean of %.2f, in the training %.2f): if dark and light are exchanged, "
            "invert the images", len(negatives), len(levels), fmean(negatives), usual,
        )  # fmt: skip


@torch.inference_mode()
def class_probabilities(classifier: Classifier, images: Tensor) -> Tensor:  # uint8 (N, C, H, W) -> (N, num_classes)
    if len(images) == 0:  # none of them could be read, so their shape is not known
        return torch.empty(0)
    return classifier.predict_step(images.to(classifier.device), 0).cpu()


def most_probable(probabilities: Tensor, classes: list[str], top: int) -> list[dict[str, Any]]:  # (num_classes,)
    best = probabilities.topk(min(top, len(classes)))
    return [
        {"class": classes[label], "probability": probability}
        for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]


def find_images(images: Images) -> list[Path]:
    """Return the files of a path, a folder, a glob or a list of them.

    What a folder or a glob finds is left out if it was found before; a file that is named itself is not.

    Raises:
        UserError: one of them stands for no file.
    """
    found, seen = list[Path](), set[str]()
    names = [*images] if isinstance(images, Iterable) and not isinstance(images, str | bytes) else [images]
    for named, following in zip(names, [*names[1:], ""], strict=False):
        require_text(named, "images: each of them")
        pattern = os.path.expanduser(named)  # noqa: PTH111  # Path would drop the // of https://
        path = Path(pattern)
        is_file, is_folder = os.path.isfile(path), os.path.isdir(path)
        files = [path] if is_file else files_below(path) if is_folder else list(files_of_glob(pattern))
        if not files:
            raise UserError(f"images={pattern}: {why_no_image(pattern, following)}")
        for file in files:
            place = os.path.abspath(file)  # noqa: PTH100  # Path would resolve links too
            if is_file or place not in seen:
                found.append(file)
            seen.add(place)
    if not found:
        raise UserError("images: the list is empty")
    return found


def files_below(folder: Path) -> list[Path]:
    """Return the images below a folder. Files that look like images and are not read, and dead links, are logged."""
    files = list_images(folder)
    report_not_read(folder, files.not_read)
    report_dead_links(folder, files.dead_links)
    return [Path(path) for path in files.paths]


def files_of_glob(pattern: str) -> Iterator[Path]:
    """Yield the files that a glob matches, but not those in a folder of the system that it does not name."""
    unnamed = SYSTEM_FOLDERS - {part.lower() for part in Path(pattern).parts}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        path = Path(name)
        if path.is_file() and not any(part.lower() in unnamed for part in path.parts):
            yield path


def path_text(path: Path) -> str:
    """Return a path as text. A name may hold bytes that are not valid text, which terminals and files refuse."""
    return os.fsencode(path).decode(errors="replace")


def choose_device(name: str) -> torch.device:
    """Return the device of a name. Raise UserError if it is not there."""
    require_accelerator(name, "device")
    if name in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if name in ("gpu", "mps") else "cpu")


def write_predictions(predictions: list[Prediction], output: str | Path) -> None:
    """Write a .json file, or a .csv file with one row per image and the columns of `ranked_columns`."""
    output = Path(output)
    if output.suffix == ".json":
        with output_errors(output):
            write_json(output, predictions)
        return
    rows: list[dict[str, Any]] = [{"image": row["image"], **ranked_columns(row["classes"])} for row in predictions]
    with output_errors(output):
        write_csv(output, rows)


def ranked_columns(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return class_1, probability_1, class_2, probability_2, … of one image."""
    return {f"{name}_{rank}": value for rank, entry in enumerate(classes, 1) for name, value in entry.items()}


def why_no_image(pattern: str, following: str | Path) -> str:
    """Say why the value of `images=` names no image, given the one that follows it."""
    if pattern == LATEST:
        return "the run comes before the images: latest photo.jpg"
    if os.path.isfile(spaced := f"{pattern} {following}"):
        return f"a name with blanks needs quotes: {for_shell(spaced)}"
    if re.match("https?://", pattern):
        return "download the image first, and give the file"
    if os.path.isdir(pattern):
        return "no image in this folder"
    return "no image there"
