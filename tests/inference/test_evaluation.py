import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import FP32
from conftest import run as run_command
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support
from torchvision.io import write_png

from reslab.commands.printing import print_evaluation
from reslab.configuration import CONF
from reslab.errors import UserError
from reslab.inference import evaluation
from reslab.inference.evaluation import class_table, evaluate, with_given_sizes
from reslab.inference.export.share import share
from reslab.inference.loading import load_classifier
from reslab.inference.prediction import predict
from reslab.inference.test_data import labels_by_name
from reslab.run import Run
from reslab.training import fit
from reslab.training.build import build_data
from reslab.training.checkpoints import read_checkpoint
from reslab.training.confusion import Confusion


@pytest.fixture
def run(composed, trained):
    """Evaluate the trained digits as src/evaluate.py does. `composed` starts Hydra."""
    return lambda *overrides: evaluate(compose("evaluate", [f"checkpoint={trained.folder}", "trainer=cpu", *overrides]))


@pytest.fixture
def renamed(trained, tmp_path):
    """The options of an image folder that holds the test digits, with classes called d0 to d9."""
    for index, (image, label) in enumerate(zip(trained.images, trained.labels.tolist(), strict=True)):
        (tmp_path / f"d{label}").mkdir(exist_ok=True)
        write_png(image, str(tmp_path / f"d{label}" / f"{index}.png"))
    return ("data=imagefolder", f"data.root={tmp_path}", "data.num_workers=0")


def metrics_of_test(result):
    names = ["loss", "accuracy", "top5_accuracy", "f1_macro", "calibration_error"]
    return {f"test/{name}": result[f"test/{name}"] for name in names if f"test/{name}" in result}


def assert_classes(table, true, predicted, names):
    assert [row["class"] for row in table] == names
    scores = precision_recall_fscore_support(true, predicted, labels=range(len(names)), zero_division=np.nan)
    for name, expected in zip(("precision", "recall", "f1", "images"), scores, strict=True):
        found = [math.nan if row[name] is None else row[name] for row in table]
        assert found == pytest.approx(expected.tolist(), nan_ok=True)


def test_the_class_table_is_sklearns():
    generator = np.random.default_rng(0)
    true, predicted = (
        generator.integers(0, 4, 200),
        generator.integers(1, 5, 200),
    )  # 0 is never predicted, 4 never occurs
    confusion = Confusion.of_codes([torch.from_numpy(6 * true + predicted)], 6)
    table = class_table(confusion, list("abcdef"))
    assert_classes(table, true, predicted, list("abcdef"))
    assert all(type(row["images"]) is int for row in table)
    assert table[5] == {"class": "f", "images": 0, "precision": None, "recall": None, "f1": None}
    macro = f1_score(true, predicted, average="macro")
    assert np.mean([row["f1"] for row in table if row["f1"] is not None]) == pytest.approx(macro)


def test_evaluation_repeats_the_runs_test(run, trained, tmp_path):
    result = run(f"output={tmp_path}/evaluation.json")
    assert result["metrics"] == metrics_of_test(trained.result)
    assert result["metrics"]["test/accuracy"] == pytest.approx(
        accuracy_score(trained.labels, trained.probabilities.argmax(1))
    )
    assert (result["images"], result["found"], set(result["left_out"].values())) == (359, 359, {0})
    assert_classes(result["classes"], trained.labels, trained.probabilities.argmax(1), list("0123456789"))
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result


def test_a_metric_that_is_not_finite_is_null_in_the_file(run, overflowing, tmp_path):
    result = run(f"checkpoint={overflowing}", f"output={tmp_path}/evaluation.json")
    metrics = json.loads((tmp_path / "evaluation.json").read_text())["metrics"]
    assert (result["metrics"]["test/accuracy"], metrics["test/accuracy"]) == (0, 0)
    assert math.isnan(result["metrics"]["test/loss"])
    assert metrics["test/loss"] is metrics["test/calibration_error"] is None


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_photos_are_grey_for_a_network_of_grey_images_as_in_predict(composed, tmp_path, channels):
    options = ("data=digits", f"data.channels={channels}", "model=resnet8", "model.widths=[4,4,4]", "trainer=cpu")
    options += ("trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none", "test=false")
    fit.train(composed(*options, f"folder={tmp_path}/run"))
    pixels = torch.randint(0, 256, (8, 3, 20, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(pixels):
        (tmp_path / "photos" / str(number // 4)).mkdir(parents=True, exist_ok=True)
        write_png(image, str(tmp_path / "photos" / str(number // 4) / f"{number}.png"))
    found = evaluation.test_network(
        compose(
            "evaluate",
            [f"checkpoint={tmp_path}/run", "trainer=cpu", "data=imagefolder", f"data.root={tmp_path}/photos"],
        )
    )
    rows = predict(Run(tmp_path / "run").best, tmp_path / "photos", top="all", device="cpu")
    expected = [{each["class"]: each["probability"] for each in row["classes"]} for row in rows]
    probabilities = found.answers.probabilities.tolist()
    for row, given in zip(expected, probabilities, strict=True):
        assert [row[name] for name in "0123456789"] == pytest.approx(given, abs=1e-6)


@pytest.mark.parametrize("stored", [2, 4])
def test_a_network_of_other_channels_than_files_have_is_one_line(composed, trained, renamed, tmp_path, stored):
    content = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    content["reslab"]["spec"] |= {"mean": [0.5] * stored, "std": [0.5] * stored}
    torch.save(content, tmp_path / "other.ckpt")
    message = rf"^the network takes images of {stored} channels, and image files are grey or RGB$"
    with pytest.raises(UserError, match=message):
        predict(tmp_path / "other.ckpt", tmp_path / "d0", device="cpu")
    options = [f"checkpoint={tmp_path}/other.ckpt", "trainer=cpu"]
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", [*options, *renamed]))
    with pytest.raises(UserError, match=rf"^the network takes images of {stored} channels, and these have 1$"):
        evaluate(compose("evaluate", options))


def test_only_the_first_process_writes(run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "is_first_process", lambda: False)
    monkeypatch.setattr(evaluation, "quiet_other_processes", lambda: None)  # it would last
    run(f"output={tmp_path}/evaluation.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_count_print_and_write_as_one(run, trained, renamed, tmp_path):
    """One class has a name that the network does not know, so that there is something to say."""
    (tmp_path / "images").mkdir()
    for folder in tmp_path.glob("d?"):
        folder.rename(tmp_path / "images" / folder.name.removeprefix("d"))
    (tmp_path / "images" / "0").rename(tmp_path / "images" / "zero")
    options = ["data=imagefolder", f"data.root={tmp_path}/images", "data.num_workers=0", "unknown_classes=skip"]
    one = run(*options, f"predictions={tmp_path}/one.csv")
    done = run_command(
        "evaluate",
        f"checkpoint={trained.folder}",
        "trainer=ddp_cpu",
        *options,
        "output=two.json",
        "predictions=two.csv",
        cwd=tmp_path,
    )
    assert done.returncode == 0
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["classes"] == one["classes"]
    first, second = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(first, second, rtol=1e-5)
    assert len(second) == one["images"]
    assert two["images"] == one["images"] == (trained.labels != 0).sum()
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
    assert two["metrics"]["test/accuracy"] == one["metrics"]["test/accuracy"]
    assert done.stdout.count("test images") == done.stdout.count("test/accuracy") == 1
    assert [line for line in done.stderr.splitlines() if "left out" in line] == [
        f"left out {(trained.labels == 0).sum()} images of classes that the network does not know: "
        f"{trained.folder}/checkpoints/best.ckpt does not know zero"
    ]
    assert sorted({path.name for path in tmp_path.iterdir() if path.name.startswith((".two", "two"))}) == [
        "two.csv",
        "two.json",
    ]


@pytest.mark.slow
def test_the_result_says_which_weights_were_tested(run, trained):
    for name in ("best.ckpt", "last.ckpt"):
        path = trained.folder / "checkpoints" / name
        result = run(f"checkpoint={path}")
        saved = torch.load(path, weights_only=True)
        assert result["checkpoint"] == str(path)
        assert result["step"] == saved["global_step"]
        assert result["epoch"] == saved["global_step"] / 20  # of 1,295 training images in batches of 64
    assert run()["checkpoint"] == str(trained.folder / "checkpoints" / "best.ckpt")


def test_a_result_of_other_weights_is_said(run, trained, tmp_path, caplog):
    run()
    assert caplog.messages == []
    shutil.copytree(trained.folder, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    (tmp_path / "run" / "result.json").write_text(json.dumps(result | {"best_step": 7}))
    step = run(f"checkpoint={tmp_path}/run")["step"]
    assert caplog.messages == [
        f"{tmp_path}/run/checkpoints/best.ckpt is of step {step}; "
        f"the result of the run, {tmp_path}/run/result.json, is of step 7"
    ]


def test_evaluation_uses_the_precision_of_the_run_unless_one_is_given(run, trained):
    repeated = metrics_of_test(trained.result)
    result = run("trainer.precision=32-true")
    assert (result["metrics"], result["precision"]) == (repeated, "32-true")
    assert run("trainer.precision=bf16-mixed")["metrics"]["test/loss"] != repeated["test/loss"]


@pytest.mark.parametrize("name", ["epoch", "global_step"])
def test_a_checkpoint_that_does_not_say_its_step_is_one_line(run, trained, tmp_path, name):
    saved = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    del saved[name]
    torch.save(saved, tmp_path / "cut.ckpt")
    with pytest.raises(UserError, match=r"cut.ckpt is not a complete checkpoint of ResLab: it does not say"):
        run(f"checkpoint={tmp_path}/cut.ckpt")


def test_another_precision_than_that_of_the_run_is_said(run, trained, tmp_path, caplog):
    saved = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    saved["reslab"]["origin"]["precision"] = "bf16-mixed"  # of a GPU, where trainer.precision=auto was this
    torch.save(saved, tmp_path / "gpu.ckpt")
    run(f"checkpoint={tmp_path}/gpu.ckpt")
    assert "the run computed in bf16-mixed and this test computes in 32-true" in caplog.text


def test_the_precision_in_which_a_cpu_computes_is_no_other_one(caplog):
    trained = SimpleNamespace(
        config=OmegaConf.create({"trainer": {"precision": "16-mixed"}}),
        classifier=SimpleNamespace(record={"origin": {"precision": "bf16-mixed"}}),
    )
    config = OmegaConf.create({"trainer": {"precision": None, "accelerator": "cpu"}})
    assert evaluation.trainer_config(trained, config).trainer.precision == "16-mixed"
    assert caplog.text == ""


def test_the_flip_averaging_of_the_run_is_used_and_said(run, trained, tmp_path):
    saved = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    saved["reslab"]["config"]["flip_averaging"] = True
    torch.save(saved, tmp_path / "flip.ckpt")
    result = run(f"checkpoint={tmp_path}/flip.ckpt")
    with torch.inference_mode():
        logits = (trained.classifier(trained.images) + trained.classifier(trained.images.flip(3))) / 2
    assert result["flip_averaging"]
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(trained.labels, logits.argmax(1)))


def test_the_result_says_how_many_of_the_images_were_tested(run, capsys):
    result = run("trainer.limit_test_batches=2")
    assert (result["images"], result["found"]) == (128, 359)
    print_evaluation(result)
    assert capsys.readouterr().out.splitlines()[0].strip() == "digits: 128 of 359 test images"


def test_what_is_printed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    row = {"class": "a [b] :cat:", "images": 1200.0, "precision": 0.5, "recall": 0.25, "f1": 1 / 3}
    empty = {"class": "dog", "images": 0.0, "precision": None, "recall": None, "f1": None}
    print_evaluation(
        {
            "checkpoint": "run/checkpoints/best.ckpt", "epoch": 3, "step": 1500, "data": "pets", "root": "pets",
            "images": 1200, "found": 1250, "left_out": {"trained_on": 46, "unknown_classes": 4}, "image_size": 32,
            "precision": "32-true", "views": ["flip"], "flip_averaging": True, "matched": "by_position",
                "split": "test",
            "metrics": {"test/accuracy": 0.25}, "classes": [row, empty],
        }
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "pets: 1,200 of 1,250 test images"
    assert [cell.strip() for cell in lines[4].strip("│").split("│")] == [
        "a [b] :cat:", "1200", "0.5000", "0.2500", "0.3333",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[5].strip("│").split("│")] == ["dog", "0", *3 * "\N{EN DASH}"]
    assert [" ".join(line.split()) for line in lines[-7:]] == [
        "checkpoint run/checkpoints/best.ckpt (epoch 3, step 1,500)",
        "computed 32 pixels, 32-true, mean of each image and its mirror image",
        "classes by their position, not by name",
        "classes without images 1 of 2",
        "left out: 46 the network was trained on them",
        "left out: 4 of classes that the network does not know",
        "test/accuracy 0.2500",
    ]


# a network trained on a folder of class folders


PETS = ("cat", "frog", "ship")


def record_training_files(path, files):
    saved = torch.load(path, weights_only=True)
    saved["reslab"]["training_files"] = files
    torch.save(saved, path)


def write_images(folder, count, seed):
    """Write images of 16x16 with stripes, whose direction or width depends on the class, below much noise."""
    generator = np.random.default_rng(seed)
    period = {"cat": 2, "frog": 4, "ship": 8, "dog": 3}[folder.name]
    folder.mkdir(parents=True)
    for number in range(count):
        stripes = 255.0 * (np.arange(16) % period < period / 2)[:, None]
        pixels = np.clip(stripes + generator.normal(0, 80, (16, 16)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).convert("RGB").save(folder / f"{number:02}.png")


def train_on(root, folder):
    """Train on a folder of images. Without a record, a checkpoint is that of an older version."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose(
            "config",
            [
                f"folder={folder}", FP32, "model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "data=imagefolder",
                f"data.root={root}", "data.image_size=16", "data.batch_size=16", "data.num_workers=0", "logger=none",
                "data.augment=null",
            ],
        )  # fmt: skip
        result = fit.train(config)
    for path in (folder / "checkpoints").glob("*.ckpt"):
        record_training_files(path, build_data(config, stages=("fit",)).training_files())
    classifier = load_classifier(folder / "checkpoints" / "best.ckpt").classifier
    return SimpleNamespace(root=root, folder=folder, result=result, classifier=classifier)


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A run on the class folders cat, frog and ship. Tests must not change it."""
    root = tmp_path_factory.mktemp("pets")
    for number, name in enumerate(PETS):
        write_images(root / name, 20, seed=number)
    return train_on(root, tmp_path_factory.mktemp("run"))


@pytest.fixture
def test_pets(composed, pets):
    return lambda *overrides: evaluate(compose("evaluate", [f"checkpoint={pets.folder}", "trainer=cpu", *overrides]))


def other_images(root, *names, count=12):
    for number, name in enumerate(names):
        write_images(root / name, count, seed=100 + number)
    return ("data=imagefolder", f"data.root={root}", "data.num_workers=0")


def answers(pets, root, names):
    """Return the true and the predicted class of each image, computed without ResLab's reading and preprocessing."""
    files = [(path, name) for name in names for path in sorted((root / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path)) for path, _ in files]) / 255  # (N, 16, 16, 3)
    x = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # ImageNet's
    with torch.inference_mode():
        logits = pets.classifier.network(torch.from_numpy(x).permute(0, 3, 1, 2).float())
    return np.array([name for _, name in files]), np.array(PETS)[logits.argmax(1)]


@pytest.mark.slow
def test_own_class_folders_are_tested_on_the_images_of_the_runs_test(test_pets, pets):
    own = metrics_of_test(pets.result)
    for options in ((), (f"root={pets.root}",), ("data=imagefolder", f"data.root={pets.root}/../{pets.root.name}")):
        result = test_pets(*options)
        assert result["metrics"] == own
        assert (result["images"], result["found"], result["image_size"]) == (12, 12, 16)  # a fifth of each class


@pytest.mark.slow
def test_images_of_another_root_are_tested_without_exception_at_the_size_of_the_network(test_pets, pets, tmp_path):
    result = test_pets(*other_images(tmp_path, *PETS))
    true, predicted = answers(pets, tmp_path, PETS)
    assert result["images"] == 36
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert result["metrics"]["test/f1_macro"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert [row["images"] for row in result["classes"]] == [12, 12, 12]


def test_a_test_fraction_that_is_given_is_obeyed(test_pets, tmp_path):
    assert test_pets(*other_images(tmp_path, *PETS), "data.test_fraction=0.5")["images"] == 18


@pytest.mark.slow
def test_another_size_must_be_asked_for(test_pets, pets, tmp_path, caplog):
    options = other_images(tmp_path, *PETS)
    assert test_pets(*options)["image_size"] == 16
    assert "pixels" not in caplog.text
    for size in (8, 16):  # also without data=, and the network's own
        assert test_pets(f"data.image_size={size}")["image_size"] == size
    larger = test_pets(*options, "data.image_size=32")
    assert "images of 32 pixels are tested; the network was trained on 16" in caplog.messages
    pixels = [
        np.asarray(Image.open(path).resize((32, 32), Image.Resampling.BILINEAR))
        for name in PETS
        for path in sorted((tmp_path / name).iterdir())
    ]
    x = (np.stack(pixels) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.inference_mode():
        logits = pets.classifier.network(torch.from_numpy(x).permute(0, 3, 1, 2).float())
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(3).repeat_interleave(12)).item()
    assert larger["metrics"]["test/loss"] == pytest.approx(loss, rel=0.02)  # levels are rounded to whole ones


def test_the_size_of_the_run_changes_nothing_and_image_size_is_eval_size(composed, trained, caplog):
    def sized(option):
        network = load_classifier(Run(trained.folder).best)
        return with_given_sizes(network, compose("evaluate", ["checkpoint=a", option])).spec

    own = load_classifier(Run(trained.folder).best).spec
    for option in ("data.eval_size=8", "data.image_size=8"):
        assert sized(option) == own
        assert not sized(option).fitting(training=False).by_pillow
    assert caplog.messages == []
    assert sized("data.image_size=12") == sized("data.eval_size=12") == replace(own, eval_size=12)
    assert caplog.messages == ["images of 12 pixels are tested; the network was trained on 8"] * 2


def test_transparent_images_are_white_where_the_data_set_of_the_run_has_no_background(run, trained, tmp_path):
    for index, (image, label) in enumerate(zip(trained.images, trained.labels.tolist(), strict=True)):
        ink = Image.new("L", (8, 8), 0)  # black ink on a transparent ground
        ink.putalpha(Image.fromarray(255 - image[0].numpy()))
        (tmp_path / str(label)).mkdir(exist_ok=True)
        ink.save(tmp_path / str(label) / f"{index}.png")
    tested = run("data=imagefolder", f"data.root={tmp_path}", "data.num_workers=0")
    assert tested["metrics"]["test/accuracy"] == pytest.approx(trained.result["test/accuracy"])


@pytest.mark.parametrize("option", ["channels=3", "mean=[0.5,0.5,0.5]", "std=[1,1,1]", "background=[0,0,0]"])
def test_options_of_the_network_cannot_be_set(test_pets, tmp_path, option):
    with pytest.raises(UserError, match=rf"^data\.{option.split('=')[0]} is that of the network"):
        test_pets(*other_images(tmp_path, *PETS), f"data.{option}")


def test_classes_are_matched_by_their_names(test_pets, pets, tmp_path):
    options = other_images(tmp_path, "ship", "frog", count=9)  # labels 1 and 0 there, 2 and 1 in the network
    result = test_pets(*options)
    true, predicted = answers(pets, tmp_path, ("ship", "frog"))
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(true, predicted))
    macro = f1_score(true, predicted, labels=["frog", "ship"], average="macro")
    assert result["metrics"]["test/f1_macro"] == pytest.approx(macro)
    labels = [PETS.index(name) for name in true], [PETS.index(name) for name in predicted]
    assert_classes(result["classes"], *labels, list(PETS))


def test_a_single_class_is_tested(test_pets, pets, tmp_path):
    result = test_pets(*other_images(tmp_path, "frog"))
    true, predicted = answers(pets, tmp_path, ("frog",))
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(true, predicted))


def test_unknown_classes_are_refused_or_left_out(test_pets, pets, tmp_path, capsys):
    options = other_images(tmp_path, "cat", "dog", "frog", count=10)
    with pytest.raises(UserError) as raised:
        test_pets(*options)
    assert str(raised.value) == (
        f"{pets.folder}/checkpoints/best.ckpt does not know dog of data=imagefolder, only cat, frog, ship: "
        "unknown_classes=skip leaves out images of classes that it does not know, "
        "by_position takes them in the network's order"
    )
    result = test_pets(*options, "unknown_classes=skip")
    true, predicted = answers(pets, tmp_path, ("cat", "frog"))
    assert (result["images"], result["found"]) == (20, 30)
    assert result["left_out"] == {"trained_on": 0, "unknown_classes": 10, "unreadable": 0}
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(true, predicted))
    print_evaluation(result)
    assert "left out: 10            of classes that the network does not know" in capsys.readouterr().out


def test_no_known_class_is_one_line(test_pets, tmp_path):
    with pytest.raises(UserError, match="does not know dog of data=imagefolder, only cat, frog, ship"):
        test_pets(*other_images(tmp_path, "dog"), "unknown_classes=skip")


@pytest.mark.slow
def test_classes_are_matched_by_position_on_request(run, renamed, trained):
    with pytest.raises(UserError, match=r"does not know d0, d1, d2, .* of data=imagefolder"):
        run(*renamed)
    result = run(*renamed, "unknown_classes=by_position")
    assert result["metrics"] == pytest.approx(metrics_of_test(trained.result), rel=1e-4)
    assert [row["class"] for row in result["classes"]] == list("0123456789")  # the names of training
    assert result["matched"] == "by_position"


def test_by_position_needs_as_many_classes(run):
    with pytest.raises(UserError, match=r"by_position needs as many classes: .* knows 10 and data=synthetic has 7$"):
        run("data=synthetic", "data.num_classes=7", "data.num_images=70", "unknown_classes=by_position")


def test_classes_of_a_data_set_in_memory_are_matched(run, trained):
    with pytest.raises(UserError, match=r"does not know 10 of data=synthetic, only 0, 1, 2, 3, 4, 5, 6, 7, 8, 9: "):
        run("data=synthetic", "data.num_classes=11", "data.num_images=110")
    result = run("data=synthetic", "data.num_classes=11", "data.num_images=110", "unknown_classes=skip")
    assert (result["images"], result["left_out"]["unknown_classes"]) == (100, 10)
    generator = torch.Generator().manual_seed(1)  # as conf/data/synthetic.yaml's test images are drawn
    images = torch.randint(0, 256, (110, 3, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(110) % 11
    with torch.inference_mode():
        predicted = trained.classifier(images[labels < 10]).argmax(1)
    assert result["metrics"]["test/accuracy"] == pytest.approx(accuracy_score(labels[labels < 10], predicted))


def test_mnists_names_of_the_digits_are_those_of_other_data_sets():
    mnist = ["0 - zero", "1 - one", "2 - two"]
    assert labels_by_name(["2", "0", "3"], mnist) == [2, 0, -1]
    assert labels_by_name(mnist, ["0", "1", "2"]) == [0, 1, 2]
    assert labels_by_name(["1", "1 - one"], ["1 - one", "1"]) == [1, 0]  # the same name counts first


@pytest.mark.parametrize("known", [["dog", "cat", "dog"], ["7 - seven", "7 - sept"]])
def test_a_name_of_several_classes_is_no_label(known):
    assert labels_by_name(known, known) == list(range(len(known)))
    assert labels_by_name(["cow"], known) == [-1]
    with pytest.raises(UserError, match=r"^several classes of the network have the name (dog|7):"):
        labels_by_name(["cow", "dog", "7"], known)


@pytest.mark.parametrize("name", ["on_error=skip", "test_fraction=0.3"])
def test_options_of_other_data_sets_are_one_line(run, name):
    with pytest.raises(UserError, match=rf"^data=digits has no option data\.{name.split('=')[0]}$"):
        run(f"data.{name}")


# images that the network was trained on


@pytest.fixture(scope="module")
def fold(tmp_path_factory):
    """A run on a fold of the digits, which are in memory, so that no record says which images it was trained on."""
    folder = tmp_path_factory.mktemp("fold")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = ("data=digits", "data.folds=5", "data.fold=2", "model=resnet8", "trainer=cpu", FP32, "logger=none")
        config = compose("config", [*options, f"folder={folder}", "trainer.max_epochs=1"])
        return SimpleNamespace(folder=folder, result=fit.train(config))


@pytest.mark.parametrize("options", [(), ("data=digits",), ("data=digits", "data.root=elsewhere", "data.fold=2")])
def test_the_fold_of_a_run_is_what_it_is_tested_on(fold, composed, options):
    result = evaluate(compose("evaluate", [f"checkpoint={fold.folder}", "trainer=cpu", *options]))
    assert result["metrics"] == metrics_of_test(fold.result)
    assert result["images"] == fold.result["test/images"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("data=digits", "data.fold=1"), "data.fold"),
        (("data=digits", "data.folds=3", "data.fold=1"), "data.folds and data.fold"),
    ],
)
def test_another_fold_of_images_in_memory_than_that_of_the_run_is_refused(fold, composed, options, named):
    message = f"^{named} would divide data=digits otherwise than in the training.*: leave {named} out$"
    with pytest.raises(UserError, match=message):
        evaluate(compose("evaluate", [f"checkpoint={fold.folder}", "trainer=cpu", *options]))


def test_a_fold_is_refused_where_the_run_had_none(run):
    with pytest.raises(UserError, match=r"^data\.folds and data\.fold would divide data=digits otherwise"):
        run("data=digits", "data.folds=5", "data.fold=0")


def test_no_image_of_the_training_is_tested(test_pets, pets, tmp_path, caplog):
    """A part of the run's own folder is given as a data set of its own."""
    (tmp_path / "some").mkdir()
    for name in PETS:
        (tmp_path / "some" / name).symlink_to(pets.root / name)
    trained_on = 60 - test_pets()["images"]
    result = test_pets("data=imagefolder", f"data.root={tmp_path}/some", "data.num_workers=0")
    assert result["metrics"] == pytest.approx(metrics_of_test(pets.result))
    assert (result["images"], result["found"], result["left_out"]["trained_on"]) == (12, 60, trained_on)
    assert "left out 48 images that the network was trained or validated on" in caplog.messages


@pytest.fixture
def moved(pets, tmp_path):
    """A copy of the run's own folder."""
    return shutil.copytree(pets.root, tmp_path / "moved")


def test_another_division_of_the_own_folder_tests_no_image_of_the_training(test_pets, pets, moved, caplog):
    result = test_pets(f"root={moved}", "data.test_fraction=0.5")
    assert (result["images"], result["found"], result["left_out"]["trained_on"]) == (12, 30, 18)
    assert result["metrics"] == metrics_of_test(pets.result)


def test_an_own_folder_that_has_changed_is_said(test_pets, pets, moved, caplog):
    record = set(torch.load(pets.folder / "checkpoints" / "best.ckpt", weights_only=True)["reslab"]["training_files"])
    files = sorted(moved.rglob("*.png"))
    own = build_data(load_classifier(pets.folder / "checkpoints" / "best.ckpt").config, stages=("test",)).splits["test"]
    tested = {moved / str(own.images.paths[index]).removeprefix(f"{pets.root}/") for index in own.indices}
    removed = [file for file in files if file not in tested][:5]
    for file in removed:
        file.unlink()
    assert len(record) == 48
    result = test_pets(f"root={moved}")
    assert f"5 of the images that the network was trained or validated on are no longer in {moved}" in caplog.messages
    assert result["images"] + result["left_out"]["trained_on"] == result["found"]


def test_a_copy_of_the_own_folder_is_pointed_out(test_pets, moved, caplog):
    result = test_pets("data=imagefolder", f"data.root={moved}", "data.num_workers=0")
    assert result["images"] == 60
    assert caplog.messages == [
        "48 of the 60 test images have names of images that the network was trained or validated on: "
        f"if {moved} is the run's own folder, test with root={moved} instead of data=imagefolder"
    ]


@pytest.mark.slow
def test_a_shared_network_is_tested_on_no_image_of_its_training_or_points_them_out(composed, pets, tmp_path, caplog):
    """It does not say where its data were."""
    run = Run(shutil.copytree(pets.folder, tmp_path / "run"))
    run.write_settings(json.dumps(read_checkpoint(run.best)["reslab"]["config"]), [])
    options = [f"checkpoint={run.folder}", "format=share", f"output={tmp_path / 'shared'}", "verify=false"]
    share(compose("export", options), lambda shared: "a card")
    shared = [f"checkpoint={tmp_path / 'shared'}", "trainer=cpu", "data.num_workers=0"]
    assert evaluate(compose("evaluate", [*shared, f"root={pets.root}"]))["metrics"] == metrics_of_test(pets.result)
    line = r"^a shared network does not say where the images of data=imagefolder are: set root=…$"
    with pytest.raises(UserError, match=line):
        evaluate(compose("evaluate", shared))
    caplog.clear()
    assert evaluate(compose("evaluate", [*shared, "data=imagefolder", f"data.root={pets.root}"]))["images"] == 60
    assert caplog.messages == [
        "48 of the 60 test images have names of images that the network was trained or validated on: "
        f"if {pets.root} is the run's own folder, test with root={pets.root} instead of data=imagefolder"
    ]


@pytest.mark.parametrize("place", ["train", "old/deep", "test"])
def test_images_of_the_training_are_known_after_a_move_within_the_own_folder(test_pets, pets, moved, place, caplog):
    (moved / place).mkdir(parents=True)
    for name in PETS:
        (moved / name).rename(moved / place / name)
    checkpoint = moved / "run.ckpt"
    saved = torch.load(pets.folder / "checkpoints" / "best.ckpt", weights_only=True)
    saved["reslab"]["config"]["data"]["root"] = str(moved)
    torch.save(saved, checkpoint)
    result = test_pets(f"checkpoint={checkpoint}", "data=imagefolder", f"data.root={moved / place}")
    assert (result["images"], result["found"], result["left_out"]["trained_on"]) == (12, 60, 48)
    assert result["metrics"] == pytest.approx(metrics_of_test(pets.result))
    assert caplog.messages[-1].startswith(f"48 of them are in another folder within {moved} than in the training")
    if place == "test":  # now the test images of the own data set; the class folders of the training are elsewhere
        write_images(moved / "train" / "cat", 2, seed=7)
        write_images(moved / "train" / "frog", 2, seed=8)
        write_images(moved / "train" / "ship", 2, seed=9)
        assert test_pets(f"checkpoint={checkpoint}")["metrics"] == pytest.approx(metrics_of_test(pets.result))


def test_links_from_outside_into_the_moved_images_lead_to_images_of_the_training(test_pets, pets, moved, tmp_path):
    (moved / "train").mkdir()
    for name in PETS:
        (moved / name).rename(moved / "train" / name)
    (tmp_path / "links").symlink_to(moved / "train")
    saved = torch.load(pets.folder / "checkpoints" / "best.ckpt", weights_only=True)
    saved["reslab"]["config"]["data"]["root"] = str(moved)
    torch.save(saved, tmp_path / "run.ckpt")
    result = test_pets(f"checkpoint={tmp_path}/run.ckpt", "data=imagefolder", f"data.root={tmp_path}/links")
    assert (result["images"], result["left_out"]["trained_on"]) == (12, 48)


def test_the_own_class_folders_of_an_older_run_are_refused(test_pets, pets, tmp_path):
    saved = torch.load(pets.folder / "checkpoints" / "best.ckpt", weights_only=True)
    del saved["reslab"]["training_files"]
    torch.save(saved, tmp_path / "older.ckpt")
    for own in ((), ("data=imagefolder", f"data.root={pets.root}")):
        with pytest.raises(UserError, match=r"did not record on which images .* test it on other images"):
            test_pets(f"checkpoint={tmp_path}/older.ckpt", *own)
    result = test_pets(f"checkpoint={tmp_path}/older.ckpt", *other_images(tmp_path / "others", *PETS))
    assert result["images"] == 36


@pytest.mark.slow
def test_a_part_of_the_own_folder_is_tested_if_it_was_not_in_the_training(tmp_path):
    for number, name in enumerate(PETS):
        write_images(tmp_path / "images" / "train" / name, 10, seed=number)
        write_images(tmp_path / "images" / "test" / name, 4, seed=100 + number)
    split = train_on(tmp_path / "images", tmp_path / "run")
    older = shutil.copytree(split.folder, tmp_path / "older")
    saved = torch.load(older / "checkpoints" / "best.ckpt", weights_only=True)
    del saved["reslab"]["training_files"]
    torch.save(saved, older / "checkpoints" / "best.ckpt")

    def test(folder, place):
        options = [f"checkpoint={folder}", "trainer=cpu", "data=imagefolder", f"data.root={place}"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return evaluate(compose("evaluate", [*options, "data.num_workers=0"]))

    for folder in (split.folder, older):
        for place in (split.root, split.root / "test"):
            result = test(folder, place)
            assert (result["images"], result["found"]) == (12, 12)
            assert result["metrics"] == metrics_of_test(split.result)
    with pytest.raises(UserError, match=r"^the network was trained on all 30 test images of .*/train: "):
        test(split.folder, split.root / "train")
    with pytest.raises(UserError, match=r"of an older version, which did not record on which images of .*/images "):
        test(older, split.root / "train")


# where the data set is


@pytest.mark.slow
def test_a_data_set_that_moved_is_found_at_root(test_pets, pets, moved, monkeypatch, tmp_path):
    gone = pets.root.rename(pets.root.with_name("gone"))
    try:
        with pytest.raises(UserError, match=r"there is no folder .*pets.*: set root=…$"):
            test_pets()
        assert test_pets(f"root={moved}")["metrics"] == metrics_of_test(pets.result)
        assert test_pets(f"data.root={moved}")["metrics"] == metrics_of_test(pets.result)
    finally:
        gone.rename(pets.root)


def test_root_is_only_of_the_own_data_set(test_pets, tmp_path):
    with pytest.raises(UserError, match=r"^root= is the folder of the run's own data set: data=imagefolder takes"):
        test_pets(*other_images(tmp_path, *PETS), f"root={tmp_path}")


def test_no_test_set_is_one_line(test_pets, tmp_path):
    other_images(tmp_path / "train", *PETS)
    with pytest.raises(UserError, match=f"^data=imagefolder has no test set in {tmp_path}: data.root={tmp_path}/"):
        test_pets("data=imagefolder", f"data.root={tmp_path}", "data.num_workers=0")


def test_options_of_reading_can_be_given_for_the_own_data_set(test_pets, pets, moved):
    test_files = sorted(moved.rglob("*.png"))
    for file in test_files:
        file.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"set data\.on_error=skip"):
        test_pets(f"root={moved}", "data.batch_size=4")
    with pytest.raises(UserError, match=r"none of .* images can be read"):
        test_pets(f"root={moved}", "data.batch_size=4", "data.on_error=skip")


def test_images_that_cannot_be_read_are_counted(test_pets, pets, tmp_path, capsys):
    options = other_images(tmp_path, *PETS)
    for name in ("cat/03.png", "cat/04.png", "ship/00.png"):
        (tmp_path / name).write_bytes(b"broken")
    result = test_pets(*options, "data.on_error=skip", "data.batch_size=4")
    assert (result["images"], result["found"]) == (33, 36)
    assert result["left_out"] == {"trained_on": 0, "unknown_classes": 0, "unreadable": 3}
    print_evaluation(result)
    assert "left out: 3             they cannot be read" in capsys.readouterr().out


def test_a_limit_makes_no_image_unreadable(test_pets, tmp_path):
    options = other_images(tmp_path, *PETS)
    result = test_pets(*options, "data.on_error=skip", "data.batch_size=4", "trainer.limit_test_batches=2")
    assert (result["images"], result["found"], result["left_out"]["unreadable"]) == (8, 36, 0)
    for file in tmp_path.glob("cat/*.png"):
        file.write_bytes(b"broken")
    result = test_pets(*options, "data.on_error=skip", "data.batch_size=9", "trainer.limit_test_batches=2")
    assert (result["images"], result["left_out"]["unreadable"]) == (12, 6)  # each batch has three of each class


@pytest.mark.parametrize("limit", ["0", "0.0"])
def test_a_test_of_nothing_is_refused(run, limit):
    with pytest.raises(UserError, match=r"^trainer\.limit_test_batches=0 leaves nothing to test"):
        run(f"trainer.limit_test_batches={limit}")


def test_control_characters_in_the_name_of_a_class_are_escaped(run, capsys, monkeypatch):
    result = run()
    result["classes"][0]["class"] = "\x1b[31mred"
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "200")
    print_evaluation(result)
    out = capsys.readouterr().out
    assert "\x1b[31m" not in out
    assert r"\x1b[31mred" in out


def write_labels(file, rows):
    file.write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))


def test_a_labels_file_is_tested_with_all_of_its_images(test_pets, pets, tmp_path):
    root = tmp_path / "others"
    write_images(root / "cat", 9, seed=7)
    names = ["ship", "cat"]  # in another order than the network's
    rows = [(path.relative_to(root), names[number % 2]) for number, path in enumerate(sorted(root.rglob("*.png")))]
    write_labels(root / "labels.csv", rows)
    result = test_pets("data=imagefolder", f"data.root={root}", "data.labels=labels.csv")
    assert (result["images"], result["found"]) == (9, 9)
    assert {row["class"]: row["images"] for row in result["classes"] if row["images"]} == {"cat": 4, "ship": 5}


def test_a_labels_file_of_the_own_folder_tests_no_image_of_the_training(test_pets, pets, tmp_path):
    paths = sorted(path.relative_to(pets.root) for path in pets.root.rglob("*.png"))
    write_labels(tmp_path / "labels.csv", [(path, path.parent) for path in paths])
    result = test_pets("data=imagefolder", f"data.root={pets.root}", f"data.labels={tmp_path}/labels.csv")
    assert (result["images"], result["found"], result["left_out"]["trained_on"]) == (12, 60, 48)
    assert result["metrics"] == pytest.approx(metrics_of_test(pets.result))
