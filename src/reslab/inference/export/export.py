"""Write a trained network as a file, read it back, and keep it only if it is the same network."""

import logging
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from reslab.errors import RunError, UserError, is_mistake
from reslab.files import output_errors, replaced_output
from reslab.inference.export.comparison import TOLERANCE, Comparison
from reslab.inference.export.formats import FORMATS, Answer, Write, quiet_conversion
from reslab.inference.export.images import (
    NOISE_IMAGES,
    calibration_batches,
    noise,
    own_data,
    own_test_data,
    pixel_batches,
)
from reslab.inference.export.metadata import Metadata, metadata
from reslab.inference.export.network import ExportedNetwork
from reslab.inference.export.options import ENDINGS
from reslab.inference.export.quantization import Quantizer
from reslab.inference.loading import Trained, restore_classifier
from reslab.inference.temperature import stored_calibration, with_temperature
from reslab.newest import refuse_zoo, require_checkpoint
from reslab.run import Run
from reslab.training.checkpoints import read_checkpoint
from reslab.training.classifier import Classifier

log = logging.getLogger(__name__)

LOST_ACCURACY = 0.01  # of a quantised network, from which on it is worth a warning


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path, size: the file and its bytes.
        checkpoint: the file of the network.
        image_shape: height, width and channels of the images that it takes.
        classes: how many there are.
        images: on what it was compared, in words.
        runtime: what has read it.
        comparison: the result.
        speeds: of a quantised network, see `Quantizer.speeds`; None for the others.
    """

    path: Path
    size: int
    checkpoint: Path
    image_shape: tuple[int, int, int]
    classes: int
    images: str
    runtime: str
    comparison: Comparison
    speeds: dict[str, dict[int, float]] | None


def export(config: DictConfig, config_dir: str | Path | None = None) -> Exported:
    """Write a trained network as a file for other programs.

    The file gets its name only after its own runtime has read it and has given the answers of the run's network, which
    is computed in float32 on the CPU.

    Args:
        config: a composed conf/export.yaml.
        config_dir: as for `load_classifier`.

    Raises:
        UserError: there is no such checkpoint, there are no test images to compare with, or the file cannot be written.
        RunError: the network cannot be exported, or the file gives other answers. No file is left then.
    """
    checkpoint_file = require_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(checkpoint_file)
    trained = restore_classifier(checkpoint_file, checkpoint, config_dir)
    temperature = stored_calibration(trained, checkpoint_file, "32-true").temperature if config.calibrated else 1.0
    network = ExportedNetwork(trained.classifier, temperature)
    form, quantizer = FORMATS.get(config.format, FORMATS["onnx"]), None
    batches: Iterable[tuple[Tensor, Tensor | None]] = noise(network.image_shape)
    images = f"{NOISE_IMAGES} images of random pixels"
    if config.verify:
        data = own_data(checkpoint_file, config.root)
        tested = own_test_data(trained, data, config.limit, checkpoint_file)
        batches = pixel_batches(tested, trained.spec.fitting(training=False))
        images = f"of {tested.found:,} test images of {tested.data.name}"
        if config.format == "int8":
            quantizer = Quantizer(calibration_batches(trained, data, config.calibration_images))
            form = form._replace(write=quantizer.write)
    output = output_file(config, trained, checkpoint_file)
    said = metadata(trained, checkpoint_file, checkpoint, config.format, temperature)
    speeds = None
    with replaced_output(output) as partial:
        with output_errors(output):
            write(form.write, network, partial, said, config.format)
            with quiet_conversion():
                loaded = form.load(partial)
        if loaded.metadata != said:
            raise RunError(
                f"the file of format={config.format} does not hold what was written about it: nothing was written"
            )
        comparison = compare(reference(trained.classifier, temperature), loaded.answer, batches)
        if quantizer is None:
            require_agreement(comparison, config.format)
        else:
            require_numbers(comparison)
            speeds = quantizer.speeds(partial, next(noise(network.image_shape))[0])
        size = partial.stat().st_size
    shape, classes = network.image_shape, len(trained.spec.classes)
    compared = f"{comparison.images:,} {images}" if config.verify else images  # files that cannot be read are left out
    return Exported(output, size, checkpoint_file, shape, classes, compared, loaded.runtime, comparison, speeds)


def output_file(config: DictConfig, trained: Trained, checkpoint: Path) -> Path:
    """Return the file to write: `output`, or else <model>.<ending> in the folder export of the run.

    The model's name comes from the checkpoint. A checkpoint outside of a run's folder has the folder export beside it.
    """
    if config.output is not None:
        return Path(config.output)
    run = Run.of_checkpoint(checkpoint)
    folder = run.folder if run.has_settings else checkpoint.parent
    refuse_zoo(folder, "output=<file> writes the network elsewhere")
    name = re.sub(r"[^\w-]", "_", trained.config.model.name) or "network"
    quantized = ".int8" if config.format == "int8" else ""
    return folder / "export" / f"{name}{quantized}{ENDINGS[config.format]}"


def write(write_file: Write, network: ExportedNetwork, path: Path, said: Metadata, kind: str) -> None:
    """Write a network. Raise RunError if it cannot be exported, e.g. because its Python looks at its images."""
    try:
        with quiet_conversion(), torch.no_grad():
            write_file(network, path, said)
    except Exception as error:  # torch raises many kinds of errors for networks of the user's own
        if is_mistake(error) or isinstance(error, OSError):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        raise RunError(f"this network cannot be exported as {kind}: {type(error).__name__}: {reason}") from error


def reference(classifier: Classifier, temperature: float) -> Callable[[Tensor], Tensor]:
    """Return what maps uint8 images (N, H, W, C) to the probabilities that the run's own network gives them."""

    def probabilities(images: Tensor) -> Tensor:
        logits = classifier.evaluation_logits(images.permute(0, 3, 1, 2))
        return with_temperature(logits, temperature).softmax(1)

    return probabilities


@torch.inference_mode()
def compare(
    expected: Callable[[Tensor], Tensor], answer: Answer, batches: Iterable[tuple[Tensor, Tensor | None]]
) -> Comparison:
    """Compare the answers of a file with those of the run's network.

    Args:
        expected: the probabilities of the run's network, on the CPU.
        answer: the file. It is also asked for one image alone, because it must take batches of any size.
        batches: uint8 images (N, H, W, C), and labels (N,) or None.

    Raises:
        UserError: there are no images.
    """
    comparison = Comparison()
    for images, labels in batches:
        given = answer(images)[0]
        if comparison.images == 0:
            given = torch.cat([answer(images[:1])[0], given[1:]])
        comparison.add(expected(images), given, labels)
    if comparison.images == 0:
        raise UserError("there are no test images to compare the file with: verify=false compares it on random pixels")
    return comparison


def require_numbers(comparison: Comparison) -> None:
    """Raise RunError if a quantised network has answered with what is no number. Warn if it is much less accurate."""
    if math.isnan(comparison.difference):
        raise RunError("the quantised network answers with probabilities that are no numbers; nothing was written")
    lost = (comparison.right_before - comparison.right) / comparison.images
    if lost > LOST_ACCURACY:
        log.warning(
            "the quantised network is right about %.1f points fewer of the images than the run's network: format=onnx "
            "keeps the accuracy", 100 * lost,
        )  # fmt: skip


def require_agreement(comparison: Comparison, kind: str) -> None:
    """Raise RunError if a file gives other answers than the run's network."""
    if not comparison.agrees:
        raise RunError(
            f"the file of format={kind} gives other answers than the run's network: the largest difference of a "
            f"probability is {comparison.difference:.2g} (at most {TOLERANCE:g}), and {comparison.changed:,} of "
            f"{comparison.images:,} answers are others; nothing was written"
        )
