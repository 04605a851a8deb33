"""The values that each option of a network may take. Nothing here imports torch."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, get_args

from reslab.errors import UserError
from reslab.options import (
    FRACTION_ABOVE_0,
    FRACTION_BELOW_1,
    NAME,
    NULL,
    PATH,
    TRUE_OR_FALSE,
    between,
    check_option,
    integer,
    list_of,
    one_of,
    plain_value,
)

BlockKind = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "deep", "cifar", "halving", "none"]
Shortcut = Literal["A", "B", "C", "D", "none"]
Downsampling = Literal["stride", "pool"]
Pooling = Literal["average", "max"]

EXPANSION = {"basic": 1, "bottleneck": 4}  # a block's output channels are its stage's width times this
REDUCTION = 16  # squeeze-and-excitation: channels between its two convolutions are the block's, divided by this
BASE_WIDTH = 64  # width_per_group is the inner width of a bottleneck in a stage of this width

MAX_BLOCKS = 5000  # of a stage: the deepest published network has 10,000 layers (Xiao et al. 2018, arXiv:1806.05393)
MAX_CHANNELS = 16_384  # a 3x3 convolution between as many has 10 GB of weights
CHANNELS = integer(1, MAX_CHANNELS)

RESNET = {  # arguments of reslab.models.resnet.ResNet
    "block": one_of(*get_args(BlockKind)),
    "layers": list_of(integer(0, MAX_BLOCKS)),
    "widths": list_of(CHANNELS),
    "stem": one_of(*get_args(Stem)),
    "stem_width": CHANNELS | NULL,
    "shortcut": one_of(*get_args(Shortcut)),
    "preactivation": TRUE_OR_FALSE,
    "stem_activation": TRUE_OR_FALSE,
    "relu_before_addition": TRUE_OR_FALSE,
    "downsampling": one_of(*get_args(Downsampling)),
    "groups": CHANNELS,
    "width_per_group": CHANNELS,
    "squeeze_excitation": TRUE_OR_FALSE,
    "dropout": FRACTION_BELOW_1,
    "stochastic_depth": FRACTION_BELOW_1,
    "pooling": one_of(*get_args(Pooling)),
    "classifier_bias": TRUE_OR_FALSE,
    "logit_scale": between(1e-4, 1e4),  # beyond it, the softmax is uniform or one class, whatever the image
    "zero_init_residual": TRUE_OR_FALSE,
}
MODEL = {f"model.{name}": kind for name, kind in RESNET.items()} | {
    "model.name": NAME,
    "model.stem": one_of("auto", *get_args(Stem)),
    "model.whiten_stem": TRUE_OR_FALSE,
    "model.weights": PATH | NULL,
    "model.freeze": TRUE_OR_FALSE | integer(1),
    "model.train_norms": TRUE_OR_FALSE,
    "model.layer_decay": FRACTION_ABOVE_0,
    "model.timm_name": NAME,
    "model.pretrained": TRUE_OR_FALSE,
}


def check_resnet(arguments: Mapping[str, Any]) -> None:
    """Raise UserError unless a ResNet can be built from these arguments of its constructor."""
    for name, kind in RESNET.items():
        value = arguments[name]
        check_option(f"model.{name}", plain_value(value), kind)
    check_description(arguments)


def check_description(model: Mapping[str, Any]) -> None:
    """Raise UserError for options of a ResNet that are wrong only in combination.

    Args:
        model: the options by their names without `model.`, each of them of its own kind.
    """
    layers, widths, block = model["layers"], model["widths"], model["block"]
    groups, width_per_group = model["groups"], model["width_per_group"]
    if len(layers) != len(widths):
        raise UserError(f"model.layers has {len(layers)} stages and model.widths {len(widths)}")
    if block == "basic" and (groups, width_per_group) != (1, BASE_WIDTH):
        raise UserError("model.groups and model.width_per_group belong to model.block=bottleneck")
    if block == "bottleneck" and min(widths) * width_per_group < BASE_WIDTH:
        raise UserError(
            f"model.width_per_group={width_per_group} times the smallest of model.widths={list(widths)} "
            f"must be at least {BASE_WIDTH}"
        )
    if block == "bottleneck" and (inner := groups * max(widths) * width_per_group // BASE_WIDTH) > MAX_CHANNELS:
        raise UserError(
            f"model.groups={groups}, model.width_per_group={width_per_group} and model.widths={list(widths)} give "
            f"convolutions of {inner} channels: at most {MAX_CHANNELS} are possible"
        )
    if model["squeeze_excitation"] and min(widths) * EXPANSION[block] < REDUCTION:
        raise UserError(
            f"model.squeeze_excitation=true needs blocks of {REDUCTION} channels or more: "
            f"model.widths={list(widths)} gives {min(widths) * EXPANSION[block]}"
        )
    if model["stem"] == "deep" and (model["stem_width"] or widths[0]) < 2:
        raise UserError("model.stem=deep needs model.stem_width of at least 2")
    check_shortcut(model)
    check_activations(model)


def check_shortcut(model: Mapping[str, Any]) -> None:
    """Raise UserError for options that the shortcuts do not allow."""
    if model["shortcut"] == "none":
        if model["zero_init_residual"]:
            raise UserError(
                "model.zero_init_residual=true with model.shortcut=none would never train: each block gives 0"
            )
        if model["stochastic_depth"]:
            raise UserError("model.stochastic_depth needs shortcuts: with model.shortcut=none a skipped block gives 0")
    stages = zip(model["layers"], model["widths"], strict=True)
    channels = [width * EXPANSION[model["block"]] for blocks, width in stages if blocks]
    if model["stem"] != "none":
        channels = [model["stem_width"] or model["widths"][0], *channels]
    for before, after in pairwise(channels):
        if model["shortcut"] == "A" and after < before:
            raise UserError(
                f"model.shortcut=A adds channels of zeros, and cannot lead from {before} channels to {after}: "
                "use model.shortcut=B"
            )


def check_activations(model: Mapping[str, Any]) -> None:
    """Raise UserError for options that say where a ReLU is and contradict one another."""
    if model["stem_activation"] and (not model["preactivation"] or model["stem"] == "none"):
        raise UserError("model.stem_activation=true needs model.preactivation=true and a stem other than none")
    if model["stem_activation"] and model["downsampling"] == "pool":
        raise UserError("model.stem_activation=true needs model.downsampling=stride: no layer may precede the blocks")
    if model["relu_before_addition"] and model["preactivation"]:
        raise UserError("model.relu_before_addition=true needs model.preactivation=false")
    if model["relu_before_addition"] and model["zero_init_residual"]:
        raise UserError(
            "model.zero_init_residual=true with model.relu_before_addition=true would never train: the gradient of a "
            "ReLU at 0 is 0"
        )
