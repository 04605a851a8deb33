import pytest
import torch
from conftest import names
from hydra import compose, initialize_config_dir
from torch import fx, nn

from reslab.configuration import CONF
from reslab.models.blocks import ResidualBlock
from reslab.models.build import build_network
from reslab.models.summary import brief, drawing, folded, layers, markdown, rows, table
from reslab.training import build

SIX_BLOCKS = ["64x28x28", "128x14x14", "256x7x7", "512x4x4", "1024x2x2", "2048x1x1"]  # the tutorial's


def network(model, channels=3, image_size=32, **options):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"model={model}", *(f"model.{name}={value}" for name, value in options.items())]
        return build_network(compose("config", overrides=overrides).model, channels, 10, image_size)


def rows_by_name(root):
    return {row.name: row for row in rows(root)}


def leaves(found):
    return [row for row in found if not any(other.name.startswith(f"{row.name}.") for other in found)]


def test_flops_of_resnet20():
    root = layers(network("resnet20"), 3, 32)
    found = rows_by_name(root)
    assert found["conv1"] == ("conv1", "Conv2d 3x3", "16x32x32", 3 * 16 * 9, 2 * 16 * 3 * 9 * 32 * 32, 1)
    assert found["layer2.0.conv1"][1:5] == ("Conv2d 3x3/2", "32x16x16", 16 * 32 * 9, 2 * 32 * 16 * 9 * 16 * 16)
    assert found["layer3.1-2.conv2"][2:] == ("64x8x8", 64 * 64 * 9, 2 * 64 * 64 * 9 * 8 * 8, 2)
    assert found["fc"][2:5] == ("10", 64 * 10 + 10, 2 * 64 * 10)
    assert root.flops == 81_102_080  # the 40.55 million multiplications and additions of a ResNet-20


@pytest.mark.parametrize(
    ("model", "options"), [("resnet8", {"squeeze_excitation": True}), ("resnext29_8x64d", {}), ("resnet110", {})]
)
def test_the_rows_sum_to_the_network(model, options):
    made = network(model, **options)
    root = layers(made, 3, 32)
    found = rows(root)
    assert sum(row.times * row.parameters for row in leaves(found)) == root.parameters
    assert root.parameters == sum(parameter.numel() for parameter in made.parameters())
    assert sum(row.times * row.flops for row in leaves(found)) == root.flops


def test_the_layers_are_in_the_order_of_the_data():
    """The max-pooling is the first module that the constructor makes."""
    found = [row.name for row in rows(layers(network("resnet18", image_size=224), 3, 224)) if "." not in row.name]
    assert found == ["conv1", "bn1", "maxpool", "layer1", "layer2", "layer3", "layer4", "global_pool", "fc"]


@pytest.mark.slow
def test_the_six_blocks_have_the_shapes_of_the_tutorial():
    root = layers(network("six_block", channels=1, image_size=28), 1, 28)
    assert [row.output for row in rows(root) if row.name.startswith("layer") and "." not in row.name] == SIX_BLOCKS
    drawn = drawing(root, 1, 28)
    assert [line.split()[-1] for line in drawn if line.startswith("layer")] == SIX_BLOCKS


def test_the_network_stays_as_it_is():
    made = network("resnet8")
    before = {name: value.clone() for name, value in made.state_dict().items()}
    layers(made, 3, 32)
    assert made.training
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())
    assert not any(module._forward_hooks for module in made.modules())


def test_equal_blocks_are_folded_and_different_ones_are_not():
    root = layers(network("resnet20"), 3, 32)
    stages = [layer for layer in root.children if layer.name.startswith("layer")]
    assert [[(block.name, block.count) for block in folded(stage.children)] for stage in stages] == [
        [("0-2", 3)], [("0", 1), ("1-2", 2)], [("0", 1), ("1-2", 2)],
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("model", ["resnet18", "resnet50", "resnext50_32x4d", "six_block"])
def test_table_and_drawing_fit_the_terminal(model, width):
    root = layers(network(model, image_size=224), 3, 224)
    lines = [*table(root, width), *drawing(root, 3, 224)]
    assert max(map(len, lines)) <= width
    assert ("Conv2d 3x3" in "\n".join(lines)) == (width > 60)  # the types need room
    assert ("A wider terminal shows the types of the layers too." in lines) == (width == 60)


@pytest.mark.slow
def test_a_drawing_says_that_blocks_are_skipped_in_training():
    line = "in training, blocks are skipped at random: stochastic depth"
    for model, is_said in (("resnet110_stochastic_depth", True), ("resnet110", False)):
        assert (line in drawing(layers(network(model), 3, 32), 3, 32)) == is_said


def test_a_row_of_the_table():
    lines = table(layers(network("resnet20"), 3, 32), 80)
    assert lines[0] == "layer                type                 output     parameters    FLOPs"
    assert lines[1] == "conv1                Conv2d 3x3           16x32x32          432    885 k"
    assert lines[-2:] == [
        "Rows such as layer1.0-2 give the numbers of each layer.",
        "FLOPs are for one image; a multiply-add counts as two.",
    ]


def test_tensorboard_shows_the_same_rows():
    root = layers(network("resnet20"), 3, 32)
    lines = [line.strip("| ").split(" | ") for line in markdown(root).splitlines()[2:] if line.startswith("|")]
    assert [line[0] for line in lines] == [*(row.name for row in rows(root)), "total"]
    assert lines[-1] == ["total", "ResNet", "10", f"{root.parameters:,}", "81,102,080"]


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (
            "resnet20",
            {},
            ["├─┬─ 3x3/2, 32 ── 3x3, 32 ─┬─", "│ └───── zero padding ─────┘",
             "├─┬─ 3x3, 32 ── 3x3, 32 ─┬─ x 2", "│ └────── identity ──────┘"],
        ),
        ("plain20", {}, ["├─── 3x3/2, 32 ── 3x3, 32 ───", "├─── 3x3, 32 ── 3x3, 32 ─── x 2"]),
        (
            "resnet8",
            {"block": "bottleneck", "shortcut": "D", "squeeze_excitation": True},
            ["├─┬─ 1x1, 32 ── 3x3/2, 32 ── 1x1, 128 ── SE ─┬─", "│ └───── 2x2/2 average, 1x1 projection ──────┘"],
        ),
    ],
)  # fmt: skip
def test_the_drawing_of_a_stage(model, options, expected):
    lines = drawing(layers(network(model, **options), 3, 32), 3, 32)
    first = lines.index("layer2  32x16x16" if model != "resnet8" else "layer2  128x16x16") + 1
    assert lines[first : first + len(expected)] == expected


VARIANTS = [
    ("resnet18", {}),
    ("preact_resnet18", {}),
    ("preact_resnet18", {"stem_activation": True}),
    ("preact_resnet164", {"squeeze_excitation": True}),
    ("resnet9", {}),
    ("plain20", {}),
    ("resnet50d", {}),
    ("se_resnet50", {}),
    ("resnext50_32x4d", {}),
    ("wrn_28_10", {}),
    ("resnet8", {"relu_before_addition": True, "squeeze_excitation": True, "stochastic_depth": 0.5}),
    ("resnet8", {"shortcut": "C"}),
    ("preact_resnet18", {"shortcut": "C"}),
]


class WholeModules(fx.Tracer):
    """Traces a block as it is written, with each of its modules as one node."""

    def is_leaf_module(self, module, name):
        return True


def traced_steps(block):
    """Return the steps of a block, and whether a projection takes anything but the block's input."""
    words = {"conv": "conv", "bn": "BN", "se": "SE", "relu": "ReLU", "add": "+"}
    graph = WholeModules().trace(block.eval())
    nodes = [node for node in graph.nodes if node.op in ("call_module", "call_function")]
    projections = [node for node in nodes if node.name == "downsample"]
    kinds = [node.name.rstrip("_0123456789") for node in nodes]
    return " ".join(words[kind] for kind in kinds if kind in words), any(
        node.args[0].op != "placeholder" for node in projections
    )


@pytest.mark.slow
@pytest.mark.parametrize(("model", "options"), VARIANTS)
def test_the_legend_states_the_order_that_the_blocks_have(model, options):
    made = network(model, **options)
    drawn = drawing(layers(made, 3, 32), 3, 32)
    found = [traced_steps(module) for module in made.modules() if isinstance(module, ResidualBlock)]
    orders = list(dict.fromkeys(order for order, _ in found))
    stated = [line.partition(": ") for line in drawn[drawn.index("") :]]
    assert [order for what, _, order in stated if order and what.endswith(("block", "blocks"))] == orders
    later = any("a projection follows the first BN ReLU of its block" in line for line in drawn)
    assert later == any(moved for _, moved in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("resnet18", {}, ["conv BN ReLU blocks", "conv BN ReLU conv BN + ReLU"]),
        ("preact_resnet18", {}, ["conv blocks BN ReLU", "BN ReLU conv BN ReLU conv +"]),
        (
            "preact_resnet18",
            {"stem_activation": True},
            ["conv BN ReLU blocks BN ReLU", "conv BN ReLU conv +", "BN ReLU conv BN ReLU conv +"],
        ),
        ("plain20", {}, ["conv BN ReLU blocks", "conv BN ReLU conv BN ReLU"]),
        (
            "resnet9",
            {},
            ["conv BN ReLU conv BN ReLU blocks conv BN ReLU conv BN ReLU blocks", "conv BN ReLU conv BN ReLU +"],
        ),
        (
            "resnet50d",
            {},
            ["conv BN ReLU conv BN ReLU conv BN ReLU blocks", "conv BN ReLU conv BN ReLU conv BN + ReLU"],
        ),
        ("six_block", {}, ["conv BN ReLU conv BN + ReLU"]),
    ],
)
def test_the_legend_of_a_variant(model, options, expected):
    drawn = drawing(layers(network(model, **options), 3, 32), 3, 32)
    stated = [line.partition(": ") for line in drawn[drawn.index("") :]]
    assert [order for what, _, order in stated if order and what.endswith(("network", "block", "blocks"))] == expected
    assert "BN: batch norm" in drawn
    assert ("+: both paths are added" in drawn) == (model != "plain20")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["resnet9", "resnet18", "preact_resnet18", "resnet50d", "resnext50_32x4d", "six_block"]
)
def test_the_legend_explains_a_convolution_that_is_drawn(model):
    drawn = drawing(layers(network(model), 3, 32), 3, 32)
    example, _, meaning = drawn[drawn.index("") + 1].partition(": ")
    assert any(f" {example} " in line for line in drawn[: drawn.index("")])
    assert ("stride 2" in meaning) == ("/2" in example) == (model != "resnet9")


@pytest.mark.parametrize("pooling", ["average", "max"])
def test_the_global_pooling_is_in_the_table_and_in_the_drawing(pooling):
    root = layers(network("resnet20", pooling=pooling), 3, 32)
    assert rows_by_name(root)["global_pool"] == (
        "global_pool", f"Global{pooling.title()}Pool", "64", 0, 0, 1
    )  # fmt: skip
    drawn = drawing(root, 3, 32)
    first = drawn.index(f"├─ global {pooling} pooling   64")
    assert drawn[first + 1] == "├─ linear   10"


@pytest.mark.slow
def test_the_deepest_network_fits_a_screen():
    root = layers(network("resnet1202"), 3, 32)
    assert len(table(root, 80)) < 50
    assert "├─┬─ 3x3, 64 ── 3x3, 64 ─┬─ x 199" in drawing(root, 3, 32)


class Own(nn.Module):
    """A network without residual blocks, one of whose modules is called twice."""

    def __init__(self):
        super().__init__()
        self.act, self.fc = nn.ReLU(), nn.Linear(3 * 8 * 8, 2)

    def forward(self, x):
        return self.act(self.fc(self.act(x).flatten(1)))


def test_a_network_of_ones_own_has_a_table_and_no_drawing():
    root = layers(Own(), 3, 8)
    assert [row.name for row in rows(root)] == ["act", "fc", "act"]
    assert root.parameters == 3 * 8 * 8 * 2 + 2
    assert drawing(root, 3, 8) == []


def test_numbers_are_brief():
    assert [brief(number) for number in (0, 640, 18_432, 3_628_146_688)] == ["0", "640", "18.4 k", "3.63 G"]


@pytest.mark.slow
@pytest.mark.parametrize("model", sorted(set(names("model")) - {"timm"}))
def test_every_model_has_a_drawing(model):
    made = network(model)
    root = layers(made, 3, 32)
    assert root.parameters == sum(parameter.numel() for parameter in made.parameters())
    assert drawing(root, 3, 32)[0] == "image  3x32x32"


def test_timms_networks_are_drawn_too():
    pytest.importorskip("timm")
    root = layers(network("timm"), 3, 32)
    drawn = drawing(root, 3, 32)
    assert sum("projection" in line for line in drawn) == 3
    assert "block: conv BN ReLU conv BN + ReLU" in drawn
    assert sum("global average pooling" in line for line in drawn) == 1


@pytest.mark.slow
def test_a_compiled_network_is_not_compiled_for_its_table(composed):
    config = composed("model=resnet8", "compile=true")
    classifier = build.build_classifier(config, build.build_data(config, ("fit",)))
    spec = classifier.record["spec"]
    assert layers(classifier.network, spec["channels"], spec["image_size"]).parameters == 75_002
