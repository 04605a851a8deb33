"""The networks of the zoo, docs/zoo: what their files say, and what they answer."""

import importlib.util
import json
import re
import sys

import pytest
from conftest import FASHION_MNIST, SHARED_DATA
from hydra import compose
from safetensors import safe_open

import reslab
from reslab.configuration import CONF, ZOO
from reslab.inference.evaluation import evaluate
from reslab.newest import folders_in

sys.path.append(str(CONF.parent / "benchmarks"))

import gpu_data  # the folder is no package

NAMES = folders_in(str(ZOO))
MAX_SIZE, MAX_OTHER_SIZE = 2e6, 60e3  # bytes of the weights, and of any other file


@pytest.fixture(params=NAMES)
def entry(request):
    return reslab.load(f"zoo/{request.param}")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """A folder for MNIST's files as torchvision has them."""
    return tmp_path_factory.mktemp("unpacked")


@pytest.fixture
def root(entry, unpacked):
    """The folder of a network's data set; the test is skipped where it is not installed."""
    name = entry.result["data"]
    if name == "fashion_mnist" and not FASHION_MNIST.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is absent")
    if name == "mnist" and SHARED_DATA is None:
        pytest.skip("RESLAB_SHARED_DATA is not set")
    return gpu_data.mnist(unpacked) if name == "mnist" else unpacked


def test_it_has_a_network():
    assert "digits_resnet8" in NAMES


def test_a_network_is_that_of_its_result(entry):
    network = entry.classifier().network
    assert entry.status == "finished"
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.result["parameters"]
    assert not network.training


def test_its_files_are_small_and_complete(entry):
    files = {path.relative_to(entry.folder).as_posix(): path.stat().st_size for path in entry.folder.rglob("*.*")}
    weights = files.pop("weights.safetensors")
    files.pop(".hydra", None)
    assert files.keys() == {"README.md", "result.json", ".hydra/config.yaml", ".hydra/overrides.yaml"}
    assert weights < MAX_SIZE
    assert max(files.values()) < MAX_OTHER_SIZE


def test_its_files_say_the_same_and_no_place_of_a_machine(entry):
    with safe_open(entry.weights, "pt") as file:
        metadata = file.metadata()
    said = json.loads(metadata["reslab"])
    assert said["result"] == entry.result
    assert said["overrides"] == entry.overrides
    assert said["license"] == "MIT"
    card = (entry.folder / "README.md").read_text()
    assert f"{entry.result['parameters']:,} parameters" in card
    assert f"| test/accuracy | {entry.result['test/accuracy']:.4f} |" in card
    texts = [card, json.dumps(said), entry.config_file.read_text(), entry.overrides_file.read_text()]
    assert not [text for text in texts if re.search(r"[\"' =](/(?!top)\w|~)", text)]


def test_its_card_has_the_confusion_matrix_of_its_accuracy(entry):
    rows = re.findall(
        r"^\| .* \|$", (entry.folder / "README.md").read_text().partition("## Confusion")[2], re.MULTILINE
    )
    counts = [[int(cell.replace(",", "") or 0) for cell in map(str.strip, row.split(" | ")[1:])] for row in clean(rows)]
    images = sum(map(sum, counts))
    assert images == entry.result["test/images"]
    right = sum(row[number] for number, row in enumerate(counts))
    assert right / images == pytest.approx(entry.result["test/accuracy"], abs=1e-6)


def clean(rows):
    """The rows below the head, without the bar that ends each."""
    return [row.removesuffix("|").replace("\\|", "/") for row in rows[1:]]


def evaluated(entry, root, *overrides):
    options = [f"checkpoint={entry.folder}", f"root={root}", "trainer.precision=32-true", "device=cpu"]
    return evaluate(compose("evaluate", overrides=[*options, "trainer.enable_progress_bar=false", *overrides]))


def test_it_is_as_accurate_on_some_images_as_its_result_says(entry, root, composed):
    found = evaluated(entry, root, "data.batch_size=128", "trainer.limit_test_batches=4")
    stated, n = entry.result["test/accuracy"], found["images"]
    assert n == min(512, entry.result["test/images"])
    assert abs(found["metrics"]["test/accuracy"] - stated) < 4 * (stated * (1 - stated) / n) ** 0.5 + 1e-6


@pytest.mark.slow
def test_it_is_exactly_as_accurate_as_its_result_says(entry, root, composed):
    if entry.result["device"] != "cpu" or entry.result["precision"] != "32-true":
        pytest.skip("it was tested on another device or in another precision")
    found = evaluated(entry, root)
    assert found["images"] == entry.result["test/images"]
    assert round(found["metrics"]["test/accuracy"] * found["images"]) == round(
        entry.result["test/accuracy"] * entry.result["test/images"]
    )
    assert found["metrics"]["test/loss"] == pytest.approx(entry.result["test/loss"], abs=1e-5)


def test_the_page_is_of_the_results():
    spec = importlib.util.spec_from_file_location("zoo_page", CONF.parent / "docs" / "zoo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ZOO / "README.md").read_text(encoding="utf-8") == module.page(), "python docs/zoo.py writes it"
