"""Networks of every kind, exported: what they hold that a conversion may not know."""

import pytest
import torch
from torch import nn

from reslab.data.spec import ImageSpec
from reslab.inference.export.export import compare, reference
from reslab.inference.export.formats import FORMATS, quiet_conversion
from reslab.inference.export.images import noise
from reslab.inference.export.network import ExportedNetwork
from reslab.models.build import build_network
from reslab.training.classifier import Classifier

CLASSES = [str(number) for number in range(7)]


def agreement(classifier, kind, tmp_path):
    """Write a network, read it back, and compare both on random pixels."""
    network = ExportedNetwork(classifier)
    with quiet_conversion(), torch.no_grad():
        FORMATS[kind].write(network, tmp_path / "a", {"classes": "", "preprocessing": "", "provenance": ""})
        loaded = FORMATS[kind].load(tmp_path / "a")
    return compare(reference(classifier, 1.0), loaded.answer, noise(network.image_shape))


def classifier_of(network, channels=3, stored=3, flip_averaging=False, **sizes):
    """A classifier whose norms know the statistics of random pixels, so that its logits are of the usual size."""
    spec = ImageSpec(CLASSES, channels, 32, [0.5] * stored, [0.25] * stored, **sizes)
    classifier = Classifier(network, spec, flip_averaging=flip_averaging)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    network.train()
    size = spec.size_in_evaluation
    with torch.no_grad():
        network(torch.randn(16, channels, size, size, generator=torch.Generator().manual_seed(1)))
    return classifier.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    ["plain20 model.layers=[1,1,1]", "preact_resnet18 model.layers=[1,1,1,1]", "resnet8 model.stochastic_depth=0.2",
     "resnet9", "resnet8_fast", "six_block", "resnet50d model.layers=[1,1,1,1]", "se_resnet50 model.layers=[1,1,1,1]",
     "resnext50_32x4d model.layers=[1,1,1,1]", "wrn_16_8 model.layers=[1,1,1] model.dropout=0.3", "timm"],
)  # fmt: skip
def test_every_kind_of_network(composed, tmp_path, options):
    config = composed(*f"model={options}".split())
    torch.manual_seed(0)
    comparison = agreement(classifier_of(build_network(config.model, 3, 7, 32)), "onnx", tmp_path)
    assert (comparison.images, comparison.changed, comparison.difference <= 1e-5) == (64, 0, True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {"channels": 1, "stored": 3},  # RGB becomes grey in the file
        {"channels": 3, "stored": 1},
        {"channels": 1, "stored": 1, "flip_averaging": True},
        {"eval_size": 40, "resize": 48, "interpolation": "bicubic"},
    ],
    ids=str,
)
def test_every_kind_of_image(composed, tmp_path, kind, options):
    config = composed("model=resnet8")
    torch.manual_seed(0)
    network = build_network(config.model, options.get("channels", 3), 7, 32)
    classifier = classifier_of(network, **options)
    size = options.get("eval_size", 32)
    assert ExportedNetwork(classifier).image_shape == (size, size, options.get("stored", 3))
    comparison = agreement(classifier, kind, tmp_path)
    assert (comparison.images, comparison.changed, comparison.difference <= 1e-5) == (64, 0, True)


class OwnNetwork(nn.Module):
    """A network of a user's own, whose shapes depend on the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 7)

    def forward(self, x):
        return self.linear(x.reshape(x.shape[0], -1))


@pytest.mark.parametrize("kind", ["torch_export", "torchscript"])
def test_a_network_of_a_users_own(tmp_path, kind):
    torch.manual_seed(0)
    assert agreement(classifier_of(OwnNetwork()), kind, tmp_path).agrees


def test_torchscript_that_has_kept_a_size_of_the_example_is_found(tmp_path):
    class Kept(OwnNetwork):
        def forward(self, x):
            return super().forward(x) * int(x.shape[0])  # a constant, once it is traced

    torch.manual_seed(0)
    comparison = agreement(classifier_of(Kept()), "torchscript", tmp_path)
    assert not comparison.agrees
