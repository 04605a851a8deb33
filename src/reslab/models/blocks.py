"""Residual blocks: their convolutions, their shortcuts, and the two orders of convolution, norm and ReLU.

`resnet.py` names the papers by their year.
"""

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import SqueezeExcitation, StochasticDepth

from reslab.models.convolution import Conv2d
from reslab.models.options import BASE_WIDTH, EXPANSION, REDUCTION, BlockKind, Shortcut


def conv3x3(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, 3, stride, padding=1, groups=groups, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> Conv2d:
    return Conv2d(in_channels, out_channels, 1, stride, bias=False)


def basic_convolutions(in_channels: int, width: int, stride: int) -> list[nn.Conv2d]:
    """Return two 3x3 convolutions (He et al. 2015, figure 5 left)."""
    return [conv3x3(in_channels, width, stride), conv3x3(width, width)]


def bottleneck_convolutions(
    in_channels: int, width: int, stride: int, groups: int, width_per_group: int
) -> list[nn.Conv2d]:
    """Return a 1x1, a 3x3 and a 1x1 convolution (He et al. 2015, figure 5 right).

    The 3x3 convolution has the stride, as in torchvision. ResNeXt and Wide ResNet differ only in the inner width.
    """
    inner = groups * int(width * width_per_group / BASE_WIDTH)
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
        # Pooling of single pixels subsamples and keeps the gradient in channels_last. Slicing would not, which costs
        # small networks a fifth of their speed.
        return F.pad(F.avg_pool2d(x, 1, self.stride), self.padding)


def make_shortcut(
    kind: Shortcut, in_channels: int, out_channels: int, stride: int, preactivation: bool
) -> nn.Module | None:
    """Return the path around a block; None is the identity, or no path at all for `kind="none"`.

    The projection of a pre-activated block has no norm of its own.
    """
    same_shape = in_channels == out_channels and stride == 1
    if kind == "none" or (same_shape and kind != "C"):
        return None
    if kind == "A":
        return ZeroPadding(in_channels, out_channels, stride)
    layers: list[nn.Module] = []
    if kind == "D":  # averages four positions, where a strided projection drops three (He et al. 2019, section 4.2)
        pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        layers.append(pool if stride > 1 else nn.Identity())
        stride = 1
    layers.append(conv1x1(in_channels, out_channels, stride))
    if not preactivation:
        layers.append(nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers)


class ResidualBlock(nn.Module):
    """F(x) + shortcut(x); the subclasses order convolution, norm and ReLU."""

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
        relu_before_addition: bool,
        input_is_activated: bool,
    ) -> None:
        super().__init__()
        self.num_convolutions, self.residual = len(convolutions), residual
        self.relu_before_addition = relu_before_addition
        for number, convolution in enumerate(convolutions, start=1):
            channels = convolution.in_channels if self.norm_before_convolution else convolution.out_channels
            self.add_module(f"conv{number}", convolution)
            if number > 1 or not input_is_activated:
                self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
        self.out_channels = convolutions[-1].out_channels
        squeezed = self.out_channels // REDUCTION
        self.se = SqueezeExcitation(self.out_channels, squeezed) if squeeze_excitation else None
        self.downsample = shortcut
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.drop_path = StochasticDepth(drop_path, "row") if drop_path else None

    def convolutions_and_norms(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
        """Return each convolution with its norm; None where the input has passed the norm already."""
        numbers = range(1, self.num_convolutions + 1)
        return [(getattr(self, f"conv{number}"), getattr(self, f"bn{number}", None)) for number in numbers]

    def add_shortcut(self, out: Tensor, shortcut: Tensor) -> Tensor:
        if self.se is not None:
            out = self.se(out)
        if self.drop_path is not None:
            out = self.drop_path(out)
        return out + shortcut if self.residual else out

    def zero_residual(self) -> None:
        """Initialize the block so that F(x) = 0."""
        raise NotImplementedError


class PostActivationBlock(ResidualBlock):
    """Convolution, norm, ReLU; the last ReLU follows the addition (He et al. 2015), or precedes it (Page 2018)."""

    norm_before_convolution = False

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H/stride, W/stride)
        out = x
        for number, (convolution, norm) in enumerate(self.convolutions_and_norms(), start=1):
            if number == self.num_convolutions and self.dropout is not None:
                out = self.dropout(out)
            assert norm is not None
            out = norm(convolution(out))
            if number < self.num_convolutions or self.relu_before_addition:
                out = F.relu(out, inplace=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.add_shortcut(out, shortcut)
        return out if self.relu_before_addition else F.relu(out, inplace=True)

    def zero_residual(self) -> None:
        nn.init.zeros_(getattr(self, f"bn{self.num_convolutions}").weight)


class PreActivationBlock(ResidualBlock):
    """Norm, ReLU, convolution; nothing follows the addition (He et al. 2016, figure 4e).

    A projection takes the pre-activated input, as in the authors' code. With `input_is_activated`, the first norm and
    ReLU are those of the stem, so that the block has none: both its paths begin after them.
    """

    norm_before_convolution = True

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H/stride, W/stride)
        out = shortcut = x
        for number, (convolution, norm) in enumerate(self.convolutions_and_norms(), start=1):
            if norm is not None:
                out = F.relu(norm(out), inplace=True)
            if number == 1 and self.downsample is not None:
                shortcut = self.downsample(out)
            if number == self.num_convolutions and self.dropout is not None:
                out = self.dropout(out)
            out = convolution(out)
        return self.add_shortcut(out, shortcut)

    def zero_residual(self) -> None:
        nn.init.zeros_(self.convolutions_and_norms()[-1][0].weight)


def make_block(
    in_channels: int,
    width: int,
    stride: int,
    drop_path: float,
    *,
    input_is_activated: bool = False,
    kind: BlockKind,
    shortcut: Shortcut,
    preactivation: bool,
    relu_before_addition: bool,
    groups: int,
    width_per_group: int,
    squeeze_excitation: bool,
    dropout: float,
) -> ResidualBlock:
    """Build one residual block of a stage.

    Args:
        in_channels: channels of the block's input.
        width: of the stage; the block has width * EXPANSION[kind] output channels.
        stride: 2 halves height and width.
        drop_path: probability that a sample skips the block's convolutions in training (stochastic depth).
        input_is_activated: a pre-activation block begins without a norm, because the stem ends with one.

    The other arguments are options of a ResNet, which conf/model/_resnet.yaml explains; `kind` is `model.block`.
    """
    if kind == "basic":
        convolutions = basic_convolutions(in_channels, width, stride)
    else:
        convolutions = bottleneck_convolutions(in_channels, width, stride, groups, width_per_group)
    block_class = PreActivationBlock if preactivation else PostActivationBlock
    return block_class(
        convolutions,
        make_shortcut(shortcut, in_channels, width * EXPANSION[kind], stride, preactivation),
        residual=shortcut != "none",
        squeeze_excitation=squeeze_excitation,
        dropout=dropout,
        drop_path=drop_path,
        relu_before_addition=relu_before_addition,
        input_is_activated=input_is_activated,
    )
