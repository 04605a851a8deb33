"""Convolutions on grids of few positions equal PyTorch's, and are computed another way where that is faster."""

from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from reslab.models import convolution
from reslab.models.convolution import Conv2d, window

# of a kernel of 1, 2, 3 or 5 weights, a stride, a padding and an image of so many rows and columns
CASES = [
    (kernel, stride, padding, rows, columns)
    for kernel, stride, padding, rows, columns in product((1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (1, 2, 3, 6), (1, 4))
    if padding < kernel <= min(rows, columns) + 2 * padding
]


def with_gradients(layer: nn.Module, x: Tensor, direction: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output, and the gradients of its product with a tensor (of ones by default) by input and weights."""
    y = layer(x)
    return (y, *torch.autograd.grad(y, (x, layer.weight), torch.ones_like(y) if direction is None else direction))


def test_outputs_and_gradients_are_those_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "MIN_WEIGHTS", 0)
    monkeypatch.setattr(convolution, "MAX_POSITIONS", 100)
    assert len(CASES) > 100
    for kernel, stride, padding, rows, columns in CASES:
        layer = Conv2d(3, 4, kernel, stride, padding, bias=False).double()
        x = torch.randn(2, 3, rows, columns, dtype=torch.double, requires_grad=True)
        direction = torch.randn_like(layer.eval()(x))
        theirs = with_gradients(layer, x, direction)
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(nn.Conv2d, "forward")  # which the matrix product does not call
            ours = with_gradients(layer.train(), x, direction)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_weights_that_meet_nothing_but_padding_are_left_out() -> None:
    assert window(1, kernel=3, stride=1, padding=1) == (slice(1, 2), (0, 0), 1)  # one of three on a single pixel
    assert window(2, kernel=3, stride=2, padding=1) == (slice(1, 3), (0, 0), 1)
    assert window(2, kernel=3, stride=1, padding=1) == (slice(0, 3), (1, 1), 2)
    assert window(4, kernel=1, stride=2, padding=0) == (slice(0, 1), (0, -1), 2)  # the last pixel is not met


@pytest.mark.parametrize(
    ("layer", "size", "is_product"),
    [
        (Conv2d(512, 512, 3, padding=1, bias=False), 1, True),
        (Conv2d(512, 512, 3, padding=1, bias=False), 2, True),
        (Conv2d(512, 512, 3, padding=1, bias=False), 3, False),
        (Conv2d(512, 512, 3, padding=1, bias=False).eval(), 1, False),
        (Conv2d(256, 256, 3, padding=1, bias=False), 1, False),
        (Conv2d(1024, 1024, 3, padding=1, groups=2, bias=False), 1, False),
        (Conv2d(512, 2048, 1, bias=False), 2, True),
        (Conv2d(512, 512, 3, padding=1), 2, False),  # a bias
        (Conv2d(512, 512, 3, padding=2, dilation=2, bias=False), 2, False),
        (Conv2d(512, 512, 3, padding=1, padding_mode="reflect", bias=False), 2, False),
        (Conv2d(512, 512, 3, padding="same", bias=False), 2, False),
    ],
)
def test_a_training_step_with_many_weights_on_few_positions_is_a_product(
    layer: Conv2d, size: int, is_product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = SimpleNamespace(of_pytorch=0)
    forward = nn.Conv2d.forward

    def counted(self: nn.Conv2d, x: Tensor) -> Tensor:
        calls.of_pytorch += 1
        return forward(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    layer.to(memory_format=torch.channels_last)
    x = torch.randn(2, layer.in_channels, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    y, of_x, of_weight = with_gradients(layer, x, None)
    assert calls.of_pytorch == (not is_product)
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in (y, of_x, of_weight))
