"""The most probable classes of image files."""

import csv
import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig

from reslab.checkpoints import find_checkpoint, load_classifier
from reslab.data.image_folder import center_square, image_paths, read_image
from reslab.errors import UserError

Prediction = dict[str, Any]  # "image": its path, "classes": [{"class": name, "probability": p}, …], the first the best


def predict(config: DictConfig) -> list[Prediction]:
    """Predictions in the order of the files; also written to `output`."""
    output = Path(config.output) if config.output is not None else None
    if output and output.suffix not in (".csv", ".json"):
        raise UserError(f"output={output}: the file must end in .csv or .json")
    paths = find_images(config.images)
    classifier, _, spec = load_classifier(find_checkpoint(config.checkpoint))
    classifier.to(choose_device(config.device))
    predictions = []
    for start in range(0, len(paths), config.batch_size):
        batch = paths[start : start + config.batch_size]
        images = [center_square(read_image(path, len(spec.mean)), spec.image_size) for path in batch]
        with torch.inference_mode():
            probabilities = classifier.predict_step(torch.stack(images).to(classifier.device), 0).cpu()
        for path, row in zip(batch, probabilities, strict=True):
            best = row.topk(min(config.top, len(spec.classes)))
            classes = [
                {"class": spec.classes[label], "probability": probability}
                for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
            predictions.append({"image": str(path), "classes": classes})
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


def choose_device(device: str) -> torch.device:
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device=cuda, but torch finds no GPU here: device=cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def write(predictions: list[Prediction], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".json":
        output.write_text(json.dumps(predictions, indent=2) + "\n")
        return
    with output.open("w", newline="") as file:
        writer = csv.writer(file)
        ranks = range(1, len(predictions[0]["classes"]) + 1)
        writer.writerow(["image", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))])
        for row in predictions:
            cells = [cell for entry in row["classes"] for cell in (entry["class"], entry["probability"])]
            writer.writerow([row["image"], *cells])
