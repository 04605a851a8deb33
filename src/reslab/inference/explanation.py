"""Grad-CAM: which parts of an image speak for a class (Selvaraju et al. 2017, arXiv:1610.02391, section 3).

Captum computes the maps. What is ours is the choice of the layer, the mirror image of `flip_averaging`, and where in an
image the map belongs.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import matplotlib
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reslab.data.images import first_few
from reslab.data.preprocessing import require_pixels
from reslab.errors import UserError, suggest
from reslab.training.classifier import Classifier

BATCH_SIZE = 16  # the gradient of a ResNet-50 keeps about 90 MB of activations for each image of 224 pixels
OPACITY = 0.6  # of the colour of the strongest evidence
COLORS, REDDEST = "turbo", 0.9  # the end of this scale is nearly black
NAMED_LAYERS = 8  # in a message
STAGE = re.compile(r"layer\d+")  # a stage of the networks here, of torchvision and of timm


class Maps(NamedTuple):
    """Feature maps (N, C, h, w) of a network.

    Attributes:
        name: the layer's name within the network, as `named_modules` gives it.
        layer: the layer that returns the maps, or takes them.
        is_input: whether it takes them, as the global pooling does.
    """

    name: str
    layer: nn.Module
    is_input: bool


def grad_cam(classifier: Classifier, images: Tensor, classes: Tensor, layer: str | None = None) -> Tensor:
    """Return for each pixel how much the part of the image around it speaks for a class.

    A map is the sum of the feature maps of a layer, each weighted with the mean gradient of the class's logit, where it
    is positive. It is enlarged bilinearly, and its largest value is 1. A map without positive values is 0 everywhere.
    With `flip_averaging`, it is the mean of the map of the image and that of its mirror image, as the logit is.

    Args:
        classifier: in any mode, on any device; it stays as it is.
        images: uint8 (N, C, H, W), as the classifier takes them.
        classes: int64 (N,), the class to explain for each image.
        layer: the name of a module of the network that returns feature maps, such as layer3, or of one that pools
            them, which stands for the maps that it takes. None: the global pooling, so the maps of the last stage, with
            the last norm and ReLU of a pre-activation network; the last stage that has more than one position if the
            pooling has only one.

    Returns:
        float32 (N, H, W) on the CPU, from 0 to 1. Parts that the network does not see, because images of this size are
        cropped, are 0.

    Raises:
        UserError: captum is not installed, the network has no such layer, or none can be chosen.
    """
    method = require_captum()
    require_pixels(images)
    height, width = images.shape[2:]
    if not len(images):
        return torch.empty(0, height, width)
    heat = list[Tensor]()
    with evaluation_mode(classifier), torch.inference_mode(False), torch.compiler.set_stance("force_eager"):
        maps = find_maps(classifier, layer)
        cam = method(classifier.network, maps.layer)
        for pixels, targets in zip(images.split(BATCH_SIZE), classes.split(BATCH_SIZE), strict=True):
            pixels, targets = pixels.to(classifier.device), targets.to(classifier.device)
            found = evidence(cam, maps, classifier, pixels, targets)
            if classifier.views.flip:
                found = (found + evidence(cam, maps, classifier, pixels.flip(3), targets).flip(3)) / 2
            fitting = classifier.preprocess.in_evaluation
            squares = normalized(found, fitting.size)
            is_square = (height, width) == (fitting.size, fitting.size)  # such images are taken as they are
            part = (width, height) if is_square else fitting.part_of(width, height, fitting.fit or "squash")
            heat.append(laid_over(squares, part, height, width).cpu())
        return torch.cat(heat)


def evidence(cam: Any, maps: Maps, classifier: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Return captum's maps for and against a class, float32 (N, 1, h, w), of uint8 images (N, C, H, W)."""
    with torch.no_grad():
        x = classifier.preprocess(images)
    # Without it, a network with frozen weights would have no gradient.
    x.requires_grad_()
    return cam.attribute(x, target=classes, attribute_to_layer_input=maps.is_input).detach().float()


def normalized(evidence: Tensor, size: int) -> Tensor:
    """Return the positive part of maps (N, 1, h, w), enlarged to a size and divided by its maximum.

    Returns:
        (N, 1, size, size), from 0 to 1; 0 where a map has no positive value, or one that is not finite.
    """
    heat = F.interpolate(F.relu(evidence), (size, size), mode="bilinear", align_corners=False)
    peak = heat.amax((1, 2, 3), keepdim=True)
    return torch.where((peak > 0) & peak.isfinite(), heat / peak, 0)


def laid_over(squares: Tensor, part: tuple[float, float], height: int, width: int) -> Tensor:
    """Lay maps of the network's square over the part of an image that became this square.

    Args:
        squares: (N, 1, S, S).
        part: width and height of that part, which is in the middle of the image and may be larger than it: see
            `Fitting.part_of`.
        height: of the image.
        width: of the image.

    Returns:
        (N, height, width), bilinear, and 0 outside the part.
    """
    if squares.shape[2:] == (height, width) and part == (width, height):
        return squares[:, 0]
    across, down = (places(side, whole) for side, whole in zip(part, (width, height), strict=True))
    grid = torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=2)  # (height, width, 2), from -1 to 1 inside
    grid = grid.to(squares).expand(len(squares), -1, -1, -1)
    inside = (grid.abs() <= 1).all(3)
    sampled = F.grid_sample(squares, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[:, 0] * inside


def places(side: float, whole: int) -> Tensor:
    """Return where the centres of `whole` pixels are, with -1 and 1 the ends of a part of length `side` in the middle.

    Example:
        >>> places(2, 4).tolist()
        [-1.5, -0.5, 0.5, 1.5]
    """
    return (torch.arange(whole, dtype=torch.float64) + 0.5 - whole / 2) / (side / 2)


def overlay(image: Tensor, heat: Tensor) -> Tensor:
    """Colour the parts of an image that speak for a class: the more, the stronger, and red where they do most.

    Args:
        image: uint8 (C, H, W), grey or RGB.
        heat: float (H, W), from 0 to 1: one of `grad_cam`.

    Returns:
        uint8 (3, H, W). Where the heat is 0, it is the image.
    """
    if image.shape[1:] != heat.shape:
        raise ValueError(f"the image has {tuple(image.shape[1:])} pixels and the heat {tuple(heat.shape)}")
    table = torch.from_numpy(matplotlib.colormaps[COLORS](range(256), bytes=True)[:, :3].copy())  # (256, 3)
    heat = heat.cpu().clamp(0, 1)
    colors = table[(heat * 255 * REDDEST).round().long()].permute(2, 0, 1)  # (3, H, W)
    opacity = OPACITY * heat
    mixed = image.cpu().expand(3, -1, -1) * (1 - opacity) + colors * opacity
    return mixed.round().to(torch.uint8)


# the layer


def find_maps(classifier: Classifier, layer: str | None = None) -> Maps:
    """Return the feature maps to explain an answer with: see `grad_cam`.

    Args:
        classifier: in evaluation mode. The layers that return maps are those that do for images of its size.
        layer: the name of a layer, or None.

    Raises:
        UserError: there is no such layer, or none can be chosen.
    """
    example = classifier.example_input_array
    with torch.no_grad():
        return choose_maps(classifier.network, classifier.preprocess(example[:1].to(classifier.device)), layer)


def choose_maps(network: nn.Module, x: Tensor, layer: str | None = None) -> Maps:
    """Return the maps of a network in evaluation mode for images like x, float (1, C, S, S): see `find_maps`."""
    calls = record_calls(network, x)
    modules = dict(network.named_modules())
    times = Counter(call.name for call in calls)  # of a layer that is called twice, one of the two would be explained
    found = [call for call in calls if (call.returns_maps or call.pools) and times[call.name] == 1]
    usable = {call.name: Maps(call.name, modules[call.name], call.pools) for call in found}
    name = default_layer(calls) if layer is None else layer
    if name in usable:
        return usable[name]
    top_level = [each for each in usable if "." not in each] or list(usable)
    size = f"for images of {x.shape[-1]} pixels"
    if not usable:
        raise UserError(f"no layer of this network returns maps with more than one position {size}: it has no Grad-CAM")
    choices = f"layer= takes {first_few(top_level[::-1], NAMED_LAYERS)}"
    if layer is None:
        raise UserError(f"this network has no global pooling of feature maps {size}: {choices}")
    raise UserError(
        f"layer={layer} is no layer that returns maps with more than one position {size}"
        f"{suggest(layer, list(usable), choices)}"
    )


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        name: the module's name.
        returns_maps: whether it has returned maps (N, C, h, w) with more than one position.
        pools: whether it has taken such maps and returned one value of each, (N, C) or (N, C, 1, 1).
    """

    name: str
    returns_maps: bool
    pools: bool


def record_calls(network: nn.Module, x: Tensor) -> list[Call]:
    """Return the calls of all modules within a network, in the order in which they end."""
    calls = list[Call]()

    def note(name: str, module: nn.Module, taken: Sequence[Any], returned: Any) -> None:
        computes = next(module.parameters(), None) is not None  # a convolution, or more than the pooling
        pools = not computes and bool(taken) and taken[0] is not x and is_pooling(taken[0], returned)
        calls.append(Call(name, has_positions(returned), pools))

    hooks = [module.register_forward_hook(partial(note, name)) for name, module in network.named_modules() if name]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def has_positions(value: Any) -> bool:
    """Return whether a value is maps (N, C, h, w) with more than one position."""
    return isinstance(value, Tensor) and value.ndim == 4 and value.shape[2:].numel() > 1


def is_pooling(taken: Any, returned: Any) -> bool:
    """Return whether maps (N, C, h, w) with more than one position have become (N, C) or (N, C, 1, 1)."""
    if not has_positions(taken) or not isinstance(returned, Tensor):
        return False
    return returned.shape[:2] == taken.shape[:2] and returned.shape[2:].numel() == 1


def default_layer(calls: Sequence[Call]) -> str | None:
    """Return the name of the global pooling: the first module outside the stages that pools maps after the last maps.

    Returns:
        Where there is none, or it takes maps of one position, the last of the stages layer1, layer2, … that returns
        maps of more; None if there are no such stages.
    """
    last = max((number for number, call in enumerate(calls) if call.returns_maps), default=-1)
    pooling = [call.name for call in calls[last + 1 :] if call.pools and not STAGE.match(call.name)]
    stages = [call.name for call in calls if call.returns_maps and STAGE.fullmatch(call.name)]
    return pooling[0] if pooling else stages[-1] if stages else None


# surroundings


def require_captum() -> Any:
    """Return captum's Grad-CAM. Raise UserError where captum is not installed."""
    try:
        from captum.attr import LayerGradCam
    except ImportError as error:
        raise UserError("Grad-CAM needs the package captum: pip install -e '.[explain]'") from error
    return LayerGradCam


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set a module and all within it to evaluation mode in the block, and each to its own mode afterwards."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes.items():
            each.training = mode
