"""Whitening: initial filters of the first convolution that decorrelate the patches of the images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reslab.errors import UserError

EPSILON = 5e-3  # added to a direction's variance (of normalised pixels): less variance than this is noise


def whiten_stem(network: nn.Module, images: Tensor) -> None:
    """Set the filters of `conv1` to the principal directions of image patches, in place.

    Each filter is scaled so that its outputs have unit variance. The strongest directions come first; after all of them
    follow their negatives, because a ReLU drops one sign. Filters beyond these pairs keep their initial weights (Page,
    How to train your ResNet 8, 2019; Jordan 2024, arXiv:2404.00498, section 3.2).

    Args:
        network: a network with `conv1`, a convolution or a sequence that begins with one.
        images: normalised images (N, C, H, W) on the CPU, e.g. one batch of training images.

    Raises:
        UserError: the network does not begin with a convolution, or the images are smaller than its kernel.
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
    variances, directions = torch.linalg.eigh(patch_covariance(images, conv))  # ascending; directions in columns
    filters = (directions / (variances + EPSILON).sqrt()).T.flip(0)
    pairs = min(len(filters), conv.out_channels // 2)
    filters = filters[:pairs].view(pairs, *conv.weight.shape[1:])
    with torch.no_grad():
        conv.weight[: 2 * pairs] = torch.cat([filters, -filters])


def patch_covariance(images: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return the second moments (C * k * k, C * k * k) of the patches that `conv` sees, without the padded border."""
    covariance = torch.zeros(conv.weight[0].numel(), conv.weight[0].numel())
    for image in images:  # one at a time: a large image has many patches
        patches = F.unfold(image[None], conv.kernel_size, stride=conv.stride)[0]  # (C * k * k, places)
        covariance += patches @ patches.T / (len(images) * patches.shape[1])
    return covariance
