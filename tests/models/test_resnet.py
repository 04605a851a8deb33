"""Every variant in conf/model: its size, its equality with torchvision's or timm's, and each option of a variant."""

import doctest
import inspect
import itertools
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from conftest import names
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

import reslab.models.resnet
from reslab.models.blocks import PostActivationBlock, PreActivationBlock, ResidualBlock, ZeroPadding
from reslab.models.build import build_network
from reslab.models.resnet import ResNet
from reslab.run import ABSENT

Compose = Callable[..., DictConfig]
Build = Callable[..., ResNet]

HEAVY = {  # these take more than a second for a step on a batch of two
    "preact_resnet1001", "resnet152", "resnet1202", "resnext101_32x8d", "resnext101_64x4d", "resnext29_8x64d",
    "resnext29_16x64d", "wide_resnet50_2", "wide_resnet101_2",
}  # fmt: skip

IMAGENET_PARAMETERS = {  # torchvision's documentation of its weights: 1,000 classes, 3 channels
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "resnext101_64x4d": 83_455_272,
    "wide_resnet50_2": 68_883_240,
    "wide_resnet101_2": 126_886_696,
}
CIFAR_PARAMETERS = {  # 10 classes, 3 channels; shortcut A has no parameters, so a plain network has as many
    "resnet20": 269_722,
    "plain20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "plain56": 853_018,
    "resnet110": 1_727_962,
    "resnet110_stochastic_depth": 1_727_962,
    "resnet1202": 19_421_274,
    "wrn_28_10": 36_479_194,
    "wrn_16_8": 10_961_370,
    "wrn_40_4": 8_949_210,
    "resnet9": 6_573_120,  # without the ten biases of a classifier
    "preact_resnet164": 1_703_258,  # this and the next two are from the tables of osmr/imgclsmob (pytorchcv)
    "preact_resnet1001": 10_327_706,
    "resnext29_16x64d": 68_155_210,
}
PAPERS_MILLIONS = {"preact_resnet110": 1.7, "resnext29_8x64d": 34.4}  # 1603.05027 table 3, 1611.05431 table 7
TIMM_PARAMETERS = {"se_resnet50": 28_088_024, "seresnext50": 27_559_896, "resnet50d": 25_576_264}  # timm's own count
TIMM = {"se_resnet50": "seresnet50", "resnet50d": "resnet50d", "seresnext50": "seresnext50_32x4d"}


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def build(composed: Compose) -> Build:
    """The network of `model=<name> <overrides>`, by default on 32-pixel RGB images of ten classes."""

    def from_overrides(name: str, *overrides: str, channels: int = 3, classes: int = 10, size: int = 32) -> ResNet:
        network = build_network(composed(f"model={name}", *overrides).model, channels, classes, size)
        assert isinstance(network, ResNet)
        return network

    return from_overrides


def heavy_marked(variants: list[str]) -> list:
    return [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in variants]


def count_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def blocks_of(network: nn.Module) -> list[ResidualBlock]:
    return [module for module in network.modules() if isinstance(module, ResidualBlock)]


def randomise_norms(network: nn.Module) -> None:
    """Change the norms, which are the identity in evaluation as built: a misplaced one would pass unnoticed."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), (IMAGENET_PARAMETERS | TIMM_PARAMETERS | CIFAR_PARAMETERS).items())
def test_parameter_count(build: Build, name: str, count: int) -> None:
    classes, size = (10, 32) if name in CIFAR_PARAMETERS else (1000, 224)
    with torch.device("meta"):
        assert count_parameters(build(name, classes=classes, size=size)) == count


@pytest.mark.parametrize(("name", "millions"), PAPERS_MILLIONS.items())
def test_parameter_count_rounds_to_that_of_the_paper(build: Build, name: str, millions: float) -> None:
    with torch.device("meta"):
        assert round(count_parameters(build(name)) / 1e6, 1) == millions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "shapes"),
    [
        ("resnet20", 32, [(16, 32), (32, 16), (64, 8)]),
        ("resnet8_fast", 32, [(16, 16), (32, 8), (64, 4)]),
        ("resnet14_fast", 32, [(32, 16), (64, 8), (128, 4)]),
        ("resnet9", 32, [(128, 16), (256, 8), (512, 4)]),
        ("wrn_28_10", 32, [(160, 32), (320, 16), (640, 8)]),
        ("resnext29_8x64d", 32, [(256, 32), (512, 16), (1024, 8)]),
        ("resnet18", 32, [(64, 32), (128, 16), (256, 8), (512, 4)]),
        ("resnet18", 224, [(64, 56), (128, 28), (256, 14), (512, 7)]),
        ("resnet50d", 224, [(256, 56), (512, 28), (1024, 14), (2048, 7)]),
        ("resnet50d", 97, [(256, 25), (512, 13), (1024, 7), (2048, 4)]),
        ("six_block", 28, [(64, 28), (128, 14), (256, 7), (512, 4), (1024, 2), (2048, 1)]),
    ],
)
def test_channels_and_pixels_of_each_stage(build: Build, name: str, size: int, shapes: list[tuple[int, int]]) -> None:
    with torch.device("meta"):
        network = build(name, size=size)
        seen: list[Tensor] = []
        for stage in network.stages:
            stage.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        assert network(torch.empty(2, 3, size, size)).shape == (2, 10)
    assert [output.shape for output in seen] == [(2, channels, pixels, pixels) for channels, pixels in shapes]


@pytest.mark.slow
def test_six_block_is_six_basic_blocks_and_one_linear_layer(build: Build) -> None:
    network = build("six_block", channels=1, size=28)
    widths = [1, 64, 128, 256, 512, 1024, 2048]
    assert [block.conv1.stride for block in blocks_of(network)] == [(1, 1)] + [(2, 2)] * 5
    assert [block.conv2.out_channels for block in blocks_of(network)] == widths[1:]
    # per block two 3x3 convolutions, a 1x1 projection and their three norms; then the linear layer
    expected = sum(9 * i * o + 9 * o * o + i * o + 6 * o for i, o in itertools.pairwise(widths))
    assert count_parameters(network) == expected + 2048 * 10 + 10


# --- equality with torchvision and timm -------------------------------------------------------------------------------


def assert_same_function(ours: nn.Module, theirs: nn.Module) -> None:
    """Compare on the same weights, in evaluation and in training, running statistics included.

    They are equal bit for bit with images of 65 pixels, of which 3x3 positions are left. Where 64 pixels leave 2x2,
    models/convolution.py rounds otherwise in training.
    """
    randomise_norms(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.to_empty(device="cpu").load_state_dict(theirs.state_dict())
    for size, rounding in ((65, {"rtol": 0, "atol": 0}), (64, {"rtol": 1e-3, "atol": 1e-3})):
        images = torch.randn(2, 3, size, size)
        for training in (False, True):
            logits, expected = ours.train(training)(images), theirs.train(training)(images)
            assert expected.isfinite().all()
            assert expected[0].ne(expected[1]).all()
            torch.testing.assert_close(logits, expected, **rounding)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), **rounding)


@pytest.mark.parametrize("name", heavy_marked(list(IMAGENET_PARAMETERS)))
def test_equals_torchvision(build: Build, name: str) -> None:
    with torch.device("meta"):
        ours = build(name, "model.stem=imagenet")
    assert_same_function(ours, torchvision.models.get_model(name, num_classes=10))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "timm_name"), TIMM.items())
def test_equals_timm(build: Build, name: str, timm_name: str) -> None:
    with torch.device("meta"):
        ours = build(name, size=224)
    assert_same_function(ours, timm.create_model(timm_name, num_classes=10))


@pytest.mark.slow
@pytest.mark.parametrize("zero_init", [False, True])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_initial_weights_equal_those_of_torchvision(build: Build, name: str, zero_init: bool) -> None:
    ours = build(name, "model.stem=imagenet", f"model.zero_init_residual={zero_init}")
    torch.manual_seed(0)
    theirs = torchvision.models.get_model(name, num_classes=10, zero_init_residual=zero_init)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


# --- every file in conf/model, also one that a user adds --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        *((name, 3) for name in names("model")),
        *((name, 1) for name in ("resnet20", "resnet50d", "resnet8_fast", "six_block", "timm")),  # each stem
    ],
)
def test_a_gradient_reaches_every_parameter(composed: Compose, name: str, channels: int) -> None:
    model = composed(f"model={name}").model
    network = build_network(model, channels, 7, 32)
    logits = network(torch.randn(2, channels, 32, 32))
    assert logits.shape == (2, 7)
    F.cross_entropy(logits, torch.tensor([0, 6])).backward()
    gradients = {key: parameter.grad for key, parameter in network.named_parameters()}
    assert [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()] == []
    zero = {key for key, gradient in gradients.items() if not gradient.any()}
    if name == "resnet50d":  # a zero norm at the end of a block stops the gradient of the layers before it at first
        before = ("conv1", "bn1", "conv2", "bn2", "conv3")
        assert zero == {key for key in gradients if key.startswith("layer") and key.split(".")[2] in before}
    elif isinstance(network, ResNet) and not model.zero_init_residual and not model.stochastic_depth:
        assert zero == set()


def test_the_example_in_the_documentation() -> None:
    assert doctest.testmod(reslab.models.resnet) == (0, 3)


# --- the options of a description -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [8, 7])
def test_shortcut_a_subsamples_and_pads_with_zeros_on_both_sides(build: Build, pixels: int) -> None:
    shortcut = build("resnet20").layer2[0].downsample
    x = torch.randn(2, 16, pixels, pixels)
    expected = torch.zeros(2, 32, 4, 4)
    for row in range(4):
        for column in range(4):
            expected[:, 8:24, row, column] = x[:, :, 2 * row, 2 * column]
    assert torch.equal(shortcut(x), expected)


def test_shortcut_d_averages(build: Build) -> None:
    shortcut = build("resnet18", "model.shortcut=D").layer2[0].downsample.eval()
    x = torch.randn(2, 64, 8, 8)
    averages = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    expected = torch.einsum("oc,nchw->nohw", shortcut[1].weight[:, :, 0, 0], averages) / (1 + 1e-5) ** 0.5  # fresh norm
    torch.testing.assert_close(shortcut(x), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shortcut", "zero_paddings", "projections", "norms"),
    [
        ("resnet18", "A", 3, 0, 0),
        ("resnet18", "B", 0, 3, 3),
        ("resnet18", "C", 0, 8, 8),
        ("resnet18", "D", 0, 3, 3),
        ("resnet18", "none", 0, 0, 0),
        ("resnet50", "A", 4, 0, 0),  # a bottleneck widens in the first stage too
        ("resnet50", "B", 0, 4, 4),
        ("resnet50", "C", 0, 16, 16),
        ("resnet50", "D", 0, 4, 4),
        ("resnet50", "none", 0, 0, 0),
        ("preact_resnet18", "B", 0, 3, 0),  # a pre-activated projection has no norm
        ("preact_resnet18", "C", 0, 8, 0),
    ],
)
def test_shortcuts(build: Build, name: str, shortcut: str, zero_paddings: int, projections: int, norms: int) -> None:
    with torch.device("meta"):
        network = build(name, f"model.shortcut={shortcut}")
    around = [module for block in blocks_of(network) if block.downsample for module in block.downsample.modules()]
    counts = [sum(isinstance(module, kind) for module in around) for kind in (ZeroPadding, nn.Conv2d, nn.BatchNorm2d)]
    assert counts == [zero_paddings, projections, norms]


@pytest.mark.parametrize(("name", "sees_the_image"), [("plain20", False), ("resnet20", True)])
def test_only_a_network_with_shortcuts_passes_the_image_around_its_blocks(
    build: Build, name: str, sees_the_image: bool
) -> None:
    """With every block's own output zero, only a shortcut can carry the image to the logits."""
    network = build(name).eval()
    for block in blocks_of(network):
        nn.init.zeros_(block.bn2.weight)
    logits = network(torch.randn(2, 3, 32, 32))
    assert logits[0].equal(logits[1]) != sees_the_image
    assert logits[0].equal(network.fc.bias) != sees_the_image


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "resnet50", "resnet50d", "se_resnet50", "preact_resnet18", "wrn_16_8"])
def test_zero_init_makes_every_block_its_shortcut(build: Build, name: str) -> None:
    network = build(name, "model.zero_init_residual=true").eval()
    if network.bn_final is not None:  # with pre-activation a convolution is zero, whatever the norms are
        randomise_norms(network)
    for block in blocks_of(network):
        x = torch.randn(2, block.conv1.in_channels, 8, 8)
        if isinstance(block, PreActivationBlock):
            shortcut = block.downsample(F.relu(block.bn1(x))) if block.downsample else x
            assert block(x).equal(shortcut)
        else:
            assert block(x).equal(F.relu(block.downsample(x) if block.downsample else x))


DROPOUT = 0.3


def basic_2015(block: PostActivationBlock, x: Tensor, shortcut: Tensor) -> Tensor:
    out = F.relu(block.bn1(block.conv1(x)))
    out = block.bn2(block.conv2(F.dropout(out, DROPOUT)))
    return F.relu(out + shortcut)


def bottleneck_2015(block: PostActivationBlock, x: Tensor, shortcut: Tensor) -> Tensor:
    out = F.relu(block.bn1(block.conv1(x)))
    out = F.relu(block.bn2(block.conv2(out)))
    out = block.bn3(block.conv3(F.dropout(out, DROPOUT)))
    return F.relu(out + shortcut)


def basic_2016(block: PreActivationBlock, x: Tensor, shortcut: Tensor) -> Tensor:
    out = block.conv1(F.relu(block.bn1(x)))
    out = block.conv2(F.dropout(F.relu(block.bn2(out)), DROPOUT))
    return out + shortcut


def bottleneck_2016(block: PreActivationBlock, x: Tensor, shortcut: Tensor) -> Tensor:
    out = block.conv1(F.relu(block.bn1(x)))
    out = block.conv2(F.relu(block.bn2(out)))
    out = block.conv3(F.dropout(F.relu(block.bn3(out)), DROPOUT))
    return out + shortcut


@pytest.mark.parametrize(
    ("name", "preactivation", "reference"),
    [
        ("resnet18", False, basic_2015),
        ("resnet50", False, bottleneck_2015),
        ("resnet18", True, basic_2016),
        ("resnet50", True, bottleneck_2016),
    ],
)
def test_the_order_of_operations_in_a_block(
    build: Build, name: str, preactivation: bool, reference: Callable[..., Tensor]
) -> None:
    """Compare with the figures of the papers, in training, with dropout before the last convolution."""
    network = build(name, f"model.preactivation={preactivation}", f"model.dropout={DROPOUT}")
    randomise_norms(network)
    first, second = network.layer2[0], network.layer2[1]  # with a projection, with the identity
    x = torch.randn(4, first.conv1.in_channels, 8, 8)
    projected = first.downsample(F.relu(first.bn1(x)) if preactivation else x)
    y = torch.randn_like(projected)
    for block, argument, shortcut in ((first, x, projected), (second, y, y)):
        torch.manual_seed(1)
        expected = reference(block, argument, shortcut)
        torch.manual_seed(1)
        torch.testing.assert_close(block(argument.clone()), expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "wrn_28_10"])
def test_a_network_is_its_stem_its_stages_and_its_head(build: Build, name: str) -> None:
    """The norm and the ReLU follow the stem in 2015, and precede the last pooling in 2016."""
    network = build(name).eval()
    randomise_norms(network)
    x = images = torch.randn(2, 3, 32, 32)
    x = network.conv1(x)
    if name == "resnet20":
        x = F.relu(network.bn1(x))
    x = network.layer3(network.layer2(network.layer1(x)))
    if name == "wrn_28_10":
        x = F.relu(network.bn_final(x))
    torch.testing.assert_close(network(images), F.linear(x.mean((2, 3)), network.fc.weight, network.fc.bias))


def norm_of(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Apply a batch norm in evaluation."""
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts)


def page_2018(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute the network of cifar10-fast, dawn_utils.py: conv_bn is convolution, norm, ReLU and perhaps pooling."""

    def conv_bn(conv: str, bn: str, x: Tensor) -> Tensor:
        return F.relu(norm_of(state, bn, F.conv2d(x, state[f"{conv}.weight"], padding=1)))

    x = conv_bn("conv1", "bn1", x)
    for layer in ("layer1", "layer2", "layer3"):
        x = F.max_pool2d(conv_bn(f"{layer}.0", f"{layer}.1", x), 2)
        if layer != "layer2":  # residual: the sum of the input and the second conv_bn, with its ReLU
            res1 = conv_bn(f"{layer}.4.conv1", f"{layer}.4.bn1", x)
            x = x + conv_bn(f"{layer}.4.conv2", f"{layer}.4.bn2", res1)
    return F.max_pool2d(x, 4).flatten(1) @ state["fc.weight"].T * 0.125


def test_resnet9_is_the_network_of_page(build: Build) -> None:
    network = build("resnet9").eval()
    randomise_norms(network)
    images = torch.randn(2, 3, 32, 32)
    expected = page_2018(network.state_dict(), images)
    assert expected[0].ne(expected[1]).all()
    torch.testing.assert_close(network(images), expected)
    assert [(name, tuple(parameter.shape)) for name, parameter in network.fc.named_parameters()] == [
        ("weight", (10, 512))
    ]


FORMER_RESNET9 = {  # the description that the configurations of older checkpoints hold
    "_target_": "reslab.models.resnet.ResNet", "name": "resnet9", "block": "basic", "layers": [1, 0, 1],
    "widths": [128, 256, 512], "stem": "cifar", "stem_width": 64, "shortcut": "B", "preactivation": False,
    "downsampling": "pool", "groups": 1, "width_per_group": 64, "squeeze_excitation": False, "dropout": 0.0,
    "stochastic_depth": 0.0, "zero_init_residual": False, "weights": None, "freeze": False,
}  # fmt: skip


def test_the_description_of_an_older_checkpoint_gives_its_structure() -> None:
    """ReLU after the addition, average pooling, a classifier with a bias, logits as they are."""
    network = build_network(OmegaConf.create(FORMER_RESNET9), 3, 10, 32).eval()
    assert count_parameters(network) == 6_573_130
    block, x = network.layer1[4], torch.randn(2, 128, 4, 4)
    branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), F.relu(branch + x))
    images = torch.randn(2, 3, 32, 32)
    x = network.layer3(network.layer2(network.layer1(F.relu(network.bn1(network.conv1(images))))))
    torch.testing.assert_close(network(images), F.linear(x.mean((2, 3)), network.fc.weight, network.fc.bias))


def test_what_an_older_run_lacks_is_what_the_constructor_defaults_to() -> None:
    parameters = inspect.signature(ResNet).parameters.values()
    defaults = {f"model.{each.name}": each.default for each in parameters if each.default is not each.empty}
    assert defaults == {name: ABSENT[name] for name in defaults}
    assert len(defaults) == 5


# the first activation of a pre-activation network


def preactivation_2016(state: dict[str, Tensor], x: Tensor, stem_stride: int, layers: list[int]) -> Tensor:
    """Compute a network of basic blocks as in He et al. 2016, appendix, and in fb.resnet.torch, models/preresnet.lua.

    The norm and the ReLU after conv1 precede both paths of the first block, and the max-pooling of the ImageNet stem.
    """
    padding = state["conv1.weight"].shape[-1] // 2
    x = F.relu(norm_of(state, "bn1", F.conv2d(x, state["conv1.weight"], stride=stem_stride, padding=padding)))
    if stem_stride == 2:
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    for stage, depth in enumerate(layers, start=1):
        for index in range(depth):
            name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            activated = x if (stage, index) == (1, 0) else F.relu(norm_of(state, f"{name}.bn1", x))
            out = F.conv2d(activated, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            out = F.conv2d(F.relu(norm_of(state, f"{name}.bn2", out)), state[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(activated, state[f"{name}.downsample.0.weight"], stride=stride)
            elif stride == 2:  # option A
                half = x.shape[1] // 2
                x = F.pad(activated[:, :, ::2, ::2], (0, 0, 0, 0, half, half))
            x = out + x
    x = F.relu(norm_of(state, "bn_final", x)).mean((2, 3))
    return F.linear(x, state["fc.weight"], state["fc.bias"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "stem_stride", "layers", "count"),
    [
        ("preact_resnet110", 32, 1, [18, 18, 18], 1_727_962),
        ("preact_resnet18", 32, 1, [2, 2, 2, 2], 11_172_170),
        ("preact_resnet18", 65, 2, [2, 2, 2, 2], 11_179_850),  # 64 x 3 x (49 - 9) more in conv1
    ],
)
def test_the_stem_activation_is_that_of_the_paper(
    build: Build, name: str, size: int, stem_stride: int, layers: list[int], count: int
) -> None:
    network = build(name, "model.stem_activation=true", size=size).eval()
    before = build(name, size=size)
    assert count_parameters(network) == count_parameters(before) == count
    moved = {key.replace("layer1.0.bn1.", "bn1.") for key in before.state_dict()}
    assert network.state_dict().keys() == moved
    randomise_norms(network)
    images = torch.randn(2, 3, size, size)
    expected = preactivation_2016(network.state_dict(), images, stem_stride, layers)
    assert expected[0].ne(expected[1]).all()
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)


def test_without_it_the_first_shortcut_begins_before_the_norm(build: Build) -> None:
    network = build("preact_resnet18").eval()
    randomise_norms(network)
    x = torch.randn(2, 64, 8, 8)
    block = network.layer1[0]
    out = block.conv2(F.relu(block.bn2(block.conv1(F.relu(block.bn1(x))))))
    assert network.bn1 is None
    torch.testing.assert_close(block(x.clone()), out + x)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["preact_resnet164", "wrn_16_8"])
def test_a_first_block_with_a_projection_has_a_common_activation_in_either_order(build: Build, name: str) -> None:
    """These networks are the paper's without the option: a projection takes the activated input."""
    first, second = build(name).eval(), build(name, "model.stem_activation=true").eval()
    randomise_norms(first)
    second.load_state_dict({key.replace("layer1.0.bn1.", "bn1."): value for key, value in first.state_dict().items()})
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(second(images), first(images), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "count", "probability"), [("wrn_28_10", 12, 0.3), ("wrn_16_8", 0, 0.0)])
def test_every_block_has_dropout(build: Build, name: str, count: int, probability: float) -> None:
    with torch.device("meta"):
        network = build(name)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [probability] * count


def test_stochastic_depth_rises_linearly(build: Build) -> None:
    network = build("resnet110_stochastic_depth")
    dropped = [module for module in network.modules() if isinstance(module, StochasticDepth)]
    assert [module.p for module in dropped] == pytest.approx([0.5 * block / 54 for block in range(1, 55)])


def test_stochastic_depth_skips_the_block_sample_by_sample(build: Build) -> None:
    block = build("resnet8", "model.stochastic_depth=0.6").layer1[0].eval()  # the first of three: 0.2
    x = torch.randn(1000, 16, 4, 4)
    branch = block.bn2(block.conv2(F.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(block(x), F.relu(branch + x))  # in evaluation no block is skipped
    block.drop_path.train()
    out = block(x)
    skipped = torch.isclose(out, F.relu(x)).all((1, 2, 3))
    kept = torch.isclose(out, F.relu(branch / 0.8 + x), atol=1e-6).all((1, 2, 3))
    assert (skipped ^ kept).all()
    assert skipped.float().mean().item() == pytest.approx(0.2, abs=0.04)  # three standard deviations


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", ["A", "B", "D"])
@pytest.mark.parametrize("name", ["resnet20", "preact_resnet18", "resnet9"])
def test_gradients_stay_channels_last(build: Build, name: str, shortcut: str) -> None:
    """Operations on a gradient in another layout than its activation run at a fraction of the speed."""
    network = build(name, f"model.shortcut={shortcut}").to(memory_format=torch.channels_last)
    layouts: list[bool] = []

    def watch(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        output.register_hook(lambda grad: layouts.append(grad.is_contiguous(memory_format=torch.channels_last)))

    blocks = blocks_of(network)
    for block in blocks:
        block.register_forward_hook(watch)
    network(torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert layouts == [True] * len(blocks)
