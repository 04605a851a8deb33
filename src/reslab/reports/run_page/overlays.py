"""What the network looked at in the mistakes that the page shows: Grad-CAM for the predicted class."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from reslab.data.thumbnails import picture_of, thumbnail
from reslab.inference.answering import Answering, answering_alone
from reslab.inference.explained_files import explain_batch, read_file
from reslab.inference.explanation import find_maps, grad_cam, overlay
from reslab.inference.loading import restore_classifier
from reslab.reports.run_page.pictures import Source
from reslab.run import Run
from reslab.training.answers import Answers


def overlays_of(
    run: Run, checkpoint: dict[str, Any], step: int, answers: Answers, sources: Mapping[int, Source]
) -> dict[int, Image.Image]:
    """Return small pictures of images with what speaks for their predicted class laid over them.

    Args:
        run: the run.
        checkpoint: the content of the checkpoint that `run.chosen_checkpoint` names.
        step: that of the tested weights.
        answers: those of the test.
        sources: the images, by their positions in the answers.

    Returns:
        The pictures by position; none where captum is not installed or the tested weights were not kept.
    """
    if not sources or find_spec("captum") is None or checkpoint.get("global_step") != step:
        return {}
    trained = restore_classifier(run.chosen_checkpoint()[0], checkpoint, run.config_dir)
    answering = answering_alone(trained, "cpu")
    predicted = {position: int(answers.predicted[position]) for position in sources}
    files = {position: source for position, source in sources.items() if isinstance(source, str)}
    images = {position: source for position, source in sources.items() if isinstance(source, Tensor)}
    with answering.precisions[0].forward_context():
        layer = find_maps(trained.classifier).name
    return of_files(answering, files, predicted, layer) | of_memory(answering, images, predicted, layer)


def of_files(
    answering: Answering, files: Mapping[int, str], predicted: Mapping[int, int], layer: str
) -> dict[int, Image.Image]:
    found: dict[int, Image.Image] = {}
    for label in sorted({predicted[position] for position in files}):
        positions = [position for position in files if predicted[position] == label]
        read = [read_file(files[position], answering.first) for position in positions]
        explained = explain_batch(answering, read, label, layer)
        found |= {position: thumbnail(each.overlay()) for position, each in zip(positions, explained, strict=True)}
    return found


def of_memory(
    answering: Answering, images: Mapping[int, Tensor], predicted: Mapping[int, int], layer: str
) -> dict[int, Image.Image]:
    if not images:
        return {}
    classes = torch.tensor([predicted[position] for position in images])
    with answering.precisions[0].forward_context():
        heat = grad_cam(answering.first.classifier, torch.stack(list(images.values())), classes, layer)  # (N, H, W)
    return {position: with_heat(images[position], each) for position, each in zip(images, heat, strict=True)}


def with_heat(image: Tensor, heat: Tensor) -> Image.Image:
    """Return an enlarged image with its heat, which stays smooth where pixels become squares."""
    picture = picture_of(image, None)
    assert picture is not None  # it was not read from a file
    pixels = pil_to_tensor(thumbnail(picture))
    large = F.interpolate(heat[None, None], pixels.shape[1:], mode="bilinear", antialias=True)[0, 0]
    return to_pil_image(overlay(pixels, large))
