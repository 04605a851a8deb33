"""Building a network from a composed configuration: the automatic stem, timm's models, and wrong options."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from torch import Tensor, nn

from reslab.errors import UserError
from reslab.models.build import build_network, check_evaluated_shape, check_shapes, classifier_layer

Compose = Callable[..., DictConfig]


@pytest.mark.parametrize(
    ("size", "stem", "kernel", "stride", "pooling"),
    [
        (8, "cifar", 3, 1, nn.Identity),
        (64, "cifar", 3, 1, nn.Identity),
        (65, "imagenet", 7, 2, nn.MaxPool2d),
        (224, "imagenet", 7, 2, nn.MaxPool2d),
    ],
)
def test_the_automatic_stem_depends_on_the_image_size_and_is_logged(
    composed: Compose,
    caplog: pytest.LogCaptureFixture,
    size: int,
    stem: str,
    kernel: int,
    stride: int,
    pooling: type[nn.Module],
) -> None:
    caplog.set_level(logging.INFO, logger="reslab")
    network = build_network(composed("model=resnet10").model, 3, 10, size)
    assert (network.conv1.kernel_size, network.conv1.stride) == ((kernel, kernel), (stride, stride))
    assert type(network.maxpool) is pooling
    assert caplog.messages == [f"model.stem=auto: the {stem} stem for {size}-pixel images"]


@pytest.mark.parametrize(
    ("stem", "kernels", "pixels"),
    [("imagenet", [7], 8), ("deep", [3, 3, 3], 8), ("cifar", [3], 32), ("halving", [3], 16), ("none", [], 32)],
)
def test_an_explicit_stem_is_built_without_a_log_line(
    composed: Compose, caplog: pytest.LogCaptureFixture, stem: str, kernels: list[int], pixels: int
) -> None:
    caplog.set_level(logging.INFO, logger="reslab")
    network = build_network(composed("model=resnet10", f"model.stem={stem}").model, 3, 10, 32)
    convolutions = [module for module in network.conv1.modules() if isinstance(module, nn.Conv2d)]
    assert [convolution.kernel_size for convolution in convolutions] == [(kernel, kernel) for kernel in kernels]
    assert network.maxpool(network.conv1(torch.zeros(1, 3, 32, 32))).shape[2:] == (pixels, pixels)
    assert caplog.messages == []


@pytest.mark.parametrize(("override", "channels"), [("model.stem_width=24", 24), ("model.stem_width=null", 64)])
def test_stem_width(composed: Compose, override: str, channels: int) -> None:
    network = build_network(composed("model=resnet10", override).model, 3, 10, 32)
    assert network.conv1.out_channels == network.bn1.num_features == network.layer1[0].conv1.in_channels == channels


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.block=botleneck", "model.block=botleneck must be one of basic, bottleneck"),
        ("model.stem=imagnet", "model.stem=imagnet must be one of imagenet, deep, cifar, halving, none"),
        ("model.shortcut=b", "model.shortcut=b must be one of A, B, C, D, none"),
        ("model.shortcut=null", "model.shortcut=null must be one of A, B, C, D, none"),
        ("model.downsampling=max", "model.downsampling=max must be one of stride, pool"),
        ("model.groups=32", "model.groups and model.width_per_group belong to model.block=bottleneck"),
        ("model.layers=[2,2]", "model.layers has 2 stages and model.widths 4"),
        (
            "model.layers=[2,2,2,-1]",
            "model.layers=[2, 2, 2, -1] must be a list of one or more, each an integer from 0 to 5000",
        ),
        ("model.dropout=1.0", "model.dropout=1.0 must be a number from 0 to less than 1"),
        (
            "model.squeeze_excitation=true model.widths=[8,8,8,8]",
            "model.squeeze_excitation=true needs blocks of 16 channels or more: model.widths=[8, 8, 8, 8] gives 8",
        ),
        (
            "model.stem_activation=true",
            "model.stem_activation=true needs model.preactivation=true and a stem other than none",
        ),
        (
            "model.stem_activation=true model.preactivation=true model.downsampling=pool",
            "model.stem_activation=true needs model.downsampling=stride: no layer may precede the blocks",
        ),
        (
            "model.relu_before_addition=true model.preactivation=true",
            "model.relu_before_addition=true needs model.preactivation=false",
        ),
        (
            "model.relu_before_addition=true model.zero_init_residual=true",
            "model.zero_init_residual=true with model.relu_before_addition=true would never train: "
            "the gradient of a ReLU at 0 is 0",
        ),
        (
            "model.shortcut=none model.zero_init_residual=true",
            "model.zero_init_residual=true with model.shortcut=none would never train: each block gives 0",
        ),
        (
            "model.shortcut=none model.stochastic_depth=0.1",
            "model.stochastic_depth needs shortcuts: with model.shortcut=none a skipped block gives 0",
        ),
        (
            "model.shortcut=A model.widths=[64,32,64,64]",
            "model.shortcut=A adds channels of zeros, and cannot lead from 64 channels to 32: use model.shortcut=B",
        ),
        ("model.logit_scale=0", "model.logit_scale=0 must be a number from 0.0001 to 10000"),
        ("model.pooling=mean", "model.pooling=mean must be one of average, max"),
    ],
)
def test_a_wrong_description_is_refused(composed: Compose, override: str, message: str) -> None:
    """The constructor refuses it, so that a user of the library gets the same check."""
    with pytest.raises(InstantiationException) as raised:
        build_network(composed("model=resnet10", *override.split()).model, 3, 10, 32)
    cause = raised.value.__cause__  # the error that a command prints
    assert isinstance(cause, UserError)
    assert str(cause) == message


def test_timm_builds_for_any_channels_and_classes(composed: Compose) -> None:
    torch.manual_seed(0)
    network = build_network(composed("model=timm", "model.name=resnet10t").model, 1, 7, 64)
    torch.manual_seed(0)
    expected = timm.create_model("resnet10t", in_chans=1, num_classes=7)
    images = torch.randn(2, 1, 64, 64)
    logits = network.eval()(images)
    assert logits.shape == (2, 7)
    torch.testing.assert_close(logits, expected.eval()(images), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=resnet19"], "timm has no model 'resnet19'"),
        (["model.name=resnet18.nosuch", "model.pretrained=true"], "timm cannot create resnet18.nosuch"),
        (["model.name=resnet10t", "model.pretrained=true"], "timm cannot create resnet10t"),  # there is no network
    ],
)
def test_a_name_or_weights_that_timm_does_not_have(
    composed: Compose, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
    with pytest.raises(InstantiationException) as raised:
        build_network(composed("model=timm", *overrides).model, 3, 10, 32)
    cause = raised.value.__cause__
    assert isinstance(cause, UserError)
    assert str(cause).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "layer"),
    [
        (["model=resnet10"], "fc"),
        (["model=timm", "model.name=resnet10t"], "fc"),
        (["model=timm", "model.name=resnetv2_18"], "head.fc"),
    ],
)
def test_the_classifier_layer_is_the_one_that_outputs_the_logits(
    composed: Compose, overrides: list[str], layer: str
) -> None:
    network = build_network(composed(*overrides).model, 3, 7, 32)
    assert classifier_layer(network) is network.get_submodule(layer)
    assert len(classifier_layer(network).weight) == 7


def test_weights_with_another_number_of_classes_fit_a_classifier_without_a_bias(
    composed: Compose, tmp_path: Path
) -> None:
    published = build_network(composed("model=resnet9").model, 3, 5, 32)
    with_bias = published.state_dict() | {"fc.bias": torch.zeros(5)}
    torch.save(with_bias, tmp_path / "published.pth")
    network = build_network(composed("model=resnet9", f"model.weights={tmp_path}/published.pth").model, 3, 10, 32)
    torch.testing.assert_close(network.conv1.weight, published.conv1.weight, rtol=0, atol=0)
    assert [tuple(parameter.shape) for parameter in network.fc.parameters()] == [(10, 512)]


class OwnNetwork(nn.Module):
    """A user's network, whose forward ends with a function that a test chooses."""

    def __init__(self, end: Callable[["OwnNetwork", Tensor], object], pixels: int = 1) -> None:
        super().__init__()
        self.end = end
        self.norm = nn.BatchNorm2d(1)
        self.fc = nn.Linear(pixels, 10)
        self.register_buffer("scale", torch.ones(1), persistent=False)

    def forward(self, x: Tensor) -> object:
        return self.end(self, self.norm(x) * self.scale)


def pooled(network: OwnNetwork, x: Tensor) -> Tensor:
    logits: Tensor = network.fc(x.mean((2, 3)))
    return logits


def flat(network: OwnNetwork, x: Tensor) -> Tensor:
    logits: Tensor = network.fc(x.flatten(1))
    return logits


def after_small_pooling(network: OwnNetwork, x: Tensor) -> Tensor:
    return pooled(network, nn.functional.max_pool2d(x, 9))


def refuse_small(network: OwnNetwork, x: Tensor) -> Tensor:
    if x.shape[2] < 20:
        raise ValueError
    return pooled(network, x)


@pytest.mark.parametrize(
    ("network", "batch_size", "pixels", "reason"),
    [
        (OwnNetwork(pooled), 1, 1, "Expected more than 1 value per channel when training, got input size "
         "torch.Size([1, 1, 1, 1]); data.batch_size=2 works"),
        (OwnNetwork(after_small_pooling), 4, 8, "Given input size: (1x8x8). Calculated output size: (1x0x0). "
         "Output size is too small; data.image_size=16 works"),
        (OwnNetwork(flat, pixels=28**2), 4, 32, "a and b must have same reduction dim, but got [4, 1024] X [784, 10]; "
         "data.image_size=28 works"),
        (OwnNetwork(refuse_small), 4, 8, "ValueError; data.image_size=28 works"),
    ],
)  # fmt: skip
def test_a_size_is_to_blame_only_if_another_size_works(
    network: nn.Module, batch_size: int, pixels: int, reason: str
) -> None:
    with pytest.raises(UserError) as refused:
        check_shapes(network, batch_size, 1, pixels, 10, "digits")
    assert str(refused.value) == (
        f"this model cannot train on data.batch_size={batch_size} of {pixels}-pixel images: {reason}"
    )


def unpack_wrongly(network: OwnNetwork, x: Tensor) -> Tensor:
    first, _ = x.shape  # a mistake in the user's code
    return first


def miss_an_attribute(network: OwnNetwork, x: Tensor) -> Tensor:
    return network.features(x)  # type: ignore[no-any-return, operator]


@pytest.mark.parametrize(("end", "kind"), [(unpack_wrongly, ValueError), (miss_an_attribute, AttributeError)])
def test_a_mistake_in_a_network_stays_the_error_that_it_is(
    end: Callable[[OwnNetwork, Tensor], object], kind: type[Exception]
) -> None:
    network = OwnNetwork(end)
    with pytest.raises(kind):
        check_shapes(network, 4, 1, 8, 10, "digits")
    with pytest.raises(kind):
        check_evaluated_shape(network, 1, 8, 16)
    assert network.training


def look_at_a_value(network: OwnNetwork, x: Tensor) -> Tensor:
    return pooled(network, x * (2 if x.sum().item() > 0 else 1))


def add_a_tensor_of_the_cpu(network: OwnNetwork, x: Tensor) -> Tensor:
    return pooled(network, x + torch.ones(x.shape))


@pytest.mark.parametrize("end", [look_at_a_value, add_a_tensor_of_the_cpu])
def test_a_network_whose_shapes_cannot_be_known_beforehand_may_train(
    end: Callable[[OwnNetwork, Tensor], object],
) -> None:
    network = OwnNetwork(end)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    check_shapes(network, 4, 1, 8, 10, "digits")
    check_evaluated_shape(network, 1, 8, 16)
    torch.testing.assert_close(network.state_dict(), state, rtol=0, atol=0)
    with pytest.raises(
        UserError, match=r"^this model answers \(N, 10\) to a batch of N images, but it must answer \(N, 5"
    ):
        check_shapes(network, 4, 1, 8, 5, "digits")
    assert network(torch.ones(4, 1, 8, 8)).shape == (4, 10)


@pytest.mark.parametrize(
    ("end", "answer"),
    [
        (lambda network, x: pooled(network, x)[:, :5], "(N, 5)"),
        (lambda network, x: nn.functional.pad(pooled(network, x), (0, 3)), "(N, 13)"),
        (lambda network, x: pooled(network, x)[:, :, None], "(N, 10, 1)"),
        (lambda network, x: pooled(network, x).flatten(), "(40,)"),
        (lambda network, x: pooled(network, x).mean(), "()"),
        (lambda network, x: (pooled(network, x), x), "a tuple"),
    ],
)
def test_a_network_with_another_number_of_outputs_is_refused(
    end: Callable[[OwnNetwork, Tensor], object], answer: str
) -> None:
    with pytest.raises(UserError) as refused:
        check_shapes(OwnNetwork(end), 4, 1, 8, 10, "digits")
    assert str(refused.value) == (
        f"this model answers {answer} to a batch of N images, but it must answer (N, 10): data=digits has 10 classes, "
        "and the class of the model is given num_classes=10"
    )


def test_an_image_size_of_evaluation_is_to_blame_only_if_that_of_training_works() -> None:
    network = OwnNetwork(after_small_pooling)
    with pytest.raises(UserError, match=r"^this model cannot evaluate images of data\.eval_size=8: Given input size"):
        check_evaluated_shape(network, 1, 32, 8)
    assert network.training
    check_evaluated_shape(network, 1, 32, 16)
