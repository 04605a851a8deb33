import errno
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra import compose
from omegaconf import OmegaConf
from torch import nn

from reslab.commands.printing import print_export
from reslab.configuration import ZOO
from reslab.errors import RunError, UserError
from reslab.inference.export import export as module
from reslab.inference.export import quantization
from reslab.inference.export.comparison import TOLERANCE, Comparison
from reslab.inference.export.export import export, output_file
from reslab.inference.export.formats import FORMATS, Format
from reslab.inference.export.images import calibration_batches, own_data
from reslab.inference.export.options import ENDINGS, EXPORT_SCHEMA
from reslab.inference.loading import load_classifier


@pytest.fixture
def written(trained, composed, tmp_path):
    """Export the network of the trained digits."""

    def written(kind="onnx", *overrides, checkpoint=trained.folder):
        output = tmp_path / f"network{ENDINGS[kind]}"
        overrides = [f"checkpoint={checkpoint}", f"format={kind}", f"output={output}", *overrides]
        return export(compose("export", overrides=overrides))

    return written


FLOAT32 = ("onnx", "torch_export", "torchscript")
SLOW_ONNX = [pytest.param("onnx", marks=pytest.mark.slow), pytest.param("torch_export", marks=pytest.mark.slow)]


@pytest.mark.parametrize("kind", FLOAT32)
def test_a_file_of_each_format_is_the_same_network(trained, written, kind):
    exported = written(kind)
    assert exported.comparison.images == len(trained.images) == 359
    assert (exported.comparison.changed, exported.comparison.difference <= 1e-5) == (0, True)
    assert (exported.image_shape, exported.classes) == ((8, 8, 1), 10)
    loaded = FORMATS[kind].load(exported.path)
    for count in (1, 7, 359):
        pixels = trained.images[:count].permute(0, 2, 3, 1).contiguous()
        with torch.inference_mode():
            probabilities, logits = loaded.answer(pixels)
        assert torch.allclose(probabilities, trained.probabilities[:count], atol=1e-5)
        assert torch.allclose(logits.softmax(1), probabilities, atol=1e-6)
    said = {name: json.loads(text) for name, text in loaded.metadata.items()}
    assert said["classes"] == [str(digit) for digit in range(10)]
    assert said["preprocessing"]["size"] == 8
    assert said["provenance"]["step"] == trained.result["best_step"]
    content = exported.path.read_bytes()
    assert b"reslab/training" not in content  # no path of the code that wrote it
    assert str(trained.folder.parent).encode() not in content


def test_an_error_of_reading_is_not_blamed_on_the_output(written, monkeypatch, tmp_path):
    def compare(*arguments):
        raise OSError(errno.EIO, "Input/output error", "photos/b.png")

    monkeypatch.setattr(module, "compare", compare)
    with pytest.raises(OSError, match=r"photos/b\.png"):
        written("torchscript")
    assert not (tmp_path / "network.pt").exists()


def test_a_full_temporary_folder_is_not_blamed_on_the_output(written, monkeypatch):
    def write_bytes(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(quantization, "onnx_model", lambda network: SimpleNamespace(SerializeToString=lambda: b""))
    monkeypatch.setattr(quantization.Path, "write_bytes", write_bytes)
    with pytest.raises(UserError, match=rf"^TMPDIR={tempfile.gettempdir()} cannot be written: No space left on device"):
        written("int8", "calibration_images=4", "limit=4")


def test_a_file_with_another_answer_is_not_left(written, monkeypatch, tmp_path):
    class Wrong(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network, self.image_shape = network, network.image_shape

        def forward(self, images):
            probabilities, logits = self.network(images.flip(1))
            return probabilities, logits

    right = FORMATS["torchscript"]
    wrong = Format(lambda network, *others: right.write(Wrong(network), *others), right.load)
    monkeypatch.setitem(module.FORMATS, "torchscript", wrong)
    (tmp_path / "network.pt").write_text("what was there before")
    with pytest.raises(RunError, match=r"difference of a probability is [01](\.\d+)? .* and [1-9]\d* of 359 answers"):
        written("torchscript")
    assert [file.name for file in tmp_path.iterdir()] == ["network.pt"]
    assert (tmp_path / "network.pt").read_text() == "what was there before"


def test_random_pixels_show_a_wrong_network_too(written, monkeypatch):
    monkeypatch.setattr(module, "own_data", None)  # the options of a data set, which is not read
    exported = written("torchscript", "verify=false")
    assert exported.images == "64 images of random pixels"
    assert exported.comparison.difference <= 1e-5


def test_a_limit_takes_images_from_all_of_the_test_set(written, trained):
    exported = written("torchscript", "limit=100")
    assert exported.images == "100 of 359 test images of digits"
    assert exported.comparison.right_before == int(
        (trained.probabilities.argmax(1) == trained.labels)[torch.arange(100) * 359 // 100].sum()
    )


def test_without_a_name_the_file_is_in_the_folder_of_the_run(trained, composed, tmp_path):
    checkpoint = tmp_path / "alone" / "best.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.write_bytes((trained.folder / "checkpoints" / "best.ckpt").read_bytes())
    config = compose("export", overrides=[f"checkpoint={checkpoint}", "verify=false", "format=torchscript"])
    assert export(config).path == tmp_path / "alone" / "export" / "resnet8.pt"


def test_nothing_is_written_into_the_zoo(composed):
    config = compose("export", overrides=["checkpoint=zoo/digits_resnet8", "verify=false", "format=torchscript"])
    with pytest.raises(UserError, match="is in the zoo, which stays as it is: output=<file>"):
        export(config)
    assert not (ZOO / "digits_resnet8" / "export").exists()


@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", ".hidden", "ö 1", ""])
def test_a_name_of_a_stranger_leaves_no_folder(name, composed):
    config = compose("export", overrides=["checkpoint=a"])
    trained = SimpleNamespace(config=OmegaConf.create({"model": {"name": name}}))
    path = output_file(config, trained, Path("here/best.ckpt"))
    assert path.parent == Path("here/export")
    assert re.fullmatch(r"[\w-]+\.onnx", path.name)


NAMES = ["<script>alert(1)</script>", "日本語", "=1+1", "$HOME", "50 %", "🦊", "a\nb", "\udcff", "ab", ""]


@pytest.mark.parametrize("kind", [*SLOW_ONNX, "torchscript"])
def test_any_name_of_a_class_survives(trained, written, tmp_path, kind):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["spec"]["classes"] = NAMES
    torch.save(checkpoint, tmp_path / "best.ckpt")
    exported = written(kind, "verify=false", checkpoint=tmp_path / "best.ckpt")
    loaded = FORMATS[kind].load(exported.path)
    assert json.loads(loaded.metadata["classes"]) == NAMES


def test_a_network_that_looks_at_its_images_is_one_line(trained, written, monkeypatch):
    class Looks(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    monkeypatch.setattr(module, "restore_classifier", lambda *args: restored_with(trained, Looks()))
    with pytest.raises(RunError, match="this network cannot be exported as onnx: ") as raised:
        written("onnx", "verify=false")
    assert len(str(raised.value).splitlines()) == 1


def restored_with(trained, network):
    restored = load_classifier(trained.folder / "checkpoints" / "best.ckpt")
    restored.classifier.network = network
    return restored


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["format=torch_export", "output=a.onnx"], "output=a.onnx: the name of a file of format=torch_export ends in"),
        (["format=tflite"], "format=tflite must be one of onnx, torch_export, torchscript, int8"),
        (["limit=0"], "limit=0 must be an integer of at least 1"),
        (["verify=false", "format=int8"], "format=int8 needs the images of the run"),
        (["verify=false", "limit=9"], "limit= is a number of test images, and verify=false reads none"),
        (["verify=false", "root=a"], "root= is the folder of the test images, and verify=false reads none"),
        (["calibration_images=9"], "calibration_images= is the number of training images that format=int8 reads"),
        (["format=share", "output=a", "calibration_images=9"], "calibration_images= is the number of training images"),
    ],
)
def test_wrong_options(composed, overrides, line):
    with pytest.raises(UserError) as raised:
        EXPORT_SCHEMA.check(compose("export", overrides=["checkpoint=a", *overrides]))
    assert str(raised.value).startswith(line)


def test_without_test_images_it_says_how_to_do_without(trained, written, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["config"]["data"] |= {"_target_": "reslab.data.datasets.MNIST", "name": "mnist"}
    checkpoint["reslab"]["config"]["data"]["root"] = str(tmp_path / "nowhere")
    torch.save(checkpoint, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="verify=false compares the file on random pixels"):
        written("onnx", checkpoint=tmp_path / "best.ckpt")


@pytest.mark.slow
def test_int8_keeps_the_answers_nearly_and_says_how_many(trained, written, capsys):
    exported = written("int8", "calibration_images=256")
    right = int((trained.probabilities.argmax(1) == trained.labels).sum())
    assert exported.comparison.right_before == right
    assert abs(exported.comparison.right - right) <= 0.03 * 359
    assert 1e-4 < exported.comparison.difference < 0.5  # it is another network
    assert exported.speeds.keys() == {"float32", "int8"}
    assert all(each.keys() == {1, 64} and min(each.values()) > 0 for each in exported.speeds.values())
    float32 = written("onnx", "verify=false")
    assert exported.size < 0.6 * float32.size
    print_export(exported)
    assert f"accuracy    {right / 359:.4f} in float32" in capsys.readouterr().out


def test_the_images_of_the_calibration_are_training_images(trained):
    restored = load_classifier(trained.folder / "checkpoints" / "best.ckpt")
    images = torch.cat(calibration_batches(restored, own_data(Path("latest"), None), 200)).permute(0, 3, 1, 2)
    assert images.shape == (200, 1, 8, 8)
    test = {image.numpy().tobytes() for image in trained.images}
    assert not [image for image in images if image.contiguous().numpy().tobytes() in test]


def test_the_file_has_the_temperature_of_the_checkpoint(trained, written, monkeypatch):
    monkeypatch.setattr(module, "stored_calibration", lambda *args: SimpleNamespace(temperature=2.0))
    exported = written("torchscript", "calibrated=true")
    assert exported.comparison.agrees
    loaded = FORMATS["torchscript"].load(exported.path)
    with torch.inference_mode():
        probabilities, _ = loaded.answer(trained.images.permute(0, 2, 3, 1))
        expected = (trained.classifier.evaluation_logits(trained.images) / 2).softmax(1)
    assert torch.allclose(probabilities, expected, atol=1e-5)
    assert json.loads(loaded.metadata["provenance"])["temperature"] == 2.0


def test_a_network_without_a_calibration_is_one_line(written):
    with pytest.raises(UserError, match="has no calibration; this adds it: "):
        written("torchscript", "calibrated=true")


# the comparison


def test_a_comparison_counts_changed_answers_but_no_ties():
    comparison = Comparison()
    expected = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]])
    given = torch.tensor([[0.49999, 0.50001], [0.4, 0.6], [0.3, 0.7]])
    comparison.add(expected, given, torch.tensor([0, 0, 1]))
    assert (comparison.images, comparison.changed, comparison.right, comparison.right_before) == (3, 1, 1, 3)
    assert comparison.difference == pytest.approx(0.5)
    assert not comparison.agrees


def test_a_probability_that_is_no_number_never_agrees():
    comparison = Comparison()
    comparison.add(torch.tensor([[0.1, 0.9]]), torch.tensor([[np.nan, 0.9]]))
    comparison.add(torch.tensor([[0.1, 0.9]]), torch.tensor([[0.1, 0.9]]))
    assert np.isnan(comparison.difference)
    assert not comparison.agrees


@pytest.mark.parametrize(("difference", "agrees"), [(TOLERANCE / 2, True), (2 * TOLERANCE, False)])
def test_the_tolerance(difference, agrees):
    comparison = Comparison()
    expected = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    comparison.add(expected, expected + torch.tensor([[difference, -difference]], dtype=torch.float64))
    assert comparison.agrees is agrees


def test_another_shape_never_agrees():
    with pytest.raises(RunError, match=r"\(1, 3\) instead of \(1, 2\)"):
        Comparison().add(torch.zeros(1, 2), torch.zeros(1, 3))
