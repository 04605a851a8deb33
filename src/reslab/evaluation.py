"""A trained network on a test set."""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from reslab.checkpoints import find_checkpoint, load_classifier
from reslab.errors import UserError
from reslab.files import write_json
from reslab.training import build_data, build_trainer, quiet_lightning, require_accelerator

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[str, Any]:
    """The test metrics, and for each class its images, precision, recall and F1; also written to `output`."""
    quiet_lightning()
    require_accelerator(config.trainer.accelerator)
    checkpoint = find_checkpoint(config.checkpoint)
    classifier, run, spec = load_classifier(checkpoint)
    precision = config.trainer.precision or run.trainer.precision
    run.trainer = {**config.trainer, "precision": precision}
    if "data" in config:
        run.data = config.data
    elif config.root is not None:
        run.data.root = config.root
    data = build_data(run, stages=("test",))
    if data.splits["test"] is None:
        raise UserError(f"data={data.name} has no test set in {data.root}")
    if len(data.classes) != len(spec.classes):
        raise UserError(f"{checkpoint} knows {len(spec.classes)} classes and data={data.name} has {len(data.classes)}")
    if data.classes != spec.classes:
        log.warning("the classes have other names than in training: %s", ", ".join(data.classes[:10]))
    trainer = build_trainer(run, callbacks=[], logger=None)
    (metrics,) = trainer.test(classifier, datamodule=data, verbose=False)
    result = {
        "checkpoint": str(checkpoint),
        "data": data.name,
        "images": int(classifier.confusion_matrix.sum()),  # data.on_error=skip may have left some out
        "metrics": dict(metrics),
        "classes": class_table(classifier.confusion_matrix, spec.classes),
    }
    if config.output is not None:
        write_json(Path(config.output), result)
    return result


def class_table(confusion: Tensor, classes: list[str]) -> list[dict[str, Any]]:
    """From the confusion matrix (true by predicted); 0 where a class has no images or was never predicted."""
    confusion = confusion.double().cpu()
    right, images, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    precision = torch.where(predicted > 0, right / predicted, 0)
    recall = torch.where(images > 0, right / images, 0)
    f1 = torch.where(right > 0, 2 * right / (images + predicted), 0)
    columns = zip(classes, images.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True)
    return [dict(zip(("class", "images", "precision", "recall", "f1"), row, strict=True)) for row in columns]
