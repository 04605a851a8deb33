"""One ResNet class, which builds every variant from its description (a file in conf/model).

Sources: He et al. 2015 (arXiv:1512.03385), He et al. 2016 (1603.05027), Zagoruyko & Komodakis 2016 (1605.07146),
Xie et al. 2017 (1611.05431), Hu et al. 2018 (1709.01507), He et al. 2019 (1812.01187), Huang et al. 2016 (1603.09382),
Page 2018 (github.com/davidcpage/cifar10-fast).
Parameter names equal torchvision's, or timm's where only timm has a variant, so that published weights load unchanged.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from reslab.models.blocks import ResidualBlock, conv3x3, make_block
from reslab.models.options import BlockKind, Downsampling, Pooling, Shortcut, Stem, check_resnet


class GlobalAveragePool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        # The gradient of a mean over the last two dimensions would leave channels_last.
        return x.permute(0, 2, 3, 1).mean((1, 2))


class GlobalMaxPool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C)
        return F.max_pool2d(x, x.shape[2:]).flatten(1)


class ResNet(nn.Module):
    """A residual network that maps images (N, in_channels, H, W) to logits (N, num_classes).

    The first stage keeps the resolution of the stem and each later stage halves it. With `downsampling="pool"` every
    stage, the first included, begins with a convolution and a max-pooling instead, and its blocks keep the resolution.

    Args:
        in_channels: channels of the images.
        num_classes: number of classes.

    Every other argument is the option `model.<argument>`. conf/model/_resnet.yaml explains each of them and holds the
    values that most variants share; `RESNET` in reslab/models/options.py holds the values that each may take. The last
    arguments have defaults because the descriptions of older checkpoints do not have them.
    `model.stem=auto` is not a value of the argument: `reslab.models.build.build_network` replaces it.

    Raises:
        UserError: an argument has a value that its option may not take, or one that does not fit the others.

    Example:
        >>> import torch
        >>> resnet20 = ResNet(
        ...     in_channels=3, num_classes=10, block="basic", layers=[3, 3, 3], widths=[16, 32, 64], stem="cifar",
        ...     stem_width=None, shortcut="A", preactivation=False, downsampling="stride", groups=1,
        ...     width_per_group=64, squeeze_excitation=False, dropout=0.0, stochastic_depth=0.0,
        ...     zero_init_residual=False,
        ... )
        >>> resnet20(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        block: BlockKind,
        layers: Sequence[int],
        widths: Sequence[int],
        stem: Stem,
        stem_width: int | None,
        shortcut: Shortcut,
        preactivation: bool,
        downsampling: Downsampling,
        groups: int,
        width_per_group: int,
        squeeze_excitation: bool,
        dropout: float,
        stochastic_depth: float,
        zero_init_residual: bool,
        stem_activation: bool = False,
        relu_before_addition: bool = False,
        pooling: Pooling = "average",
        classifier_bias: bool = True,
        logit_scale: float = 1.0,
    ) -> None:
        check_resnet(locals())  # at this point they are the arguments
        super().__init__()
        has_stem_activation = stem != "none" and (stem_activation or not preactivation)
        channels = self._make_stem(stem, in_channels, stem_width or widths[0], has_stem_activation)
        block_of_kind = partial(
            make_block, kind=block, shortcut=shortcut, preactivation=preactivation,
            relu_before_addition=relu_before_addition, groups=groups, width_per_group=width_per_group,
            squeeze_excitation=squeeze_excitation, dropout=dropout,
        )  # fmt: skip
        channels = self._make_stages(
            channels, layers, widths, downsampling, stochastic_depth, block_of_kind, stem_activation
        )
        self.bn_final = nn.BatchNorm2d(channels) if preactivation else None
        self.global_pool = GlobalMaxPool() if pooling == "max" else GlobalAveragePool()
        self.logit_scale = logit_scale
        self.fc = nn.Linear(channels, num_classes, bias=classifier_bias)
        self._initialize(zero_init_residual)

    def _make_stem(self, stem: Stem, in_channels: int, width: int, has_activation: bool) -> int:
        """Set conv1, bn1 and maxpool. Return the number of channels that enter the first stage."""
        self.conv1: nn.Module
        self.maxpool: nn.Module = nn.Identity()
        if stem == "none":
            self.conv1, width = nn.Identity(), in_channels
        elif stem == "deep":  # three 3x3 convolutions replace the 7x7 (He et al. 2019, section 4.2, ResNet-C)
            half = width // 2
            first, second, third = conv3x3(in_channels, half, 2), conv3x3(half, half), conv3x3(half, width)
            norms = nn.BatchNorm2d(half), nn.BatchNorm2d(half)
            self.conv1 = nn.Sequential(first, norms[0], nn.ReLU(True), second, norms[1], nn.ReLU(True), third)
        elif stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = conv3x3(in_channels, width, stride=2 if stem == "halving" else 1)
        # Otherwise the first block of a pre-activation network brings the norm and the ReLU that would follow here.
        self.bn1 = nn.BatchNorm2d(width) if has_activation else None
        if stem in ("imagenet", "deep"):
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        return width

    def _make_stages(
        self,
        channels: int,
        layers: Sequence[int],
        widths: Sequence[int],
        downsampling: Downsampling,
        stochastic_depth: float,
        make_block: Callable[..., ResidualBlock],
        stem_activation: bool,
    ) -> int:
        """Set layer1, layer2 and so on. Return the number of channels that leave the last stage."""
        self.num_stages = len(layers)
        input_is_activated = stem_activation  # of the first block alone
        # The probability to skip a block rises linearly with its depth (Huang et al. 2016, section 3).
        drop_paths = iter([stochastic_depth * number / sum(layers) for number in range(1, sum(layers) + 1)])
        for number, (depth, width) in enumerate(zip(layers, widths, strict=True), start=1):
            stage: list[nn.Module] = []
            stride = 1 if number == 1 else 2
            if downsampling == "pool":
                stage += [conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
                channels, stride = width, 1
            for index in range(depth):
                stride = stride if index == 0 else 1
                block = make_block(channels, width, stride, next(drop_paths), input_is_activated=input_is_activated)
                stage.append(block)
                channels, input_is_activated = block.out_channels, False
            self.add_module(f"layer{number}", nn.Sequential(*stage))
        return channels

    def _initialize(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if zero_init_residual and isinstance(module, ResidualBlock):
                module.zero_residual()

    @property
    def stages(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{number}") for number in range(1, self.num_stages + 1)]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)  # (N, stem_width, H', W')
        if self.bn1 is not None:
            x = F.relu(self.bn1(x), inplace=True)
        x = self.maxpool(x)
        for stage in self.stages:
            x = stage(x)
        if self.bn_final is not None:
            x = F.relu(self.bn_final(x), inplace=True)
        logits = self.fc(self.global_pool(x))
        return logits if self.logit_scale == 1 else logits * self.logit_scale
