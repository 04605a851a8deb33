"""The most probable classes of image files."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from reslab.checkpoints import find_checkpoint, load_classifier
from reslab.data.batches import FolderImages
from reslab.data.image_folder import ReadCenter
from reslab.data.images import image_paths, settle
from reslab.errors import UserError
from reslab.files import write_csv, write_json

Prediction = dict[str, Any]  # "image": its path, "classes": [{"class": name, "probability": p}, …], the first the best


def predict(config: DictConfig) -> list[Prediction]:
    """Predictions in the order of the files; also written to `output`."""
    output = Path(config.output) if config.output is not None else None
    if output and output.suffix not in (".csv", ".json"):
        raise UserError(f"output={output}: the file must end in .csv or .json")
    paths = find_images(config.images)
    classifier, _, spec = load_classifier(find_checkpoint(config.checkpoint))
    classifier.to(choose_device(config.device))
    indices = torch.arange(len(paths))
    images = FolderImages(paths, indices, ReadCenter(spec.image_size, len(spec.mean)), config.on_error)
    predictions, unreadable = [], list[str]()
    for part in indices.split(config.batch_size):
        pixels, readable, more_unreadable = images[[(index, 0) for index in part.tolist()]]
        unreadable += more_unreadable
        if unreadable and config.on_error == "stop":
            break
        if not len(readable):
            continue
        with torch.inference_mode():
            probabilities = classifier.predict_step(pixels.to(classifier.device), 0).cpu()
        for index, row in zip(readable.tolist(), probabilities, strict=True):
            best = row.topk(min(config.top, len(spec.classes)))
            classes = [
                {"class": spec.classes[label], "probability": probability}
                for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
            predictions.append({"image": printable(paths[index]), "classes": classes})
    settle(unreadable, len(paths), config.on_error, "on_error")
    if output:
        write(predictions, output)
    return predictions


def find_images(images: str | int | list[str] | ListConfig) -> list[Path]:
    """The files that a path, folder, glob or list of them names. Raises UserError for one that names none."""
    found: list[Path] = []
    for pattern in map(str, images if isinstance(images, list | ListConfig) else [images]):  # 2024 is a number
        path = Path(pattern)
        files = [path] if path.is_file() else image_paths(path) if path.is_dir() else list(expand(pattern))
        if not files:
            raise UserError(f"images={pattern}: no image there")
        found += files
    if not found:
        raise UserError("images: the list is empty")
    return found


def expand(pattern: str) -> Iterator[Path]:
    return (Path(name) for name in sorted(glob.glob(pattern, recursive=True)) if Path(name).is_file())  # noqa: PTH207


def printable(path: Path) -> str:
    """A name may hold bytes that are no text, and files and terminals take none of those."""
    return os.fsencode(path).decode(errors="replace")


def choose_device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no GPU here: device=cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def write(predictions: list[Prediction], output: Path) -> None:
    if output.suffix == ".json":
        write_json(output, predictions)
        return
    rows: list[dict[str, Any]] = [{"image": row["image"], **numbered(row["classes"])} for row in predictions]
    write_csv(output, rows, rows[0])


def numbered(classes: list[dict[str, Any]]) -> dict[str, Any]:
    """class_1, probability_1, class_2, …"""
    return {f"{name}_{rank}": value for rank, entry in enumerate(classes, 1) for name, value in entry.items()}
