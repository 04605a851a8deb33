"""The images that a run validated on, to be tested: `split=val`."""

from pathlib import Path

import torch
from omegaconf import DictConfig

from reslab.data.base import ImageDataModule
from reslab.errors import UserError
from reslab.inference.loading import Trained
from reslab.inference.test_data import TestData, names_data, read_own_data


def build_validation_data(trained: Trained, config: DictConfig, checkpoint: Path) -> TestData:
    """Read the images that the run of a network validated on, as the test split of its data set.

    Args:
        trained: the network and the configuration of its run.
        config: a composed conf/evaluate.yaml.
        checkpoint: the file of the network, for messages.

    Raises:
        UserError: another data set is named, the run has validated on no images of their own, or the images that are
            there now are not these.
    """
    if names_data(config):
        raise UserError(
            "split=val tests the images that the run validated on: leave data= out; root= is their folder now"
        )
    data = read_own_data(trained, config)
    split = data.splits["val"]
    if split is None or data.validate_on_test:
        instead = "validated on its test images" if data.validate_on_test else "had no validation images"
        raise UserError(f"split=val: the run of {checkpoint} {instead} (data.val_fraction keeps some for validation)")
    refuse_other_images(data, trained, checkpoint)
    data.splits["test"] = split
    return TestData(data, len(split), {"trained_on": 0, "unknown_classes": 0})


def refuse_other_images(data: ImageDataModule, trained: Trained, checkpoint: Path) -> None:
    """Raise UserError unless the validation images are those of the run.

    Files are known by the hashes of their paths, images in memory by the checksum of all images and labels.
    """
    record = trained.classifier.record
    recorded, now = record.get("validation_files"), data.validation_files()
    if recorded is not None and now is not None:
        gone, new = int((~torch.isin(recorded, now)).sum()), int((~torch.isin(now, recorded)).sum())
        changes = ", ".join(f"{count:,} {word}" for count, word in ((new, "new"), (gone, "missing")) if count)
    else:
        is_same = data.checksum() == record.get("origin", {}).get("data_checksum")
        changes = "" if is_same else "their checksum differs"
    if list(data.classes) != trained.spec.classes:
        changes = "the classes differ"
    if changes:
        raise UserError(
            f"the validation images in {data.root} are not those of the run of {checkpoint} ({changes}), so that the "
            "network may have been trained on them"
        )
