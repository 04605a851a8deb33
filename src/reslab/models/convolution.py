"""A convolution that a CPU trains faster where a grid has few positions."""

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

# Chosen from the times of single layers: with fewer weights or more positions, the gain is small or none.
MIN_WEIGHTS = 2**20
MAX_POSITIONS = 4


class Window(NamedTuple):
    """What a kernel meets along one axis of an image.

    Attributes:
        weights: those that meet a pixel at some position; the others meet nothing but padding.
        padding: the zeros to add before and after the pixels, or, if negative, the pixels that no weight meets.
        positions: their number, the length of the output.
    """

    weights: slice
    padding: tuple[int, int]
    positions: int


def window(length: int, kernel: int, stride: int, padding: int) -> Window:
    """Return what a kernel meets along an axis with `length` pixels."""
    positions = (length + 2 * padding - kernel) // stride + 1
    last = (positions - 1) * stride - padding  # where the kernel begins at its last position
    first_weight = max(0, -last)
    end = min(kernel, length + padding)
    return Window(slice(first_weight, end), (padding - first_weight, last + end - length), positions)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, which trains on a CPU as one matrix product where many weights meet few positions.

    PyTorch reads all the weights again for each position, and multiplies those too that meet nothing but padding, such
    as eight of the nine of a 3x3 kernel on a single position. Outputs and gradients differ from it by rounding alone.
    Groups, a bias, dilation and other padding than zeros are left to PyTorch.
    """

    @property
    def can_be_product(self) -> bool:
        is_plain = self.groups == 1 and self.bias is None and self.dilation == (1, 1) and self.padding_mode == "zeros"
        return is_plain and self.weight.numel() >= MIN_WEIGHTS and not isinstance(self.padding, str)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C', H', W')
        if not (self.training and x.device.type == "cpu" and x.ndim == 4 and self.can_be_product):
            return super().forward(x)
        rows, columns = map(window, x.shape[2:], self.kernel_size, self.stride, map(int, self.padding))
        if rows.positions * columns.positions > MAX_POSITIONS:
            return super().forward(x)
        x, weight = x.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)  # the order in memory of channels_last
        weight = weight[:, rows.weights, columns.weights]
        x = F.pad(x, (0, 0, *columns.padding, *rows.padding))
        patches = x.unfold(1, weight.shape[1], self.stride[0]).unfold(2, weight.shape[2], self.stride[1])
        patches = patches.permute(0, 1, 2, 4, 5, 3)  # (N, H', W', rows, columns, C)
        return F.linear(patches.flatten(3), weight.flatten(1)).permute(0, 3, 1, 2)
