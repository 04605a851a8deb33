"""Write a trained network as a file, read it back, and keep it only if it is the same network."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from reslab.errors import RunError, UserError, is_mistake
from reslab.files import output_errors, replaced
from reslab.inference.export.comparison import TOLERANCE, Comparison
from reslab.inference.export.formats import FORMATS, Answer, Format, quiet_conversion
from reslab.inference.export.images import noise, own_test_data, pixel_batches
from reslab.inference.export.metadata import Metadata, metadata
from reslab.inference.export.network import ExportedNetwork
from reslab.inference.export.options import ENDINGS
from reslab.inference.loading import Trained, restore_classifier
from reslab.newest import require_checkpoint
from reslab.run import Run
from reslab.training.checkpoints import read_checkpoint
from reslab.training.classifier import Classifier


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
    """

    path: Path
    size: int
    checkpoint: Path
    image_shape: tuple[int, int, int]
    classes: int
    images: str
    runtime: str
    comparison: Comparison


def export(config: DictConfig) -> Exported:
    """Write a trained network as a file for other programs.

    The file gets its name only after its own runtime has read it and has given the answers of the run's network, which
    is computed in float32 on the CPU.

    Args:
        config: a composed conf/export.yaml.

    Raises:
        UserError: there is no such checkpoint, there are no test images to compare with, or the file cannot be written.
        RunError: the network cannot be exported, or the file gives other answers. No file is left then.
    """
    checkpoint_file = require_checkpoint(config.checkpoint)
    checkpoint = read_checkpoint(checkpoint_file)
    trained = restore_classifier(checkpoint_file, checkpoint)
    network = ExportedNetwork(trained.classifier)
    batches: Iterable[tuple[Tensor, Tensor | None]]
    if config.verify:
        tested = own_test_data(trained, config.root, config.limit, checkpoint_file)
        batches = pixel_batches(tested, trained.spec.fitting(training=False))
        found = tested.found
    else:
        batches = noise(network.image_shape)
    output = output_file(config, trained, checkpoint_file)
    said = metadata(trained, checkpoint_file, checkpoint, config.format)
    with output_errors(output), replaced(output) as partial:
        write(FORMATS[config.format], network, partial, said, config.format)
        with quiet_conversion():
            loaded = FORMATS[config.format].load(partial)
        if loaded.metadata != said:
            raise RunError(
                f"the file of format={config.format} does not hold what was written about it: nothing was written"
            )
        comparison = compare(trained.classifier, loaded.answer, batches)
        require_agreement(comparison, config.format)
        size = partial.stat().st_size
    images = f"{comparison.images:,} images of random pixels"
    if config.verify:
        images = f"{comparison.images:,} of {found:,} test images of {trained.config.data.name}"
    return Exported(
        output,
        size,
        checkpoint_file,
        network.image_shape,
        len(trained.spec.classes),
        images,
        loaded.runtime,
        comparison,
    )


def output_file(config: DictConfig, trained: Trained, checkpoint: Path) -> Path:
    """Return the file to write: `output`, or else <model>.<ending> in the folder export of the run.

    The model's name comes from the checkpoint. A checkpoint outside of a run's folder has the folder export beside it.
    """
    if config.output is not None:
        return Path(config.output)
    run = Run(checkpoint.parent.parent)
    folder = run.folder if run.has_settings else checkpoint.parent
    name = re.sub(r"[^\w-]", "_", trained.config.model.name) or "network"
    return folder / "export" / f"{name}{ENDINGS[config.format]}"


def write(form: Format, network: ExportedNetwork, path: Path, said: Metadata, kind: str) -> None:
    """Write a network. Raise RunError if it cannot be exported, e.g. because its Python looks at its images."""
    try:
        with quiet_conversion(), torch.no_grad():
            form.write(network, path, said)
    except Exception as error:  # torch raises many kinds of errors for networks of the user's own
        if is_mistake(error) or isinstance(error, OSError):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        raise RunError(f"this network cannot be exported as {kind}: {type(error).__name__}: {reason}") from error


@torch.inference_mode()
def compare(classifier: Classifier, answer: Answer, batches: Iterable[tuple[Tensor, Tensor | None]]) -> Comparison:
    """Compare the answers of a file with those of the run's network.

    Args:
        classifier: the network, on the CPU.
        answer: the file. It is also asked for one image alone, because it must take batches of any size.
        batches: uint8 images (N, H, W, C), and labels (N,) or None.

    Raises:
        UserError: there are no images.
    """
    comparison = Comparison()
    for images, labels in batches:
        expected = classifier.predict_step(images.permute(0, 3, 1, 2), 0)
        given = answer(images)[0]
        if comparison.images == 0:
            given = torch.cat([answer(images[:1])[0], given[1:]])
        comparison.add(expected, given, labels)
    if comparison.images == 0:
        raise UserError("there are no test images to compare the file with: verify=false compares it on random pixels")
    return comparison


def require_agreement(comparison: Comparison, kind: str) -> None:
    """Raise RunError if a file gives other answers than the run's network."""
    if not comparison.agrees:
        raise RunError(
            f"the file of format={kind} gives other answers than the run's network: the largest difference of a "
            f"probability is {comparison.difference:.2g} (at most {TOLERANCE:g}), and {comparison.changed:,} of "
            f"{comparison.images:,} answers are others; nothing was written"
        )
