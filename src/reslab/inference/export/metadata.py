"""What an exported file says of itself: the classes, how images are prepared, and where the network comes from.

It is three texts of JSON, which every format can hold: see docs/deploy.md. JSON in ASCII carries any class name, also
one with bytes that are not valid text.
"""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from reslab.inference.loading import Trained
from reslab.run import Run

CLASSES, PREPROCESSING, PROVENANCE = KEYS = ("classes", "preprocessing", "provenance")
COLOURS = {1: "grey", 3: "RGB"}  # by the channels of an image
Metadata = dict[str, str]  # JSON by key


def metadata(trained: Trained, path: Path, checkpoint: dict[str, Any], kind: str, temperature: float = 1.0) -> Metadata:
    """Return what the file of a network says.

    Args:
        trained: the network and its image spec.
        path: its checkpoint.
        checkpoint: the content of that.
        kind: the format of the file.
        temperature: by which the logits are divided.
    """
    values = {
        CLASSES: trained.spec.classes,
        PREPROCESSING: preprocessing(trained),
        PROVENANCE: provenance(trained, path, checkpoint, kind, temperature),
    }
    return {name: json.dumps(value) for name, value in values.items()}


def preprocessing(trained: Trained) -> dict[str, Any]:
    """Return how an image file becomes the pixels that the file takes, and the normalisation that it then applies."""
    spec = trained.spec
    fitting = spec.fitting(training=False)
    return {
        "layout": "NHWC",
        "size": fitting.size,
        "channels": len(spec.mean),
        "colours": COLOURS.get(len(spec.mean)),
        "fit": fitting.fit or "crop",
        "resize": fitting.resize or fitting.size,
        "interpolation": fitting.interpolation,
        "resized_by": "pillow" if fitting.by_pillow else "torch",
        "fill": list(fitting.fill),
        "background": None if trained.background is None else list(trained.background),
        "mean": spec.mean,
        "std": spec.std,
    }


def provenance(
    trained: Trained, path: Path, checkpoint: dict[str, Any], kind: str, temperature: float
) -> dict[str, Any]:
    """Return the origin of the network. No path of this machine is in it."""
    run = Run.of_checkpoint(path)
    origin = trained.classifier.record.get("origin", {})
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "format": kind,
        "reslab": reslab_version(),
        "torch": str(torch.__version__),
        "model": trained.config.model.name,
        "data": trained.config.data.name,
        "run": "/".join(run.folder.absolute().parts[-2:]) if run.has_settings else None,
        "checkpoint": path.name,
        "checkpoint_sha256": checksum,
        "epoch": checkpoint["epoch"] + 1 if "epoch" in checkpoint else None,  # Lightning counts from 0
        "step": checkpoint.get("global_step"),
        "git_commit": origin.get("git_commit"),
        "precision_in_training": origin.get("precision"),
        "views": trained.classifier.views.names,
        "temperature": temperature,
    }


def reslab_version() -> str | None:
    try:
        return version("reslab")
    except PackageNotFoundError:  # ResLab runs in a checkout too
        return None
