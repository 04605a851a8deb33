"""The network of a composed configuration (conf/model) and of the images that it will see."""

import logging

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.func import functional_call

from reslab.configuration import to_dict
from reslab.errors import UserError
from reslab.models.resnet import ResNet
from reslab.models.weights import StateDict, Weights, load_weights, read_published, stem_of, warn_of_another_function
from reslab.options import check_made

log = logging.getLogger(__name__)

SMALL_IMAGE = 64  # pixels: the 7x7/2 stem and its pooling leave 8x8 of a 32x32 image before the first block


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


def check_shapes(network: nn.Module, batch_size: int, channels: int, image_size: int) -> None:
    """Raise UserError if the images are too small for the network, or the batch for its norms. Compute nothing."""
    if error := shape_error(network, batch_size, channels, image_size):
        small = f"data.batch_size={batch_size} of {image_size}-pixel images"
        raise UserError(f"this model cannot train on {small}: {error}")


def check_evaluated_shape(network: nn.Module, channels: int, eval_size: int) -> None:
    """Raise UserError if the network cannot evaluate images of a size. It is in training mode, and stays so."""
    error = shape_error(network.eval(), 1, channels, eval_size)
    network.train()
    if error:
        raise UserError(f"this model cannot evaluate images of data.eval_size={eval_size}: {error}")


def shape_error(network: nn.Module, batch_size: int, channels: int, image_size: int) -> str | None:
    """Return why a network cannot take a batch of this shape; None if it can. Nothing is computed."""
    state = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    batch = torch.empty(batch_size, channels, image_size, image_size, device="meta")
    try:
        functional_call(network, state, batch)
    except (RuntimeError, ValueError) as error:
        return str(error).splitlines()[0]
    return None


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
