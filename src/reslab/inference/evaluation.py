"""Test a trained network."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from torch import Tensor, distributed

from reslab.data.base import ImageDataModule
from reslab.data.options import check_sizes
from reslab.data.splits import pixel_checksum
from reslab.errors import UserError
from reslab.files import output_errors, write_valid_json
from reslab.inference.conformal import measured_coverage, ordered_sets, threshold
from reslab.inference.ensemble import averaged, members_of
from reslab.inference.loading import Trained, restore_classifier
from reslab.inference.options import accelerator_of
from reslab.inference.precision import report_other_precision
from reslab.inference.prediction_file import write_answers_table
from reslab.inference.tables import require_writer
from reslab.inference.temperature import Calibration, stored_calibration, with_temperature
from reslab.inference.test_data import NEW_SIZES, build_test_data, names_data
from reslab.inference.validation_data import build_validation_data
from reslab.inference.views import with_views
from reslab.machine import is_first_process
from reslab.newest import require_checkpoint
from reslab.run import Run
from reslab.training.answers import MAX_NUMBERS, Answers, with_files
from reslab.training.build import build_trainer, require_accelerator, resolve_precision
from reslab.training.checkpoints import read_checkpoint
from reslab.training.confusion import Confusion
from reslab.training.distributed import count_over_processes, joined_processes
from reslab.training.metrics import metrics_of
from reslab.training.process import quiet_lightning, quiet_other_processes
from reslab.training.progress import ProgressBar, can_show_bar

log = logging.getLogger(__name__)


class Evaluation(NamedTuple):
    """What a test of a trained network has found.

    Attributes:
        result: the numbers, as `evaluate` returns them.
        answers: the logits of each image; None if they are too many to be kept, and in all processes but the first.
        data: the data set. Its test split has the tested images.
        trained: the network, with the views and the sizes of the test; None for several networks.
        sets: with `coverage`, the labels in the set of each image, the most probable first.
    """

    result: dict[str, Any]
    answers: Answers | None
    data: ImageDataModule
    trained: Trained | None
    sets: list[list[int]] | None = None


def evaluate(config: DictConfig, config_dir: str | Path | None = None) -> dict[str, Any]:
    """Test a trained network on the test images of its own or another data set.

    Args:
        config: a composed conf/evaluate.yaml.
        config_dir: as for `load_classifier`.

    Returns:
        A dictionary of
        - "checkpoint", and the "epoch" and the "step" that it was written in; of several networks, the "members" have
          these, how they were computed, and their own "metrics" of the images that all of them were tested on;
        - "data" and "root": the data set and its folder;
        - "images": how many were tested, of "found" test images. Those that were "left_out" are counted by reason:
          "trained_on", "unknown_classes" and "unreadable". A limit explains the rest;
        - "matched": whether the classes were those of the network "by_name" or "by_position";
        - "split": "test", or "val" for the images that the run validated on;
        - "image_size" and "resize" in pixels, "precision", "views" and "flip_averaging": how they were computed;
        - "metrics" by name, such as "test/accuracy";
        - with `calibrated`: the "temperature", and the metrics that it changes as they were, "uncalibrated";
        - with `coverage`: "sets", with the coverage that was "asked" and the one of the images, "coverage";
        - "classes": one row per class of the network, with "class", "images", "precision", "recall" and "f1"; a score
          is None if the class has no images (recall), was never predicted (precision), or both (F1).

        The first process also writes it to `config.output`, and what the network answered to each image to
        `config.predictions`, if these are given. It alone has what needs the answers: in other processes, the result
        lacks what `calibrated` and `coverage` add, and that of several networks is that of the last one.

    Raises:
        UserError: there is no such checkpoint, or the data set has no test images of classes that the network knows.
    """
    if config.predictions is not None:
        require_writer(Path(config.predictions))
    members = members_of(config.checkpoint)
    if len(members) > 1:
        evaluation = test_ensemble(config, members, config_dir)
    else:
        evaluation = test_network(with_checkpoint(config, members[0]), config_dir)
    if is_first_process():
        write_evaluation(evaluation, config)
    return evaluation.result


def with_checkpoint(config: DictConfig, checkpoint: str) -> DictConfig:
    """Return a composed conf/evaluate.yaml for one of several networks."""
    return OmegaConf.merge(config, {"checkpoint": checkpoint})  # type: ignore[return-value]


def write_evaluation(evaluation: Evaluation, config: DictConfig) -> None:
    """Write the files that a composed conf/evaluate.yaml asks for."""
    if config.output is not None:
        with output_errors(config.output):
            write_valid_json(Path(config.output), evaluation.result)
    if config.predictions is None:
        return
    if evaluation.answers is None:
        raise UserError(
            f"predictions={config.predictions} would have more than {MAX_NUMBERS:,} probabilities: "
            "trainer.limit_test_batches tests fewer images"
        )
    write_answers_table(Path(config.predictions), evaluation.answers, config.sort, evaluation.sets)


def test_ensemble(config: DictConfig, members: Sequence[str], config_dir: str | Path | None) -> Evaluation:
    """Test the mean of the probabilities of several networks, one network after the other.

    Args:
        config: a composed conf/evaluate.yaml.
        members: what `checkpoint` would be for each of them.
        config_dir: as for `load_classifier`.

    Returns:
        The test of the ensemble. Its answers and metrics are those of the images that all members were tested on.
    """
    if config.calibrated or config.coverage is not None:
        raise UserError("calibrated and coverage are for one network: the mean of several has no calibration")
    limit = config.trainer.limit_test_batches  # 1 is one batch, 1.0 is all of them
    if isinstance(limit, int) or (limit is not None and limit < 1):
        raise UserError("trainer.limit_test_batches chooses other images for each network: leave it out for several")
    results, answers, pixels, data = list[dict[str, Any]](), list[Answers](), list[str | None](), None
    for each in members:  # none of whose networks is kept
        test = test_network(with_checkpoint(config, each), config_dir)
        results.append(test.result)
        if test.answers is not None:
            answers.append(test.answers)
            pixels.append(pixel_checksum(test.data.splits["test"]))
        data = data or test.data
    if not is_first_process():
        return test
    first = results[0]
    assert data is not None
    if len({(result["data"], str(Path(result["root"]).resolve())) for result in results}) > 1 or len({*pixels}) > 1:
        raise UserError("the networks were trained on different data sets: data=… names the one to test all of them on")
    if len(answers) < len(results):
        raise UserError("the logits of all images are too many to keep in memory, which several networks need")
    checkpoints = [result["checkpoint"] for result in results]
    together, aligned = averaged(answers, checkpoints)
    table = class_table(together.confusion, list(together.classes))
    found = max(result["found"] for result in results)
    own = ("checkpoint", "epoch", "step", "images", "left_out", "image_size", "resize", "precision", "views")
    result = {
        "checkpoint": checkpoints,
        **{name: first[name] for name in ("data", "root", "split", "matched")},
        "images": len(together),
        "found": found,
        "left_out": {"by_a_member": found - len(together)},
        "members": [
            {name: test[name] for name in own} | {"metrics": named_metrics(member, config)}
            for test, member in zip(results, aligned, strict=True)
        ],
        "metrics": named_metrics(together, config) | (macro_f1(table) if names_data(config) else {}),
        "classes": table,
    }
    return Evaluation(result, together, data, None)


def named_metrics(answers: Answers, config: DictConfig) -> dict[str, float]:
    """Return the metrics of answers by name, such as "test/accuracy"."""
    return {f"{config.split}/{name}": value for name, value in metrics_of(answers.logits, answers.labels).items()}


def test_network(config: DictConfig, config_dir: str | Path | None = None) -> Evaluation:  # noqa: PT028
    """Test a trained network: see `evaluate`."""
    quiet_lightning()
    quiet_other_processes()
    if config.device is not None:
        config.trainer.accelerator = config.device
    require_accelerator(*accelerator_of(config))
    if config.trainer.limit_test_batches == 0:
        raise UserError("trainer.limit_test_batches=0 leaves nothing to test: leave the option out, or give at least 1")
    path = require_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(path)
    if not {"epoch", "global_step"} <= checkpoint.keys():
        raise UserError(f"{path} is not a complete checkpoint of ResLab: it does not say of which epoch and step it is")
    warn_of_other_step(path, checkpoint["global_step"], config)
    trained = restore_classifier(path, checkpoint, config_dir)
    sized = with_given_sizes(trained, config)
    trained = with_views(sized, config.views)
    calibration = None
    if config.calibrated or config.coverage is not None:
        precision = requested_precision(trained, config)
        calibration = stored_calibration(trained, path, resolve_precision(precision, config.trainer.accelerator))
    if calibration is not None and config.coverage is not None:
        threshold(calibration.scores, config.coverage)  # a coverage that is too high is a mistake
    build = build_validation_data if config.split == "val" else build_test_data
    tested = build(trained, config, path)
    bar = [ProgressBar()] if config.trainer.enable_progress_bar and can_show_bar() else []
    trainer = build_trainer(trainer_config(trained, config), callbacks=[*bar], logger=None)
    try:
        with joined_processes(config.trainer.num_nodes):
            (metrics,) = trainer.test(trained.classifier, datamodule=tested.data, weights_only=True, verbose=False)
        unreadable = count_over_processes(trainer, len(tested.data.left_out["test"]))
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
    confusion = trained.classifier.confusion
    table = class_table(confusion, trained.spec.classes)
    result = {
        "checkpoint": str(path),
        "epoch": checkpoint["epoch"] + 1,  # Lightning counts from 0
        "step": checkpoint["global_step"],
        "data": tested.data.name,
        "root": str(tested.data.root),
        "images": confusion.images,
        "found": tested.found,
        "left_out": tested.left_out | {"unreadable": unreadable},
        "matched": "by_position" if config.unknown_classes == "by_position" else "by_name",
        "split": config.split,
        "image_size": sized.spec.size_in_evaluation,
        "resize": sized.spec.resize,
        "precision": trainer.precision,
        "views": trained.classifier.views.names,
        "flip_averaging": trained.classifier.views.flip,
        "metrics": of_split(dict(metrics) | (macro_f1(table) if names_data(config) else {}), config.split),
        "classes": table,
    }
    answers, split = trained.classifier.answers, tested.data.splits["test"]
    if answers is not None and split is not None:
        answers = replace(with_files(answers, split, tested.data.root), split=config.split)
    evaluation = Evaluation(result, answers, tested.data, trained)
    if calibration is None or not is_first_process():
        return evaluation
    return with_calibration(evaluation, calibration, config)


def with_calibration(evaluation: Evaluation, calibration: Calibration, config: DictConfig) -> Evaluation:
    """Divide the logits by the temperature if `calibrated` is true, and measure the sets for `coverage` if it is given.

    The sets are those of the probabilities without the temperature.
    """
    result, answers = evaluation.result, evaluation.answers
    if answers is None:
        raise UserError("calibrated and coverage need the logits of all images, which are too many to keep in memory")
    sets = None
    if config.coverage is not None:
        limit = threshold(calibration.scores, config.coverage)
        sets = ordered_sets(answers.logits, limit)
        measured = measured_coverage(answers.logits, answers.labels, limit)
        result["sets"] = {"asked": config.coverage, "calibration_images": len(calibration.scores)} | measured
    if config.calibrated:
        answers = replace(answers, logits=with_temperature(answers.logits, calibration.temperature))
        changed = {f"{config.split}/{name}" for name in ("loss", "calibration_error")}
        after = named_metrics(answers, config)
        result["uncalibrated"] = {name: value for name, value in result["metrics"].items() if name in changed}
        result["metrics"] |= {name: value for name, value in after.items() if name in changed}
        result["temperature"] = calibration.temperature
    return evaluation._replace(answers=answers, sets=sets)


def warn_of_other_step(path: Path, step: int, config: DictConfig) -> None:
    """Say so if the result of the run whose folder is given is that of other weights, e.g. before it was resumed."""
    run = Run.of_checkpoint(path)
    is_last = path == run.last  # of which `find_checkpoint` says so
    if not is_last and not Path(config.checkpoint).is_file() and (other := run.other_step(path, step)):
        log.warning("%s", other)


def trainer_config(trained: Trained, config: DictConfig) -> DictConfig:
    """Return the run's configuration with the trainer of the evaluation, in the precision of the run unless given."""
    precision = requested_precision(trained, config)
    now = resolve_precision(precision, config.trainer.accelerator)
    if config.trainer.precision is None:
        report_other_precision(trained, now, "this test", ": trainer.precision sets it")
    trained.config.trainer = {**config.trainer, "precision": precision}
    return trained.config


def requested_precision(trained: Trained, config: DictConfig) -> str:
    """Return the precision that a test is asked for: that of the run unless another one is given."""
    return config.trainer.precision or trained.config.trainer.precision


def with_given_sizes(trained: Trained, config: DictConfig) -> Trained:
    """Let the network take images of the sizes that the command line gives. Raise UserError if they contradict."""
    given = {name: config.data[name] for name in (*NEW_SIZES, "image_size") if config.data[name] is not None}
    if {"eval_size", "image_size"} <= given.keys():
        raise UserError("data.image_size and data.eval_size are the same here: give data.eval_size alone")
    before = trained.spec.size_in_evaluation
    now = given.pop("image_size", None) or given.pop("eval_size", None) or before
    if now != before:  # an eval_size lets Pillow resize files, also where it is the size of the training
        given["eval_size"] = now
    spec = replace(trained.spec, **given)
    check_sizes(vars(spec))
    if before != now:
        verb = "trained" if before == trained.spec.image_size else "evaluated"
        log.warning("images of %d pixels are tested; the network was %s on %d", now, verb, before)
    trained.classifier.preprocess.in_evaluation = spec.fitting(training=False)
    return trained._replace(spec=spec)


def of_split(metrics: dict[str, float], split: str) -> dict[str, float]:
    """Return metrics of a test by the name of the split that was tested, e.g. "val/accuracy"."""
    return {name.replace("test/", f"{split}/", 1): value for name, value in metrics.items()}


def macro_f1(table: list[dict[str, Any]]) -> dict[str, float]:
    """Return the macro F1 score over the classes that have images, if some class of the network has none.

    It is scikit-learn's `f1_score(true, predicted, labels=<the classes with images>, average="macro")`. The metric of a
    test also counts a class without images that was predicted, with a score of 0.
    """
    scores = [row["f1"] for row in table if row["images"]]
    return {} if len(scores) == len(table) else {"test/f1_macro": sum(scores) / len(scores)}


def class_table(confusion: Confusion, classes: list[str]) -> list[dict[str, Any]]:
    """Return the precision, recall and F1 score of each class.

    Args:
        confusion: the pairs of a true and a predicted class of a test.
        classes: the names of the classes.

    Returns:
        One row per class. The precision of a class that was never predicted, the recall of one without images, and
        the F1 score of one that is both are None.
    """
    counts = confusion.by_true_class().tolist()
    numbers = confusion.right(), confusion.by_true_class(), confusion.by_predicted_class()
    right, images, predicted = (each.double() for each in numbers)
    scores = (ratios(right, predicted), ratios(right, images), ratios(2 * right, images + predicted))
    columns = zip(classes, counts, *scores, strict=True)
    return [dict(zip(("class", "images", "precision", "recall", "f1"), row, strict=True)) for row in columns]


def ratios(counts: Tensor, of: Tensor) -> list[float | None]:
    """Return counts divided by what they are counts of; None where that is 0."""
    return [ratio if whole else None for ratio, whole in zip((counts / of).tolist(), of.tolist(), strict=True)]
