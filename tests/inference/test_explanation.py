"""Grad-CAM: its numbers against a direct computation, its place in an image, and its layer in every network."""

import sys

import pytest
import torch
from conftest import names
from torch import nn
from torch.nn import functional as F

from reslab.data.spec import ImageSpec
from reslab.errors import UserError
from reslab.inference.explanation import (
    BATCH_SIZE,
    choose_maps,
    find_maps,
    grad_cam,
    laid_over,
    normalized,
    overlay,
)
from reslab.models.build import build_network
from reslab.training.classifier import Classifier

HUGE = ("resnet1202", "preact_resnet1001", "preact_resnet164", "resnet152")
SPEC = ImageSpec([*"abcd"], 3, 32, [0.5] * 3, [0.25] * 3)


@pytest.fixture
def network(composed):
    """Build the network of a model for four classes."""
    return lambda model, size=32, *options: build_network(composed(f"model={model}", *options).model, 3, 4, size).eval()


def batch(count=3, height=32, width=32, channels=3):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, height, width), generator=generator, dtype=torch.uint8)


def with_statistics(classifier):
    """Return a classifier whose norms have the statistics of a batch, so that its maps are not all alike."""
    classifier.train()
    for _ in range(3):
        classifier.network(classifier.preprocess(batch(16)))
    return classifier.eval()


def scaled(cam, size=32):
    heat = F.interpolate(cam.clamp(min=0)[:, None], (size, size), mode="bilinear")[:, 0]
    return heat / heat.amax((1, 2), keepdim=True)


# its numbers


@pytest.mark.parametrize("preactivation", ["false", "true"])
def test_at_an_average_pooling_it_is_the_maps_weighted_by_the_linear_layer(network, preactivation):
    """Zhou et al. 2016, class activation maps, which Grad-CAM generalizes (Selvaraju et al. 2017, section 3.1)."""
    classifier = with_statistics(Classifier(network("resnet8", 32, f"model.preactivation={preactivation}"), SPEC))
    images, classes = batch(), torch.tensor([1, 3, 0])
    taken = []
    hook = classifier.network.global_pool.register_forward_pre_hook(lambda module, given: taken.append(given[0]))
    with torch.no_grad():
        classifier(images)
    hook.remove()
    cam = torch.einsum("nchw,nc->nhw", taken[0], classifier.network.fc.weight[classes])
    heat = grad_cam(classifier, images, classes)
    assert heat.dtype == torch.float32
    assert heat.shape == (3, 32, 32)
    torch.testing.assert_close(heat, scaled(cam).detach())
    assert (heat.amin(), heat.amax()) == (0, 1)


def test_at_any_layer_it_is_the_maps_weighted_by_their_mean_gradient(network):
    """Equations 1 and 2 of the paper, by two calls of torch."""
    classifier = with_statistics(Classifier(network("resnet8"), SPEC))
    images, classes = batch(), torch.tensor([2, 2, 1])
    net = classifier.network
    x = net.layer1(F.relu(net.bn1(net.conv1(classifier.preprocess(images)))))
    maps = net.layer2(x).detach().requires_grad_()
    logits = net.fc(net.global_pool(net.layer3(maps)))
    logits[torch.arange(3), classes].sum().backward()
    cam = (maps * maps.grad.mean((2, 3), keepdim=True)).sum(1)
    torch.testing.assert_close(grad_cam(classifier, images, classes, "layer2"), scaled(cam.detach()))
    assert not torch.equal(grad_cam(classifier, images, classes, "layer2"), grad_cam(classifier, images, classes))
    last = grad_cam(classifier, images, classes, "layer3")
    torch.testing.assert_close(last, grad_cam(classifier, images, classes))  # what the pooling takes


def test_flip_averaging_explains_the_mean_of_both_logits(network):
    net = network("resnet8")
    plain, averaging = Classifier(net, SPEC), with_statistics(Classifier(net, SPEC, flip_averaging=True))
    plain.eval()
    images, classes = batch(), torch.tensor([0, 1, 2])
    mirrored = grad_cam(averaging, images.flip(3), classes).flip(2)
    torch.testing.assert_close(grad_cam(averaging, images, classes), mirrored)
    assert (grad_cam(plain, images, classes) - grad_cam(plain, images.flip(3), classes).flip(2)).abs().max() > 0.1


def test_batches_and_the_state_of_the_classifier_make_no_difference(network):
    classifier = with_statistics(Classifier(network("resnet8"), SPEC))
    images, classes = batch(BATCH_SIZE + 2), torch.arange(BATCH_SIZE + 2) % 4
    alone = torch.cat([grad_cam(classifier, images[i : i + 1], classes[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(grad_cam(classifier, images, classes), alone)
    classifier.train()
    classifier.network.bn1.eval()
    classifier.network.requires_grad_(False)
    with torch.inference_mode():
        torch.testing.assert_close(grad_cam(classifier, images, classes), alone)
    assert (classifier.training, classifier.network.layer1.training, classifier.network.bn1.training) == (
        True,
        True,
        False,
    )
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in classifier.modules())
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert grad_cam(classifier, images[:0], classes[:0]).shape == (0, 32, 32)


@pytest.mark.slow
def test_a_compiled_network_has_the_same_maps(network):
    classifier = with_statistics(Classifier(network("resnet8"), SPEC))
    images, classes = batch(), torch.tensor([0, 1, 2])
    eager = grad_cam(classifier, images, classes)
    classifier.network.compile(backend="eager")
    with torch.no_grad():
        classifier(images)
    assert torch.equal(grad_cam(classifier, images, classes), eager)


def test_a_map_without_evidence_is_zero():
    maps = torch.stack([torch.full((1, 2, 2), value) for value in (0.0, -3.0, float("nan"), float("inf"), 1e-30)])
    heat = normalized(maps, 4)
    assert heat[:4].eq(0).all()
    assert heat[4].eq(1).all()


# where it is


class CornerNetwork(nn.Module):
    """Four classes, one for each corner: a feature is the brightness, and each class weighs one corner's."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 4, 8, stride=8, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.maps(x)).flatten(1)


@pytest.mark.slow
@pytest.mark.parametrize("preactivation", ["false", "true"])
def test_a_trained_network_sees_the_square_that_makes_the_class(network, preactivation):
    """The class of an image is the corner of its bright square; a network of local features cannot look elsewhere."""
    torch.manual_seed(0)
    classifier = Classifier(network("resnet8", 32, f"model.preactivation={preactivation}"), SPEC).train()
    optimizer = torch.optim.Adam(classifier.network.parameters(), 3e-3)

    def draw(count):
        classes = torch.randint(4, (count,))
        images = torch.randint(0, 100, (count, 3, 32, 32), dtype=torch.uint8)
        for image, corner in zip(images, classes.tolist(), strict=True):
            top, left = (24 * side for side in divmod(corner, 2))
            image[:, top : top + 8, left : left + 8] = 255
        return images, classes

    for _ in range(40):
        images, classes = draw(16)
        F.cross_entropy(classifier(images), classes).backward()
        optimizer.step()
        optimizer.zero_grad()
    images, classes = draw(40)
    classifier.eval()
    with torch.no_grad():
        assert (classifier(images).argmax(1) == classes).all()
    peaks = grad_cam(classifier, images, classes).flatten(1).argmax(1)
    corners = (peaks // 32 >= 16) * 2 + (peaks % 32 >= 16)
    assert (corners == classes).float().mean() >= 0.95  # 0.25 by chance
    other = grad_cam(classifier, images, (classes + 1) % 4)  # nothing speaks for another class as much
    inside = torch.stack(
        [heat[24 * (k // 2) :, 24 * (k % 2) :][:8, :8].mean() for heat, k in zip(other, classes, strict=True)]
    )
    assert inside.mean() < 0.5


def bright_pixels(fit, height, width, **options):
    """Return the map of a network that measures brightness, for an image whose middle square of 16 pixels is bright."""
    spec = ImageSpec([*"abcd"], 3, 32, [0.0] * 3, [1.0] * 3, fit=fit, **options)
    net = CornerNetwork()
    nn.init.ones_(net.maps.weight)
    images = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    images[:, :, height // 2 - 8 : height // 2 + 8, width // 2 - 8 : width // 2 + 8] = 255
    return grad_cam(Classifier(net, spec), images, torch.tensor([0]))[0]


@pytest.mark.parametrize("fit", ["crop", "pad", "squash", None])
def test_the_map_lies_over_what_the_network_saw(fit):
    heat = bright_pixels(fit, 32, 64)
    assert heat.shape == (32, 64)
    assert heat[8:24, 24:40].mean() > 0.5
    rows, columns = torch.meshgrid(torch.arange(32.0) - 15.5, torch.arange(64.0) - 31.5, indexing="ij")
    assert abs((heat * rows).sum() / heat.sum()) < 0.1  # in the middle, from both directions
    assert abs((heat * columns).sum() / heat.sum()) < 0.1
    outside = torch.cat([heat[:, :16], heat[:, 48:]], 1)
    assert outside.eq(0).all() if fit == "crop" else outside.sum() >= 0
    assert heat[8:24, 24:40].mean() > 2 * heat.mean()


def test_images_in_the_size_of_the_network_are_taken_as_they_are():
    squares = torch.rand(2, 1, 32, 32)
    assert torch.equal(laid_over(squares, (32, 32), 32, 32), squares[:, 0])
    resized = bright_pixels("crop", 64, 64, resize=40)  # of 64 pixels, the network sees the middle 51.2
    assert resized[:6].eq(0).all()
    assert resized[:, 58:].eq(0).all()
    assert resized[8:56, 8:56].gt(0).any()
    whole = bright_pixels("crop", 32, 32, resize=40)
    assert whole[0].gt(0).sum() == whole[31].gt(0).sum()


def test_a_map_that_is_laid_over_twice_as_many_pixels_is_that_map_enlarged():
    squares = torch.rand(2, 1, 8, 8)
    expected = F.interpolate(squares, (16, 16), mode="bilinear")[:, 0]
    torch.testing.assert_close(laid_over(squares, (16.0, 16.0), 16, 16), expected)
    wide = laid_over(squares, (16.0, 16.0), 16, 24)
    torch.testing.assert_close(wide[:, :, 4:20], expected)
    assert wide[:, :, :4].eq(0).all()
    assert wide[:, :, 20:].eq(0).all()
    torch.testing.assert_close(laid_over(squares, (16.0, 16.0), 16, 10), expected[:, :, 3:13])


# its layer


@pytest.mark.slow
@pytest.mark.parametrize("model", [name for name in names("model") if name not in HUGE])
def test_every_variant_has_maps_before_its_pooling(network, model):
    with torch.device("meta"):
        net, x = network(model, 64), torch.zeros(1, 3, 64, 64)
        maps = choose_maps(net, x)
        assert maps.is_input
        assert maps.name == ("global_pool.pool" if model == "timm" else "global_pool")


@pytest.mark.parametrize(
    ("model", "size", "layer"),
    [("resnet18", 8, "layer3"), ("preact_resnet18", 8, "layer3"), ("resnet50d", 28, "layer3"), ("resnet9", 8, "layer2"),
     ("six_block", 28, "layer5"), ("resnet20", 8, "global_pool"), ("timm", 32, "layer3")],
)  # fmt: skip
def test_maps_of_one_position_say_nothing(network, model, size, layer):
    with torch.device("meta"):
        assert choose_maps(network(model, size), torch.zeros(1, 3, size, size)).name == layer


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnetv2_50", "head.global_pool.pool"),
        ("efficientnet_b0", "global_pool.pool"),
        ("resnest14d", "global_pool.pool"),
    ],
)
def test_other_networks_of_timm_have_maps_before_their_pooling(name, layer):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        assert choose_maps(timm.create_model(name).eval(), torch.zeros(1, 3, 64, 64)).name == layer


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("layer9", "layer=layer9 is no layer that returns maps with more than one position for images of 32 pixels: "
         "did you mean layer"),
        ("fc", "layer=fc is no layer that returns maps with more than one position for images of 32 pixels; "
         "layer= takes global_pool, layer3, layer2, layer1, maxpool, bn1, conv1"),
    ],
)  # fmt: skip
def test_a_layer_without_maps_is_one_line(network, layer, line):
    with pytest.raises(UserError) as caught:
        find_maps(Classifier(network("resnet8"), SPEC), layer)
    assert str(caught.value).startswith(line)


def test_a_network_in_which_no_layer_can_be_chosen_is_one_line():
    spec = ImageSpec(["a", "b"], 1, 4, [0.5], [0.25])
    flat = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(UserError, match=r"^no layer of this network returns maps"):
        grad_cam(Classifier(flat, spec), batch(1, 4, 4, 1), torch.tensor([0]))
    own = Classifier(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), *flat[:1], nn.Linear(32, 2)), spec)
    with pytest.raises(
        UserError, match="has no global pooling of feature maps for images of 4 pixels: layer= takes 1, 0"
    ):
        grad_cam(own, batch(1, 4, 4, 1), torch.tensor([0]))
    assert grad_cam(own, batch(1, 4, 4, 1), torch.tensor([0]), "1").shape == (1, 4, 4)
    shared = nn.Conv2d(1, 1, 1)  # which of its two calls would be meant?
    twice = Classifier(nn.Sequential(shared, nn.ReLU(), shared, *flat), spec)
    with pytest.raises(UserError, match=r"layer=0 is no layer .* layer= takes 1$"):
        grad_cam(twice, batch(1, 4, 4, 1), torch.tensor([0]), "0")


def test_without_captum_one_line_says_what_installs_it(network, monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(UserError, match=r"^Grad-CAM needs the package captum: pip install -e '\.\[explain\]'$"):
        grad_cam(Classifier(network("resnet8"), SPEC), batch(), torch.tensor([0, 1, 2]))


# the picture


def test_an_overlay_is_the_image_where_nothing_speaks_for_the_class():
    image, heat = batch(1, 6, 9)[0], torch.zeros(6, 9)
    heat[2, 3] = 1
    coloured = overlay(image, heat)
    assert (coloured.dtype, coloured.shape) == (torch.uint8, (3, 6, 9))
    assert (coloured != image).any(0).nonzero().tolist() == [[2, 3]]
    red, green, blue = overlay(torch.zeros(1, 6, 9, dtype=torch.uint8), heat)[:, 2, 3].tolist()
    assert red > 100 > 2 * max(green, blue) / 2
    assert torch.equal(overlay(image[:1], torch.zeros(6, 9)), image[:1].expand(3, -1, -1))
    with pytest.raises(ValueError, match=r"the image has \(6, 9\) pixels and the heat \(9, 6\)"):
        overlay(image, heat.T)
