"""Whatever reads the images of a network in evaluation gives the numbers of torchvision's presets on the same files."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import FP32
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch.nn import functional as F
from torchvision.models import ResNet50_Weights, resnet50
from torchvision.transforms._presets import ImageClassification

import reslab
from reslab.configuration import CONF
from reslab.errors import UserError
from reslab.inference.evaluation import evaluate
from reslab.training import fit
from reslab.training.build import build_classifier, build_data

SIZES = [(500, 375), (375, 500), (333, 247), (231, 301), (90, 61), (400, 70)]  # width, height
PHOTOS = ("data=imagefolder", "data.num_workers=0", "data.batch_size=4", "data.test_fraction=0.5", "trainer=cpu", FP32)
SMALL = ("data.image_size=24", "data.eval_size=36", "data.resize=40", "data.interpolation=bicubic")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two class folders of JPEG files of several sizes, cut from photographs that scikit-learn carries."""
    root = tmp_path_factory.mktemp("photos")
    for name, pixels in zip(("china", "flower"), load_sample_images().images, strict=True):
        (root / name).mkdir()
        for number, (width, height) in enumerate(SIZES * 2):
            left, top = 5 * number, min(3 * number, 427 - height) if height < 427 else 0
            Image.fromarray(pixels).resize((640, 520)).crop((left, top, left + width, top + height)).save(
                root / name / f"{number}.jpg", quality=85
            )
    return root


@pytest.fixture(scope="module")
def torchvision_weights(tmp_path_factory):
    torch.manual_seed(0)
    network = resnet50(num_classes=2).eval()
    file = tmp_path_factory.mktemp("weights") / "resnet50.pt"
    torch.save(network.state_dict(), file)
    return SimpleNamespace(network=network.to(memory_format=torch.channels_last), file=file)


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "resize"), [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)])
def test_the_logits_of_a_resnet50_equal_those_of_torchvisions_presets(
    composed, photos, torchvision_weights, weights, resize
):
    options = (f"data.root={photos}", f"data.resize={resize}", "model=resnet50", "data.batch_size=12")
    config = composed(*PHOTOS, *options, f"model.weights={torchvision_weights.file}")
    data = build_data(config, ("fit", "test"))
    classifier = build_classifier(config, data).eval()
    images, *_ = next(iter(data.test_dataloader()))
    paths = [data.splits["test"].images.paths[index] for index in data.splits["test"].indices]
    preset = ResNet50_Weights[weights].transforms()
    x = torch.stack([preset(Image.open(path)) for path in paths]).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.allclose(classifier(images), torchvision_weights.network(x), rtol=1e-5, atol=1e-6)


def train_on_photos(root, folder, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        model = ("model=resnet8", "model.widths=[8,8,8]", "trainer.max_epochs=1", "logger=none")
        config = compose("config", [f"folder={folder}", f"data.root={root}", *PHOTOS, *SMALL, *model, *overrides])
        return fit.train(config)


IN_MEMORY = ("data.in_memory=true", "data.augment.scale=null")


@pytest.fixture(scope="module", params=[(), IN_MEMORY, ("data.fit=pad", *IN_MEMORY)], ids=["disk", "memory", "pad"])
def run(request, photos, tmp_path_factory):
    """A run that trains on 24 pixels and evaluates 36 of 40, or with borders 36."""
    folder = tmp_path_factory.mktemp("run")
    more = ("data.resize=null",) if "data.fit=pad" in request.param else ()
    result = train_on_photos(photos, folder, *request.param, *more)
    (folder / ".hydra").mkdir()
    return SimpleNamespace(run=reslab.Run(folder), result=result, pads=bool(more))


def logits_of(run, paths):
    """Return the logits of a network on files that torchvision has prepared, in float32."""
    preset = ImageClassification(crop_size=36, resize_size=40, interpolation=Image.Resampling.BICUBIC)
    if run.pads:
        preset = ImageClassification(crop_size=36, resize_size=36)
    x = [preset(padded(path) if run.pads else Image.open(path)) for path in paths]
    with torch.inference_mode():
        x = torch.stack(x).contiguous(memory_format=torch.channels_last)
        return run.run.classifier().network(x)


def padded(path):
    """Return an image of 36x36 with white borders."""
    image, square = Image.open(path), Image.new("RGB", (36, 36), "white")
    sides = [round(36 * side / max(image.size)) for side in image.size]
    square.paste(image.resize(sides, Image.Resampling.BICUBIC), [(36 - side) // 2 for side in sides])
    return square


@pytest.mark.slow
def test_predictions_equal_those_of_the_preset(run, photos):
    paths = sorted(photos.rglob("*.jpg"))
    expected = logits_of(run, paths).softmax(1)
    for row, probabilities in zip(run.run.predict(paths, device="cpu"), expected, strict=True):
        found = {each["class"]: each["probability"] for each in row["classes"]}
        assert [found["china"], found["flower"]] == pytest.approx(probabilities.tolist(), abs=1e-5)


@pytest.mark.slow
def test_the_run_and_evaluate_test_the_images_of_the_preset(run, photos, composed):
    result = evaluate(compose("evaluate", [f"checkpoint={run.run.folder}", "trainer=cpu"]))
    assert (result["image_size"], result["resize"]) == (36, None if run.pads else 40)
    assert result["metrics"]["test/loss"] == pytest.approx(run.result["test/loss"], abs=1e-5)
    config = composed(*PHOTOS, f"data.root={photos}")
    data = build_data(config, ("fit", "test"))
    split = data.splits["test"]
    logits = logits_of(run, [split.images.paths[index] for index in split.indices])
    loss = F.cross_entropy(logits, split.labels[split.indices]).item()
    assert result["metrics"]["test/loss"] == pytest.approx(loss, abs=1e-5)


def wide_digits(root):
    """Write digits between transparent columns, so that there are borders and parts without a colour."""
    for number, (image, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if number < 20:
            pixels = np.zeros((8, 20, 4), np.uint8)
            pixels[:, 4:16, 3] = 255
            pixels[:, 6:14, :3] = np.round(image.reshape(8, 8, 1) * 255 / 16)
            (root / str(label)).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / str(label) / f"{number}.png")
    return sorted(root.rglob("*.png"))


@pytest.mark.slow
def test_the_borders_of_other_images_are_those_of_the_training_and_transparent_parts_white(composed, tmp_path):
    folder, root = tmp_path / "run", tmp_path / "images"
    root.mkdir()
    paths = wide_digits(root)
    options = ("data=digits", "data.fit=pad", "model=resnet8", "trainer=cpu", FP32, "logger=none")
    fit.train(composed(*options, f"folder={folder}", "trainer.max_epochs=1", "trainer.limit_train_batches=1"))
    result = evaluate(
        compose("evaluate", [f"checkpoint={folder}", "trainer=cpu", "data=imagefolder", f"data.root={root}"])
    )
    (folder / ".hydra").mkdir()
    found = reslab.Run(folder).predict(paths, top=10, device="cpu")
    right = [{each["class"]: each["probability"] for each in row["classes"]} for row in found]
    loss = -np.mean([np.log(row[path.parent.name]) for row, path in zip(right, paths, strict=True)])
    assert result["metrics"]["test/loss"] == pytest.approx(loss, abs=1e-5)


@pytest.mark.slow
def test_borders_of_the_mean_are_those_of_the_run_in_other_images_too(photos, composed, tmp_path):
    more = ("data.fit=pad", "data.background=null", "data.resize=null")
    model = ("model=resnet8", "model.widths=[8,8,8]", "trainer.max_epochs=1", "logger=none")
    result = fit.train(composed(*PHOTOS, *SMALL, *model, *more, f"folder={tmp_path}", f"data.root={photos}"))
    paths = build_data(composed(*PHOTOS, f"data.root={photos}"), ("test",)).splits["test"]
    for index in paths.indices.tolist():
        file = Path(paths.images.paths[index])
        (tmp_path / "others" / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "others" / file.parent.name / file.name)
    others = ("data=imagefolder", f"data.root={tmp_path}/others")
    tested = evaluate(compose("evaluate", [f"checkpoint={tmp_path}", "trainer=cpu", *others]))
    assert tested["metrics"]["test/loss"] == pytest.approx(result["test/loss"], abs=1e-6)


@pytest.mark.slow
def test_the_classifier_takes_images_of_the_size_as_they_are_and_fits_others(run, photos):
    classifier = run.run.classifier()
    with Image.open(photos / "china" / "0.jpg") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    square = classifier.preprocess.in_evaluation.of_file(Image.open(photos / "china" / "0.jpg"))[None]
    with torch.inference_mode():
        exact = classifier.preprocess(square)
        assert exact.shape == (1, 3, 36, 36)
        assert torch.equal(classifier(square), classifier.network(exact))
        assert (classifier.preprocess(pixels) - exact).abs().max() < 1.1 / 255 / 0.224  # levels of files are rounded


@pytest.mark.slow
def test_evaluate_takes_other_sizes_and_refuses_those_that_contradict(run, composed, caplog):
    if run.pads:
        with pytest.raises(
            UserError, match=r"^data\.resize cuts off the border of an image, which data\.fit=pad keeps"
        ):
            evaluate(compose("evaluate", [f"checkpoint={run.run.folder}", "trainer=cpu", "data.resize=40"]))
        return
    for name in ("eval_size", "image_size"):  # the older name
        result = evaluate(compose("evaluate", [f"checkpoint={run.run.folder}", "trainer=cpu", f"data.{name}=40"]))
        assert (result["image_size"], result["resize"]) == (40, 40)
    assert "images of 40 pixels are tested; the network was evaluated on 36" in caplog.messages
    with pytest.raises(UserError, match=r"^data\.resize=40 is less than data\.eval_size=48"):
        evaluate(compose("evaluate", [f"checkpoint={run.run.folder}", "trainer=cpu", "data.eval_size=48"]))


def test_a_data_set_in_memory_trains_and_evaluates_at_its_own_sizes(composed, tmp_path):
    options = ("data=digits", "model=resnet8", "data.image_size=11", "data.eval_size=14", "data.resize=15")
    config = composed(*options, "trainer=cpu")
    data = build_data(config, ("fit",))
    classifier = build_classifier(config, data)
    images = next(iter(data.train_dataloader()))[0]  # (N, 1, 8, 8)
    x = (images.float() / 255 - data.spec.mean[0]) / data.spec.std[0]
    expected = F.interpolate(x, (11, 11), mode="bilinear", antialias=True)
    assert torch.allclose(classifier.preprocess(images), expected, atol=1e-5)
    expected = F.interpolate(x, (15, 15), mode="bilinear", antialias=True)[:, :, :14, :14]  # an offset of 0.5 is 0
    assert torch.allclose(classifier.eval().preprocess(images), expected, atol=1e-5)
