import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reslab.configuration import ZOO
from reslab.data.spec import ImageSpec
from reslab.errors import UserError
from reslab.inference.export.share import Shared
from reslab.reports.card import card, images, text
from reslab.run import Run
from reslab.training.answers import Answers, read_answers, write_answers


@pytest.fixture
def run(trained, tmp_path):
    """The trained digits, with settings."""
    run = Run(shutil.copytree(trained.folder, tmp_path / "run"))
    run.write_settings(json.dumps(trained.classifier.record["config"]), ["model=resnet8", "seed=42"])
    return run


def shared_of(run, folder=Path("mine"), classes=None, licence=None, overrides=("model=resnet8", "seed=42")):
    spec = ImageSpec([str(digit) for digit in range(10)] if classes is None else classes, 1, 8, [0.31], [0.38])
    return Shared(run, folder, [*overrides], spec, 311_000, "359 of 359 test images of digits", licence)


def test_the_card_says_what_the_result_and_the_answers_say(run):
    answers, _ = read_answers(run.answers_file)
    made = card(shared_of(run, licence="CC0"))
    right = int(answers.right.sum())
    assert made.startswith("# mine\n\nresnet8, trained on digits with ResLab: 75,002 parameters")
    assert f"| test/accuracy | {right / 359:.4f} | 0." in made
    assert f"359 test images, {right} right." in made
    for row in answers.confusion.matrix().tolist():
        assert f" | {' | '.join(str(count or '') for count in row)} |" in made
    assert "    python src/train.py model=resnet8 seed=42\n" in made
    assert "UCI optical recognition of handwritten digits" in made
    assert "CC BY 4.0" in made
    assert made.rstrip().endswith("Of the weights: CC0. Of the data: see above.")


def test_a_network_of_the_zoo_is_used_by_its_name(run):
    made = card(shared_of(run, ZOO / "digits_resnet8"))
    assert "    python src/predict.py zoo/digits_resnet8 photo.png\n" in made
    assert " model.weights=zoo:digits_resnet8 data=" in made
    assert "reslab.load('zoo/digits_resnet8')" in made
    assert str(ZOO) not in made


@pytest.mark.parametrize(
    ("model", "overrides", "options"),
    [
        ("resnet8", ["seed=1"], "model=resnet8"),
        (
            "resnet8_fast",
            ["experiment=a", "model.widths=[16, 64]", "model.freeze=2"],
            "model=resnet8_fast 'model.widths=[16, 64]'",
        ),
        ("resnet8", ["model=resnet20", "model.weights=b.pth"], "model=resnet20"),
        ("own", ["+model.depth=3"], "'model=…' +model.depth=3"),
    ],
)
def test_the_command_that_trains_on_has_a_network_of_the_same_shapes(run, model, overrides, options):
    run.result_file.write_text(json.dumps(run.result | {"model": model}))
    made = card(shared_of(run, overrides=overrides))
    assert f"    python src/train.py {options} model.weights=mine data=…\n" in made


def test_the_test_of_a_network_of_ones_own_images_names_their_folder(run):
    for data, root in (("imagefolder", " root=…"), ("imagenet", " root=…"), ("digits", "")):
        run.result_file.write_text(json.dumps(run.result | {"data": data}))
        made = card(shared_of(run))
        assert f"    python src/evaluate.py mine{root}\n" in made


def test_without_answers_the_accuracy_has_its_interval_and_the_card_says_why_there_is_no_matrix(run):
    def values(made):
        return [line.split(" | ")[:2] for line in made.splitlines() if line.startswith("| test/")]

    with_answers = card(shared_of(run))
    run.answers_file.unlink()
    made = card(shared_of(run))
    assert values(made) == values(with_answers)
    assert (with_answers.count("(bootstrap)"), made.count("(bootstrap)")) == (2, 0)
    assert [made.count("(Wilson)"), with_answers.count("(Wilson)")] == [2, 2]
    assert "## Confusion matrix\n\nThe folder that was shared does not have the answers to single test images" in made
    older = {name: value for name, value in run.result.items() if not name.startswith("test/images")}
    run.result_file.write_text(json.dumps(older))
    made = card(shared_of(run))
    assert values(made) == values(with_answers)
    assert (made.count("(Wilson)"), made.count("test images, ")) == (0, 0)


@pytest.mark.parametrize(
    ("theirs", "portable", "missing"),
    [
        ("model.weights=/home/me/b.pth", "model.weights='b.pth'", "model.weights='b.pth'"),
        ("model.weights=outputs/a", "model.weights=outputs/a", "model.weights=outputs/a"),
        ("model.weights=zoo:digits_resnet8", "model.weights=zoo:digits_resnet8", None),
        ("model.weights=IMAGENET1K_V1", "model.weights=IMAGENET1K_V1", None),
        ("model.weights=null", "model.weights=null", None),
        ("data.labels=/home/me/l.csv", "data.labels='l.csv'", "data.labels='l.csv'"),
    ],
)
def test_the_recipe_says_what_only_the_author_has(run, theirs, portable, missing):
    run.write_settings(json.dumps(run.config), ["model=resnet8", theirs])
    made = card(shared_of(run, overrides=["model=resnet8", portable]))
    assert ("Only the author has what " in made) == (missing is not None)
    assert missing is None or f"Only the author has what {missing} names: " in made
    assert "data.root=" not in made


def test_the_recipe_promises_no_more_than_the_run_does(run):
    promise = "The same command gives the same weights"
    commit, result = "0123456789ab" + 28 * "0", run.result
    run.result_file.write_text(json.dumps(result | {"git_commit": f"{commit}-dirty-abcdef", "device": "cpu"}))
    assert f"commit 0123456789ab-dirty-abcdef. {promise}" in card(shared_of(run))
    run.result_file.write_text(json.dumps(result | {"git_commit": commit, "device": "NVIDIA H200"}))
    made = card(shared_of(run))
    assert "commit 0123456789ab.\n" in made
    assert promise not in made
    lengths = [{"step": 0, "trainer.max_epochs": 2}, {"step": 40, "trainer.max_epochs": 4}]
    run.result_file.write_text(json.dumps(result | {"requested": lengths}))
    made = card(shared_of(run))
    assert r"with another length (max\_epochs=2, from step 40 max\_epochs=4), and the command has the last one" in made
    assert promise not in made


def test_answers_of_other_weights_are_one_line(run):
    answers, step = read_answers(run.answers_file)
    write_answers(run.answers_file, answers, step + 1)
    with pytest.raises(UserError, match="the answers are of step"):
        card(shared_of(run))


def test_of_many_classes_the_most_frequent_mistakes_are_listed(run):
    logits = torch.eye(30).repeat(2, 1)
    labels = torch.arange(30).repeat(2)
    labels[:3] = torch.tensor([1, 2, 2])  # images 0 and 1 are mistakes
    names = [f"c{number}" for number in range(30)]
    write_answers(run.answers_file, Answers(logits, labels, torch.arange(60), names), run.result["best_step"])
    result = run.result | {"test/accuracy": 58 / 60, "test/images": 60}
    run.result_file.write_text(json.dumps(result))
    made = card(shared_of(run, classes=names))
    assert "| c1 | c0 | 1 |" in made
    assert "| c2 | c1 | 1 |" in made
    assert "between 30 classes" in made


def test_images_of_ones_own_are_described_by_their_author(run):
    run.result_file.write_text(json.dumps(run.result | {"data": "imagefolder"}))
    made = card(shared_of(run))
    assert "Write here where they come from" in made
    assert "\n\nAdd `data.root=<the folder of the images>`.\n" in made
    run.result_file.write_text(json.dumps(run.result | {"data": "../data/digits"}))
    assert "Write here where they come from" in card(shared_of(run))


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("T-shirt/top", "T-shirt/top"), ("a|b", r"a\|b"), ("<img src=x>", "&lt;img src=x&gt;"),
        ("[a](b)", r"\[a\](b)"), ("a\n# b", r"a\\n\# b"), ("`a`", r"\`a\`"), ("\udcff", r"\\xff"), ("日本", "日本"),
    ],
)  # fmt: skip
def test_text_of_a_stranger_is_only_text(raw, shown):
    assert text(raw) == shown


@pytest.mark.parametrize(
    ("channels", "stored", "kind", "last"),
    [
        (1, 1, "grey", ""),
        (3, 3, "RGB", ""),
        (3, 1, "grey", ", then repeated to three channels"),
        (
            1, 3, "RGB",
            ", then added to one channel with the weights 0.299, 0.587, 0.114; a grey image is repeated to RGB before",
        ),
    ],
)  # fmt: skip
def test_the_card_describes_the_images_as_they_are_normalised(run, channels, stored, kind, last):
    spec = ImageSpec(["a", "b"], channels, 8, [0.5] * stored, [0.25] * stored)
    mean, std = (", ".join([number] * stored) for number in ("0.5000", "0.2500"))
    described = f"from 0 to 1 with mean {mean} and standard deviation {std} subtracted and divided{last}; `predict`"
    assert f"8x8 pixels, {kind}, {described} does it." in "".join(images(replace(shared_of(run), spec=spec)))


def test_the_card_says_what_the_calibration_is(run):
    assert "calibration," not in card(shared_of(run))
    stored = {
        "temperature": 1.25, "standard_error": 0.0625, "images": 143, "views": ["flip"],
        "calibration_error_before": 0.1, "calibration_error_after": 0.02,
    }  # fmt: skip
    made = card(replace(shared_of(run), calibration=stored))
    assert "## Calibration\n\nThe weights have a calibration, for the views flip: the temperature 1.2500 with" in made
    assert "fitted on 143 validation images, on which it changed the calibration error from 0.1000 to 0.0200." in made
