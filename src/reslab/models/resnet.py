"""One ResNet: every variant from one description (a file in conf/model; conf/model/_resnet.yaml explains each word).

Sources: He et al. 2015 (arXiv:1512.03385), He et al. 2016 (1603.05027), Zagoruyko & Komodakis 2016 (1605.07146),
Xie et al. 2017 (1611.05431), Hu et al. 2018 (1709.01507), He et al. 2019 (1812.01187), Huang et al. 2016 (1603.09382).
Parameter names equal torchvision's, and timm's for what only timm has, so that published weights load unchanged.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation, StochasticDepth

from reslab.errors import UserError

BlockKind = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "deep", "cifar", "halving", "none"]
Shortcut = Literal["A", "B", "C", "D", "none"]
Downsampling = Literal["stride", "pool"]
CHOICES = {"block": BlockKind, "stem": Stem, "shortcut": Shortcut, "downsampling": Downsampling}

EXPANSION = {"basic": 1, "bottleneck": 4}  # a block's output channels are its stage's width times this


def check_choices(**description: str) -> None:
    """A mistyped word would otherwise pass for another one."""
    for word, value in description.items():
        if value not in (known := get_args(CHOICES[word])):
            raise UserError(f"model.{word}={value} is none of {', '.join(known)}")


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)


def basic_convolutions(in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
    """Two 3x3 convolutions (He et al. 2015, figure 5 left)."""
    return [conv3x3(in_channels, width, stride), conv3x3(width, width)]


def bottleneck_convolutions(
    in_channels: int, width: int, stride: int, groups: int, width_per_group: int
) -> list[nn.Conv2d]:
    """1x1, 3x3, 1x1 (He et al. 2015, figure 5 right), the stride on the 3x3 as torchvision has it.

    ResNeXt and Wide ResNet differ only in the inner width, `groups * width * width_per_group / 64`.
    """
    inner = groups * int(width * width_per_group / 64)
    return [
        conv1x1(in_channels, inner),
        conv3x3(inner, inner, stride, groups),
        conv1x1(inner, width * EXPANSION["bottleneck"]),
    ]


class ZeroPadding(nn.Module):
    """Shortcut A: subsample, then pad the new channels with zeros on both sides; no parameters (2015, section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        new = out_channels - in_channels
        self.stride, self.padding = stride, (0, 0, 0, 0, new // 2, new - new // 2)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H/stride, W/stride)
        # a pooling of single pixels: slicing's gradient would leave channels_last, and cost small networks a fifth
        return F.pad(F.avg_pool2d(x, 1, self.stride), self.padding)


def make_shortcut(
    kind: Shortcut, in_channels: int, out_channels: int, stride: int, preactivation: bool
) -> nn.Module | None:
    """The way around a block: None is the identity. A pre-activated projection has no norm of its own."""
    same_shape = in_channels == out_channels and stride == 1
    if kind == "none" or (same_shape and kind != "C"):
        return None
    if kind == "A":
        return ZeroPadding(in_channels, out_channels, stride)
    layers: list[nn.Module] = []
    if kind == "D":  # average instead of dropping three of four positions (He et al. 2019, section 4.2)
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        layers.append(pool if stride > 1 else nn.Identity())
        stride = 1
    layers.append(conv1x1(in_channels, out_channels, stride))
    if not preactivation:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """F(x) + shortcut(x); the two orders of convolution, norm and ReLU are the subclasses."""

    norm_before_convolution: bool

    def __init__(
        self,
        convolutions: list[nn.Conv2d],
        shortcut: nn.Module | None,
        *,
        residual: bool,
        squeeze_excitation: bool,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.depth, self.residual = len(convolutions), residual
        for number, convolution in enumerate(convolutions, start=1):
            channels = convolution.in_channels if self.norm_before_convolution else convolution.out_channels
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
        out_channels = convolutions[-1].out_channels
        self.se = SqueezeExcitation(out_channels, out_channels // 16) if squeeze_excitation else None
        self.downsample = shortcut
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.drop_path = StochasticDepth(drop_path, "row") if drop_path else None

    def layers(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        return [(getattr(self, f"conv{n}"), getattr(self, f"bn{n}")) for n in range(1, self.depth + 1)]

    def add_shortcut(self, out: Tensor, shortcut: Tensor) -> Tensor:
        if self.se is not None:
            out = self.se(out)
        if self.drop_path is not None:
            out = self.drop_path(out)
        return out + shortcut if self.residual else out


class PostActivationBlock(ResidualBlock):
    """convolution, norm, ReLU; the last ReLU after the addition (He et al. 2015)."""

    norm_before_convolution = False

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H/stride, W/stride)
        out = x
        for number, (convolution, norm) in enumerate(self.layers(), start=1):
            if number == self.depth and self.dropout is not None:
                out = self.dropout(out)
            out = norm(convolution(out))
            if number < self.depth:
                out = F.relu(out, inplace=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.add_shortcut(out, shortcut), inplace=True)

    def start_as_identity(self) -> None:
        nn.init.zeros_(self.layers()[-1][1].weight)


class PreActivationBlock(ResidualBlock):
    """norm, ReLU, convolution; nothing after the addition (He et al. 2016, figure 4e).

    Where a projection is needed it sees the pre-activated input, as in the authors' code.
    """

    norm_before_convolution = True

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H/stride, W/stride)
        out = shortcut = x
        for number, (convolution, norm) in enumerate(self.layers(), start=1):
            out = F.relu(norm(out), inplace=True)
            if number == 1 and self.downsample is not None:
                shortcut = self.downsample(out)
            if number == self.depth and self.dropout is not None:
                out = self.dropout(out)
            out = convolution(out)
        return self.add_shortcut(out, shortcut)

    def start_as_identity(self) -> None:
        nn.init.zeros_(self.layers()[-1][0].weight)


class ResNet(nn.Module):
    """Images (N, in_channels, H, W) to logits (N, num_classes).

    The first stage keeps the stem's resolution and each later one halves it; with `downsampling="pool"` every stage,
    the first included, opens with a convolution and a max-pooling instead of a strided block.
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
    ) -> None:
        super().__init__()
        check_choices(block=block, stem=stem, shortcut=shortcut, downsampling=downsampling)
        if len(layers) != len(widths):
            raise UserError(f"model.layers has {len(layers)} stages and model.widths {len(widths)}")
        if block == "basic" and (groups, width_per_group) != (1, 64):
            raise UserError("model.groups and model.width_per_group belong to model.block=bottleneck")
        channels = self._make_stem(stem, in_channels, stem_width or widths[0], preactivation)

        def make_block(in_channels: int, width: int, stride: int, drop_path: float) -> ResidualBlock:
            if block == "basic":
                convolutions = basic_convolutions(in_channels, width, stride)
            else:
                convolutions = bottleneck_convolutions(in_channels, width, stride, groups, width_per_group)
            out_channels = width * EXPANSION[block]
            return (PreActivationBlock if preactivation else PostActivationBlock)(
                convolutions,
                make_shortcut(shortcut, in_channels, out_channels, stride, preactivation),
                residual=shortcut != "none",
                squeeze_excitation=squeeze_excitation,
                dropout=dropout,
                drop_path=drop_path,
            )

        # stochastic depth rises linearly with depth (Huang et al. 2016, section 3)
        drop_paths = iter([stochastic_depth * number / sum(layers) for number in range(1, sum(layers) + 1)])
        self.num_stages = len(layers)
        for number, (depth, width) in enumerate(zip(layers, widths, strict=True), start=1):
            stage: list[nn.Module] = []
            stride = 1 if number == 1 else 2
            if downsampling == "pool":
                stage += [conv3x3(channels, width), nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
                channels, stride = width, 1
            for index in range(depth):
                stage.append(make_block(channels, width, stride if index == 0 else 1, next(drop_paths)))
                channels = width * EXPANSION[block]
            self.add_module(f"layer{number}", nn.Sequential(*stage))

        self.bn_final = nn.BatchNorm2d(channels) if preactivation else None
        self.fc = nn.Linear(channels, num_classes)
        self._initialize(zero_init_residual)

    def _make_stem(self, stem: Stem, in_channels: int, width: int, preactivation: bool) -> int:
        """Set conv1, bn1 and maxpool; return the channels that enter the first stage."""
        self.conv1: nn.Module
        self.maxpool: nn.Module = nn.Identity()
        if stem == "none":
            self.conv1, width = nn.Identity(), in_channels
        elif stem == "deep":  # three 3x3 for one 7x7 (He et al. 2019, section 4.2, ResNet-C)
            half = width // 2
            first, second, third = conv3x3(in_channels, half, 2), conv3x3(half, half), conv3x3(half, width)
            norms = nn.BatchNorm2d(half), nn.BatchNorm2d(half)
            self.conv1 = nn.Sequential(first, norms[0], nn.ReLU(True), second, norms[1], nn.ReLU(True), third)
        elif stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = conv3x3(in_channels, width, stride=2 if stem == "halving" else 1)
        # a pre-activation network's first block brings the norm and ReLU that would follow here
        self.bn1 = None if preactivation or stem == "none" else nn.BatchNorm2d(width)
        if stem in ("imagenet", "deep"):
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        return width

    def _initialize(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if zero_init_residual and isinstance(module, PostActivationBlock | PreActivationBlock):
                module.start_as_identity()

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
        # global average pooling, (N, widths[-1] * expansion); channels last, or its gradient would leave channels_last
        x = x.permute(0, 2, 3, 1).mean((1, 2))
        return self.fc(x)
