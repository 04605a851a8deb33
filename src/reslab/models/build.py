"""A network from its composed configuration (conf/model) and the images it will see."""

import logging
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.func import functional_call

from reslab.errors import UserError
from reslab.models.resnet import ResNet
from reslab.models.weights import load_weights

log = logging.getLogger(__name__)

SMALL_IMAGE = 64  # pixels: the 7x7/2 stem and its pooling leave a 32x32 image 8x8 before the first block


def build_network(model: DictConfig, channels: int, num_classes: int, image_size: int) -> nn.Module:
    """Build, and load `model.weights` where given."""
    description: dict[str, Any] = OmegaConf.to_container(model, resolve=True)  # type: ignore[assignment]
    weights = description.pop("weights")
    description.pop("freeze")
    description.pop("whiten_stem", None)  # which needs images
    if description.get("stem") == "auto":
        description["stem"] = "cifar" if image_size <= SMALL_IMAGE else "imagenet"
        log.info("model.stem=auto: the %s stem for %d-pixel images", description["stem"], image_size)
    name = description.pop("name")
    network: nn.Module = instantiate(description, in_channels=channels, num_classes=num_classes)
    if weights is not None:
        load_weights(network, weights, name)
    return network


def check_shapes(network: nn.Module, batch_size: int, channels: int, image_size: int) -> None:
    """Raises UserError where the network leaves no pixel of such images, or one value to a norm; computes nothing."""
    state = {name: tensor.to("meta") for name, tensor in network.state_dict().items()}
    batch = torch.empty(batch_size, channels, image_size, image_size, device="meta")
    try:
        functional_call(network, state, batch)
    except (RuntimeError, ValueError) as error:
        small = f"data.batch_size={batch_size} of {image_size}-pixel images"
        raise UserError(f"this model cannot train on {small}: {str(error).splitlines()[0]}") from error


def create_timm(timm_name: str, pretrained: bool, in_channels: int, num_classes: int) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise UserError("model=timm needs the timm package: pip install -e .[timm]") from error
    if not timm.is_model(timm_name):
        raise UserError(f"timm has no model {timm_name!r}: see timm.list_models('*resnet*')")
    try:
        return timm.create_model(timm_name, pretrained=pretrained, in_chans=in_channels, num_classes=num_classes)
    except (OSError, RuntimeError) as error:  # no network; a model or a tag without weights
        raise UserError(f"timm cannot give {timm_name} with pretrained={pretrained}: {error}") from error


def classifier_layer(network: nn.Module) -> nn.Module:
    """The last linear layer, which fine-tuning trains first."""
    layer = network.fc if isinstance(network, ResNet) else network.get_classifier()  # type: ignore[operator]  # timm
    assert isinstance(layer, nn.Module)
    return layer
