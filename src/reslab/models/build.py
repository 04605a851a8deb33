"""The network of a composed configuration (conf/model) and of the images that it will see."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.func import functional_call

from reslab.configuration import to_dict
from reslab.errors import UserError
from reslab.models.resnet import ResNet
from reslab.models.weights import StateDict, Weights, load_weights, read_published, stem_of, warn_of_another_function
from reslab.options import check_made

log = logging.getLogger(__name__)

SMALL_IMAGE = 64  # pixels: the 7x7/2 stem and its pooling leave 8x8 of a 32x32 image before the first block
SIZES = (*(2**power for power in range(2, 11)), 28, 96, 160, 192, 224, 299, 384)  # pixels: powers of 2 and usual sizes


def build_network(
    model: DictConfig, channels: int, num_classes: int, image_size: int, restored: StateDict | None = None
) -> nn.Module:
    """Build the network of `model` and load `model.weights`, unless that is null.

    Args:
        model: the group `model` of a composed configuration.
        channels: channels of the images.
        num_classes: number of classes.
        image_size: height and width of the images in pixels. `model.stem=auto` depends on it, without weights.
        restored: the weights of a checkpoint that will be loaded into the network, of which only the shapes count.
            `model.weights` is then not read.

    Raises:
        UserError: the weights do not exist or do not fit.
        InstantiationException: the description is wrong; its cause is the UserError that says how.
    """
    description = to_dict(model, resolve=True)
    weights = description.pop("weights")
    for option in ("freeze", "train_norms", "layer_decay", "whiten_stem"):  # they concern training
        description.pop(option, None)
    name = description.pop("name")
    published = Weights({}, {})
    if restored is not None:
        published, weights = Weights(restored, {}), None
        description |= {"pretrained": False} if "pretrained" in description else {}
    elif weights is not None:
        published = read_published(weights, name, description.get("stem"))
    if description.get("stem") == "auto":
        description["stem"] = choose_stem(published.tensors, image_size)
    named = OmegaConf.create({"model": description}).model  # an error names the group
    network: nn.Module = instantiate(named, in_channels=channels, num_classes=num_classes)
    check_made("model", network, nn.Module)
    if weights is not None:
        load_weights(network, published.tensors, weights, name)
        warn_of_another_function(weights, published.trained, description)
    return network


def choose_stem(state: StateDict, image_size: int) -> str:
    """Return the stem of some weights, and without weights the one for images of a size."""
    of_size = "cifar" if image_size <= SMALL_IMAGE else "imagenet"
    stem = stem_of(state) or of_size
    if stem == of_size:
        log.info("model.stem=auto: the %s stem for %d-pixel images", stem, image_size)
    else:
        log.info("model.stem=auto: the %s stem, which the weights have", stem)
    return stem


def check_shapes(
    network: nn.Module, batch_size: int, channels: int, image_size: int, num_classes: int, data_name: str
) -> None:
    """Raise UserError if the network cannot train on batches of this shape, or answers with another shape than it must.

    An error of the network is reported as one of the sizes only where other sizes work. Weights, buffers and generators
    stay as they are.

    Args:
        network: the network, in training mode.
        batch_size: the number of images in a batch.
        channels: channels of the images.
        image_size: their height and width in pixels.
        num_classes: the number of outputs that the network must have.
        data_name: the data set that has these classes.

    Raises:
        Exception: what the network itself raises, whatever the sizes.
    """
    sizes = sorted(SIZES, key=lambda size: abs(size - image_size))
    others = {"data.batch_size=2": (2, image_size)} if batch_size == 1 else {}
    others |= {f"data.image_size={size}": (batch_size, size) for size in sizes}
    try:
        answer = answer_to_batch(network, batch_size, channels, image_size)
    except Exception as error:
        if works := working_size(network, channels, others):
            small = f"data.batch_size={batch_size} of {image_size}-pixel images"
            raise UserError(f"this model cannot train on {small}: {first_line(error)}; {works} works") from error
        if not isinstance(error, RuntimeError):
            raise
        batch_size = 2
        try:  # torch cannot know the shapes beforehand of a network that looks at the values of its images
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                answer = answer_to_batch(network, batch_size, channels, image_size, device="cpu")
        except Exception:  # training reports it, on its own device
            return
    if not isinstance(answer, Tensor) or answer.shape != (batch_size, num_classes):
        raise UserError(
            f"this model answers {shape_words(answer, batch_size)} to a batch of N images, but it must answer "
            f"(N, {num_classes}): data={data_name} has {num_classes} classes, and the class of the model is given "
            f"num_classes={num_classes}"
        )


def check_evaluated_shape(network: nn.Module, channels: int, image_size: int, eval_size: int) -> None:
    """Raise UserError if the network can evaluate images of a size, but not those of `eval_size`.

    It is in training mode, and stays so.
    """
    network.eval()
    try:
        answer_to_batch(network, 1, channels, eval_size)
    except Exception as error:
        if working_size(network, channels, {"data.image_size": (1, image_size)}):
            reason = f"this model cannot evaluate images of data.eval_size={eval_size}: {first_line(error)}"
            raise UserError(reason) from error
        if not isinstance(error, RuntimeError):
            raise
    finally:
        network.train()


def answer_to_batch(network: nn.Module, batch_size: int, channels: int, image_size: int, device: str = "meta") -> Any:
    """Return what the network answers to a batch of a shape; on the device `meta`, torch computes shapes only."""
    named = [*network.named_parameters(), *network.named_buffers()]
    state = {name: tensor.detach().to(device, copy=True) for name, tensor in named}
    return functional_call(network, state, torch.zeros(batch_size, channels, image_size, image_size, device=device))


def working_size(network: nn.Module, channels: int, sizes: Mapping[str, tuple[int, int]]) -> str | None:
    """Return the first of some sizes of a batch and of its images, by name, that the network can take."""
    for name, (batch_size, image_size) in sizes.items():
        with suppress(Exception):
            answer_to_batch(network, batch_size, channels, image_size)
            return name
    return None


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")


def shape_words(answer: Any, batch_size: int) -> str:
    """Return a shape as documents write it, or the type of what has none.

    Example:
        >>> shape_words(torch.zeros(64, 13), 64), shape_words(torch.zeros(640), 64), shape_words((1, 2), 64)
        ('(N, 13)', '(640,)', 'a tuple')
    """
    if not isinstance(answer, Tensor):
        return f"a {type(answer).__name__}"
    shape = [*map(str, answer.shape)]
    if shape and answer.shape[0] == batch_size:
        shape[0] = "N"
    return f"({', '.join(shape)}{',' * (len(shape) == 1)})"


def create_timm(timm_name: str, pretrained: bool, in_channels: int, num_classes: int) -> nn.Module:
    """Create a network of timm; conf/model/timm.yaml holds the options."""
    try:
        import timm
    except ImportError as error:
        raise UserError("model=timm needs the timm package: pip install -e '.[timm]'") from error
    if not timm.is_model(timm_name):
        raise UserError(f"timm has no model {timm_name!r}: see timm.list_models('*resnet*')")
    try:
        return timm.create_model(timm_name, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes)
    except (OSError, RuntimeError) as error:  # there is no network, or timm has no weights for the model or its tag
        raise UserError(f"timm cannot create {timm_name} with pretrained={pretrained}: {error}") from error


def classifier_layer(network: nn.Module) -> nn.Module:
    """Return the last linear layer, which fine-tuning trains first."""
    layer = network.fc if isinstance(network, ResNet) else network.get_classifier()  # type: ignore[operator]  # timm's
    assert isinstance(layer, nn.Module)
    return layer
