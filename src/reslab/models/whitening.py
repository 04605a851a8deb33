"""A first convolution that begins by whitening the patches that it sees."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reslab.errors import UserError

EPSILON = 5e-3  # of a normalised pixel's variance: directions of less are noise


def whiten_stem(network: nn.Module, images: Tensor) -> None:
    """Set the filters of `conv1` to the principal directions of the patches of normalised images (N, C, H, W).

    Each is scaled to answer with unit variance, the strongest come first, and each is followed, after all of them, by
    its negative for the ReLU; filters beyond these pairs stay as they are (Page, How to train your ResNet 8, 2019;
    Jordan 2024, arXiv:2404.00498, section 3.2).
    """
    conv = getattr(network, "conv1", None)
    if isinstance(conv, nn.Sequential):  # the deep stem
        conv = conv[0]
    if not isinstance(conv, nn.Conv2d):
        raise UserError("model.whiten_stem=true needs a stem that begins with a convolution")
    if min(images.shape[2:]) < conv.kernel_size[0]:
        raise UserError(
            f"model.whiten_stem=true needs images of at least {conv.kernel_size[0]} pixels: data.image_size"
        )
    covariance = torch.zeros(conv.weight[0].numel(), conv.weight[0].numel())
    for image in images:  # one at a time: a large image has many patches
        patches = F.unfold(image[None], conv.kernel_size, stride=conv.stride)[0]  # (C * k * k, places)
        covariance += patches @ patches.T / (len(images) * patches.shape[1])
    variances, directions = torch.linalg.eigh(covariance)  # ascending; directions in columns
    filters = (directions / (variances + EPSILON).sqrt()).T.flip(0)
    pairs = min(len(filters), conv.out_channels // 2)
    filters = filters[:pairs].view(pairs, *conv.weight.shape[1:])
    with torch.no_grad():
        conv.weight[: 2 * pairs] = torch.cat([filters, -filters])
