"""Calibrate a trained network on the images that its run validated on, and store that in its checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from reslab.errors import UserError
from reslab.files import sole_user
from reslab.inference.conformal import true_scores
from reslab.inference.evaluation import test_network
from reslab.inference.temperature import fit_temperature, settings, standard_error, with_temperature
from reslab.machine import is_first_process
from reslab.newest import refuse_zoo, require_checkpoint
from reslab.run import Run
from reslab.training.checkpoints import add_to_record
from reslab.training.metrics import metrics_of
from reslab.training.record import CALIBRATION_SCORES


def calibrate(config: DictConfig, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Fit the temperature of a trained network, and store it in its checkpoint.

    Args:
        config: a composed conf/calibrate.yaml.
        config_dir: as for `load_classifier`.

    Returns:
        What the checkpoint holds from now on (`record.CALIBRATION`), and its path as "checkpoint". The first process
        alone has it; others return the path.

    Raises:
        UserError: there is no such checkpoint, its run has no validation images that are still there, no temperature
            fits, or the checkpoint cannot be written.
    """
    path = require_checkpoint(config.checkpoint)
    refuse_zoo(path, "copy the network's folder, and calibrate the copy")
    with sole_writer(path):
        config.checkpoint = str(path)
        tested = test_network(config, config_dir)
        if not is_first_process():
            return {"checkpoint": str(path)}
        assert tested.trained is not None
        if tested.answers is None:
            raise UserError(f"{path}: the run has too many validation images and classes to keep all logits in memory")
        logits, labels = tested.answers.logits, tested.answers.labels
        temperature = fit_temperature(logits, labels)
        before = metrics_of(logits, labels)
        after = metrics_of(with_temperature(logits, temperature), labels)
        calibration = {"temperature": temperature, "standard_error": standard_error(logits, temperature)}
        calibration |= {"images": len(labels), "precision": tested.result["precision"]} | settings(tested.trained)
        for name in ("loss", "calibration_error"):
            calibration |= {f"{name}_before": before[name], f"{name}_after": after[name]}
        try:
            add_to_record(path, {"calibration": calibration, CALIBRATION_SCORES: true_scores(logits, labels)})
        except OSError as error:
            raise UserError(f"{path} cannot be written: {error.strerror}") from error
    return {"checkpoint": str(path)} | calibration


@contextmanager
def sole_writer(checkpoint: Path) -> Iterator[None]:
    """Lock the folder of the run that a checkpoint is in, so that no training replaces the checkpoint meanwhile."""
    run = Run.of_checkpoint(checkpoint)
    if not run.hydra_folder.is_dir() or not is_first_process():
        yield
        return
    with sole_user(run.folder):
        yield
