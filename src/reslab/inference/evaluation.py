"""Test a trained network."""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from reslab.data.base import ImageDataModule
from reslab.errors import UserError
from reslab.files import output_errors, write_json
from reslab.inference.loading import Trained, find_checkpoint, load_classifier
from reslab.training.build import build_data, build_trainer, require_accelerator
from reslab.training.process import quiet_lightning

log = logging.getLogger(__name__)


def evaluate(config: DictConfig) -> dict[str, Any]:
    """Test a trained network on the test images of its own or another data set.

    Args:
        config: a composed conf/evaluate.yaml.

    Returns:
        A dictionary of "metrics" (by name, such as "test/accuracy"), "classes" (one row per class: "class", "images",
        "precision", "recall", "f1"), "images" (how many were tested), "checkpoint" and "data". It is also written to
        `config.output` if that is given.

    Raises:
        UserError: there is no such checkpoint, or the data set has no test images or another number of classes.
    """
    quiet_lightning()
    require_accelerator(config.trainer.accelerator)
    checkpoint = find_checkpoint(config.checkpoint)
    trained = load_classifier(checkpoint)
    run_config = evaluation_config(trained, config)
    data = build_data(run_config, stages=("test",))
    check_test_data(data, trained.spec.classes, checkpoint)
    trainer = build_trainer(run_config, callbacks=[], logger=None)
    (metrics,) = trainer.test(trained.classifier, datamodule=data, verbose=False)
    confusion = trained.classifier.confusion_matrix
    result = {
        "checkpoint": str(checkpoint),
        "data": data.name,
        "images": int(confusion.sum()),  # data.on_error=skip may leave some out
        "metrics": dict(metrics),
        "classes": class_table(confusion, trained.spec.classes),
    }
    if config.output is not None:
        with output_errors(config.output):
            write_json(Path(config.output), result)
    return result


def evaluation_config(trained: Trained, config: DictConfig) -> DictConfig:
    """Return the run's configuration with the trainer of the evaluation, and with its data set if one is given."""
    run_config = trained.config
    precision = config.trainer.precision or run_config.trainer.precision
    run_config.trainer = {**config.trainer, "precision": precision}
    if "data" in config:
        run_config.data = config.data
    elif config.root is not None:
        run_config.data.root = config.root
    return run_config


def check_test_data(data: ImageDataModule, classes: list[str], checkpoint: Path) -> None:
    """Raise UserError unless the data has test images of as many classes. Other names of classes cause a warning."""
    if data.splits["test"] is None:
        raise UserError(f"data={data.name} has no test set in {data.root}")
    if len(data.classes) != len(classes):
        raise UserError(f"{checkpoint} knows {len(classes)} classes and data={data.name} has {len(data.classes)}")
    if data.classes != classes:
        log.warning("the classes have other names than in training: %s", ", ".join(data.classes[:10]))


def class_table(confusion: Tensor, classes: list[str]) -> list[dict[str, Any]]:
    """Return the precision, recall and F1 score of each class.

    Args:
        confusion: int64 (num_classes, num_classes), true by predicted class.
        classes: the names of the classes.

    Returns:
        One row per class. A score is 0 if the class has no images or was never predicted.
    """
    confusion = confusion.double().cpu()
    right, images, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    precision = torch.where(predicted > 0, right / predicted, 0)
    recall = torch.where(images > 0, right / images, 0)
    f1 = torch.where(right > 0, 2 * right / (images + predicted), 0)
    columns = zip(classes, images.tolist(), precision.tolist(), recall.tolist(), f1.tolist(), strict=True)
    return [dict(zip(("class", "images", "precision", "recall", "f1"), row, strict=True)) for row in columns]
