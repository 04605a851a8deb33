"""The program of docs/deploy.md, run where torch cannot be imported."""

import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import CONF
from PIL import Image
from torch import nn

from reslab.data.readers import ReadSquare
from reslab.data.spec import ImageSpec
from reslab.inference.export.formats import onnx_model, quiet_conversion, write_model
from reslab.inference.export.metadata import metadata
from reslab.inference.export.network import ExportedNetwork
from reslab.inference.loading import Trained, load_classifier
from reslab.inference.prediction import predict
from reslab.training.classifier import Classifier

FORBIDDEN = ("torch", "torchvision", "lightning", "reslab", "onnx")
RUNNER = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({FORBIDDEN}))  # importing them raises ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
NAMES = ["日本語", "<b>", "🦊"]


@pytest.fixture
def classify(tmp_path):
    """Run the program, and return the class and the probability that it prints for each file."""
    text = (CONF.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
    (program,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "classify.py" in code]
    (tmp_path / "classify.py").write_text(program, encoding="utf-8")

    def classify(model, files):
        arguments = map(str, [tmp_path / "classify.py", model, *files])
        done = subprocess.run(
            [sys.executable, "-c", RUNNER, *arguments], capture_output=True, text=True, encoding="utf-8", check=False,
            env={"PYTHONIOENCODING": "utf-8"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert [row[0] for row in rows] == [str(file) for file in files]
        return [row[1] for row in rows], torch.tensor([float(row[2]) for row in rows])

    return classify


def test_the_program_cannot_import_torch():
    done = subprocess.run([sys.executable, "-c", RUNNER, __file__], capture_output=True, text=True, check=False)
    assert "import of torch halted" in done.stderr or "ModuleNotFoundError" in done.stderr


def network_of(spec):
    """A network that no training has made: each class weighs all pixels otherwise."""
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(spec.channels * spec.size_in_evaluation**2, len(NAMES)))
    classifier = Classifier(layers, spec, flip_averaging=True).eval()
    options = {"model": {"name": "linear"}, "data": {"name": "files", "in_memory": False}}
    config = SimpleNamespace(**{name: Group(values) for name, values in options.items()})
    return Trained(classifier, config, spec)


class Group(SimpleNamespace):
    def __init__(self, values):
        super().__init__(**values)

    def __contains__(self, name):
        return hasattr(self, name)


@pytest.fixture(scope="module")
def models():
    """One conversion for all descriptions of how images become squares."""
    found = {}

    def model(trained):
        channels = trained.spec.channels
        if channels not in found:
            with quiet_conversion(), torch.no_grad():
                found[channels] = onnx_model(ExportedNetwork(trained.classifier))
        copied = type(found[channels])()
        copied.CopyFrom(found[channels])
        return copied

    return model


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Smooth and noisy images of many shapes and kinds."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(5)
    for number, (width, height) in enumerate([(8, 8), (40, 31), (31, 40), (9, 25), (8, 11), (7, 5), (64, 64), (13, 9)]):
        noise = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
        small = generator.integers(0, 256, (3, 4, 4), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        Image.fromarray(noise[..., :3]).save(folder / f"{number}_noise.png")
        Image.fromarray(smooth).save(folder / f"{number}_transparent.png")
        Image.fromarray(noise[..., 0]).save(folder / f"{number}_grey.png")
        Image.fromarray(smooth[..., :3]).convert("P").save(folder / f"{number}_palette.png")
        exif = Image.Exif()
        exif[0x0112] = 6  # turned
        Image.fromarray(smooth[..., :3]).save(folder / f"{number}_turned.jpg", exif=exif)
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "sizes",
    [
        {"eval_size": 8, "resize": 9},
        {"eval_size": 8, "resize": 8, "interpolation": "bicubic", "background": [250, 3, 99]},
        {"eval_size": 8, "fit": "pad", "background": [10, 200, 30]},
        {"eval_size": 8, "fit": "pad"},
        {"eval_size": 8, "fit": "squash", "interpolation": "bicubic"},
    ],
    ids=lambda sizes: "-".join(map(str, sizes.values())),
)
def test_the_program_gives_the_answers_of_the_reader(classify, models, photos, tmp_path, channels, sizes):
    spec = ImageSpec(NAMES, channels, 8, [0.3, 0.5, 0.6][:channels], [0.2, 0.3, 0.25][:channels], **sizes)
    trained = network_of(spec)
    (tmp_path / "best.ckpt").write_bytes(b"")
    write_model(models(trained), tmp_path / "a.onnx", metadata(trained, tmp_path / "best.ckpt", {}, "onnx"))
    read = ReadSquare(spec.fitting(training=False), channels, trained.background)
    with torch.inference_mode():
        expected = trained.classifier.evaluation_logits(torch.stack([read(str(file), 0) for file in photos])).softmax(1)
    classes, probabilities = classify(tmp_path / "a.onnx", photos)
    assert classes == [NAMES[label] for label in expected.argmax(1).tolist()]
    assert torch.allclose(probabilities, expected.amax(1), atol=2e-6)


def test_pixels_that_torch_resizes_differ_by_a_level(classify, models, photos, tmp_path):
    spec = ImageSpec(NAMES, 3, 8, [0.3, 0.5, 0.6], [0.2, 0.3, 0.25], fit="crop")
    trained = network_of(spec)
    files = [file for file in photos if "noise" in file.name or "grey" in file.name]
    fittings = (each.fitting(training=False) for each in (spec, replace(spec, eval_size=8)))
    by_torch, by_pillow = (ReadSquare(each, 3, None) for each in fittings)
    pairs = [(by_torch(str(file), 0).int(), by_pillow(str(file), 0).int()) for file in files]
    assert max(int((first - second).abs().max()) for first, second in pairs) <= 1
    assert '"resized_by": "torch"' in metadata(trained, files[0], {}, "onnx")["preprocessing"]


@pytest.mark.slow
def test_the_program_gives_the_answers_of_predict(classify, trained, digit_files, tmp_path):
    checkpoint = trained.folder / "checkpoints" / "best.ckpt"
    loaded = load_classifier(checkpoint)
    with quiet_conversion(), torch.no_grad():
        model = onnx_model(ExportedNetwork(loaded.classifier))
    write_model(model, tmp_path / "digits.onnx", metadata(loaded, checkpoint, {}, "onnx"))
    files = digit_files[:100]
    classes, probabilities = classify(tmp_path / "digits.onnx", files)
    rows = [row["classes"][0] for row in predict(checkpoint, files, top=1, device="cpu")]
    assert classes == [row["class"] for row in rows]
    assert torch.allclose(probabilities, torch.tensor([row["probability"] for row in rows]), atol=2e-6)
