"""Write a trained network as a folder to share: its weights, its result, its settings and a card about it."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig
from torch import Tensor

from reslab.configuration import flatten, has_prefix, name_of, quoted, unquoted
from reslab.data.spec import ImageSpec
from reslab.errors import RunError, UserError
from reslab.files import output_errors, require_output_folder, write_json, write_text
from reslab.inference.export.images import NOISE_IMAGES, noise, own_data, own_test_data, pixel_batches
from reslab.inference.loading import Trained, load_classifier, restore_classifier
from reslab.models.weights import save_safetensors
from reslab.newest import require_checkpoint
from reslab.run import FINISHED, SETTINGS_ERRORS, UNREADABLE, Run, tested_step
from reslab.training.checkpoints import read_checkpoint
from reslab.training.classifier import Classifier

CARD = "README.md"
# Options that say where a run was and what recorded it. They are of one machine, and change no number of the run.
OF_A_MACHINE = ("data.root", "outputs", "folder", "resume", "from", "trust", "hydra", "logger")
# An option of a logger that stays: a run without it would be repeated as one that is older than the option.
GROUP_BY = "logger.tensorboard.group_by"
PATTERN = "data.group"  # a regular expression, which may begin as an absolute path does
LISTED_PATH = re.compile(r"(?<=[\[,{:'\"])[/~][^,\]}'\"]*")  # an absolute path in a list of an override
LEFT_OUT_OF_A_RESULT = ("folder", "unwritten")  # unwritten: what a resumed run writes
LEFT_OUT_OF_A_RECORD = "loggers"  # by which a resumed run continues its loggers


@dataclass(frozen=True)
class Shared:
    """A network that is shared.

    Attributes:
        run: the run that has trained it.
        folder: where its weights, result, settings and card are.
        overrides: the command line of the run, as the folder has it.
        spec: the classes and the images of the network.
        size: of the weights, in bytes.
        images: on what the weights were compared with the run's network, in words.
        licence: of the weights; None if it is not stated.
        calibration: what `calibrate` has stored with them (`record.CALIBRATION`); None without one.
    """

    run: Run
    folder: Path
    overrides: Sequence[str]
    spec: ImageSpec
    size: int
    images: str
    licence: str | None
    calibration: Mapping[str, Any] | None = None


def share(config: DictConfig, card: Callable[[Shared], str]) -> Shared:
    """Write the folder of a trained network, which `Run` and every command take as they take that of a run.

    It is there only after the weights have been read from the disk and have answered as the run's network does, bit for
    bit, computed in float32 on the CPU.

    Args:
        config: a composed conf/export.yaml.
        card: returns the text of the card.

    Raises:
        UserError: there is no such run, it was not finished, its result is that of other weights, there are no test
            images to compare with, or the folder cannot be written.
        RunError: the weights answer otherwise. No folder is left then.
    """
    output = Path(config.output)
    require_new_folder(output)
    path = require_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(path)
    run = finished_run(path, checkpoint)
    trained = restore_classifier(path, checkpoint)
    batches: Iterable[tuple[Tensor, Tensor | None]] = noise(image_shape(trained))
    images = f"{NOISE_IMAGES} images of random pixels"
    if config.verify:
        tested = own_test_data(trained, own_data(path, config.root), config.limit, path)
        batches = pixel_batches(tested, trained.spec.fitting(training=False))
        images = f"of {tested.found:,} test images of {tested.data.name}"
    with output_errors(output), new_folder(output) as partial:
        written = Run(partial)
        licence = config.license or license_of(checkpoint)
        write_run(written, run, checkpoint, licence)
        count = compare(trained.classifier, load_classifier(written.weights).classifier, batches)
        size, images = written.weights.stat().st_size, f"{count:,} {images}" if config.verify else images
        stored = checkpoint["reslab"].get("calibration")
        shared = Shared(run, output, written.overrides, trained.spec, size, images, licence, stored)
        write_text(partial / CARD, card(shared))
    return shared


def require_new_folder(output: Path) -> None:
    """Raise UserError if a folder cannot be made, or would replace another one."""
    require_output_folder(str(output))
    if os.path.lexists(output) and next(output.iterdir(), None) is not None:
        raise UserError(f"output={output} is a folder with files: give the name of a new one, or remove it")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """Make a folder, which is there at the end of the block or not at all. Raises OSError.

    Yields:
        The path to write to.
    """
    partial = output.with_name(f".{output.name}.partial")
    if partial.exists():  # a process was killed
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def finished_run(path: Path, checkpoint: Mapping[str, Any]) -> Run:
    """Return the run of a checkpoint. Raise UserError if it has no settings or no result of these weights."""
    run = Run.of_checkpoint(path)
    if not run.has_settings:
        raise UserError(f"{path} is not in the folder of a run: format=share needs its settings and its result")
    if run.status != FINISHED:
        reason = f" ({run.result['error']})" if run.status == UNREADABLE else ""
        raise UserError(f"{run.folder} is {run.status}{reason}: only a finished run has a result to share")
    step, tested = checkpoint.get("global_step"), tested_step(run.result)
    if step != tested:
        raise UserError(
            f"{path} is of step {step}, and the result of the run is of step {tested}: share the run's folder"
        )
    return run


def license_of(checkpoint: Mapping[str, Any]) -> str | None:
    """Return the licence of a network that has been shared before."""
    licence = checkpoint.get("license")
    return licence if isinstance(licence, str) else None


def image_shape(trained: Trained) -> tuple[int, int, int]:
    """Return height, width and stored channels of the images of an evaluation."""
    size = trained.spec.fitting(training=False).size
    return size, size, len(trained.spec.mean)


def write_run(written: Run, run: Run, checkpoint: Mapping[str, Any], licence: str | None) -> None:
    """Write the weights, the settings and the result of a run into another folder, without the places of a machine."""
    try:
        settings, overrides = without_places(run.config), portable_overrides(run.overrides)
    except SETTINGS_ERRORS as error:
        raise UserError(f"{run.folder} has settings that cannot be read: {error}") from error
    result = {name: value for name, value in run.result.items() if name not in LEFT_OUT_OF_A_RESULT}
    record = {name: value for name, value in checkpoint["reslab"].items() if name != LEFT_OUT_OF_A_RECORD}
    record["config"] = without_places(record["config"])
    origin = {"result": result, "overrides": overrides, "license": licence}
    content = {name: checkpoint[name] for name in ("epoch", "global_step", "state_dict") if name in checkpoint}
    save_safetensors(written.weights, content | {"reslab": record} | origin)
    written.write_settings(yaml.safe_dump(settings, sort_keys=False), overrides)
    write_json(written.result_file, result)


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without the options of `OF_A_MACHINE`, and with the names alone of other absolute paths.

    `data.root`, without which a network cannot be tested, is null: whoever tests it has the data elsewhere.
    """
    kept = {name: without_folders(value, name) for name, value in config.items() if not has_prefix(name, OF_A_MACHINE)}
    if "root" in kept.get("data", ()):
        kept["data"]["root"] = None
    if (group_by := flatten(config).get(GROUP_BY)) is not None:
        kept["logger"] = {"tensorboard": {"group_by": group_by}}
    return kept


def portable_overrides(overrides: Iterable[str]) -> list[str]:
    """Return overrides as `without_places` returns a configuration."""
    kept = []
    for override in overrides:
        name, _, value = override.partition("=")
        if has_prefix(name_of(override), OF_A_MACHINE):
            continue
        if has_prefix(name_of(override), (PATTERN,)):
            kept.append(override)
            continue
        path = unquoted(value)
        if (portable := without_folders(path)) != path:
            kept.append(f"{name}={quoted(portable)}")
        else:
            kept.append(LISTED_PATH.sub(lambda found: Path(found[0]).name, override))
    return kept


def without_folders(value: Any, option: str = "") -> Any:
    """Return a value or a group of options with the name alone of each absolute path, whatever option has it.

    Args:
        value: the value.
        option: the name of the option or the group, or "".
    """
    if isinstance(value, dict):
        return {name: without_folders(each, f"{option}.{name}") for name, each in value.items()}
    if isinstance(value, list):
        return [without_folders(each) for each in value]
    is_path = isinstance(value, str) and (value.startswith("~") or Path(value).is_absolute()) and option != PATTERN
    return Path(value).name if is_path else value


@torch.inference_mode()
def compare(before: Classifier, after: Classifier, batches: Iterable[tuple[Tensor, Tensor | None]]) -> int:
    """Return how many images two networks were compared on.

    Args:
        before, after: the networks.
        batches: uint8 images (N, H, W, C), and labels, which do not count.

    Raises:
        RunError: a logit differs.
        UserError: there are no images.
    """
    count = 0
    for images, _ in batches:
        pixels = images.permute(0, 3, 1, 2)
        if not torch.equal(before.evaluation_logits(pixels), after.evaluation_logits(pixels)):
            raise RunError("the weights that were written answer otherwise than the run's network: nothing was written")
        count += len(images)
    if count == 0:
        raise UserError(
            "there are no test images to compare the weights on: verify=false compares them on random pixels"
        )
    return count
