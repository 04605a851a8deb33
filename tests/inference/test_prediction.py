import json
import math
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bad_images import BAD, write_bad
from hydra import compose
from PIL import Image

from reslab.commands.printing import print_predictions
from reslab.errors import UserError
from reslab.inference.answering import Answering
from reslab.inference.loading import load_classifier
from reslab.inference.options import PREDICT_SCHEMA
from reslab.inference.prediction import Negatives, Predicted, Predictions, most_probable, predict
from reslab.inference.prediction_file import prediction_file
from reslab.newest import require_checkpoint
from reslab.training.answers import Answers


@pytest.fixture
def run(trained):
    """Classify images with the network of the trained digits."""
    return lambda images, device="cpu", **options: predict(
        require_checkpoint(trained.folder), images, device=device, **options
    )


# predictions


@pytest.fixture
def with_background(trained, tmp_path):
    """Return the checkpoint of the digits as that of image files with this background; "absent" is an older one."""

    def write(background):
        checkpoint = torch.load(require_checkpoint(trained.folder), weights_only=True)
        checkpoint["reslab"]["config"]["data"]["in_memory"] = False
        spec = checkpoint["reslab"]["spec"]
        if background == "absent":
            spec.pop("background", None)
        else:
            spec["background"] = background
        path = tmp_path / f"{background}.ckpt"
        torch.save(checkpoint, path)
        return path

    return write


@pytest.fixture
def drawn(digit_files, tmp_path):
    """A digit, black ink of the right density on a transparent ground, which is the digit over white, and black."""
    levels = np.asarray(Image.open(digit_files[0]))
    ink = Image.new("L", levels.shape[::-1], 0)
    ink.putalpha(Image.fromarray(255 - levels))
    ink.save(tmp_path / "ink.png")
    Image.new("L", ink.size, 0).save(tmp_path / "black.png")
    return [digit_files[0], tmp_path / "ink.png", tmp_path / "black.png"]


def test_transparent_images_are_white_where_the_data_set_has_no_background(trained, drawn, caplog):
    rows = [row["classes"] for row in predict(require_checkpoint(trained.folder), drawn, top=10, device="cpu")]
    assert rows[1] == rows[0] != rows[2]
    assert caplog.messages == [
        f"transparent parts of 1 image are white ({drawn[1]}): data=digits has no background of its own, and images "
        "must look like those of the training"
    ]


def test_transparent_images_are_read_as_the_checkpoint_says(with_background, drawn, caplog):
    for background, same in (([255, 255, 255], 0), ([0, 0, 0], 2), (None, 2), ("absent", 2)):
        rows = [row["classes"] for row in predict(with_background(background), drawn, top=10, device="cpu")]
        assert rows[1] == rows[same]
        assert rows[0] != rows[2]
    assert caplog.messages == []


def test_most_images_being_as_bright_as_negatives_is_said(trained, digit_files, tmp_path, caplog):
    checkpoint, levels = require_checkpoint(trained.folder), []
    for number, file in enumerate(digit_files[:2]):
        negative = 255 - np.asarray(Image.open(file))
        Image.fromarray(negative).save(tmp_path / f"{number}.png")
        levels.append(negative.mean() / 255)
    negatives = [tmp_path / "0.png", tmp_path / "1.png"]
    predict(checkpoint, [*negatives, *digit_files[:2]], device="cpu")
    assert caplog.messages == []
    usual = load_classifier(checkpoint).spec.mean[0]
    predict(checkpoint, [*negatives, digit_files[0]], device="cpu")
    assert caplog.messages == [
        f"2 of 3 as bright as a negative (a mean of {np.mean(levels):.2f}, in the training {usual:.2f}): if dark and "
        "light are exchanged, invert the images"
    ]


@pytest.mark.parametrize(("usual", "is_said"), [(0.3, True), (0.7, False), (0.36, False), (0.47, False), (0.0, False)])
def test_photographs_have_no_negatives(usual, is_said, caplog):
    negatives = Negatives(usual)
    for levels in ([0.545, 0.95], [1 - usual]):
        negatives.add(torch.tensor(levels))
    negatives.report()
    assert bool(caplog.messages) == is_said


def test_predictions_are_the_networks_probabilities(run, trained, digit_files):
    predictions = run([str(path) for path in digit_files], top=3)
    assert [row["image"] for row in predictions] == [str(path) for path in digit_files]
    best = trained.probabilities.topk(3)
    for row, probabilities, labels in zip(predictions, best.values.tolist(), best.indices.tolist(), strict=True):
        assert [entry["class"] for entry in row["classes"]] == [str(label) for label in labels]
        assert [entry["probability"] for entry in row["classes"]] == pytest.approx(probabilities, abs=1e-5)
    right = [row["classes"][0]["class"] == Path(row["image"]).parent.name for row in predictions]
    assert sum(right) / 359 == pytest.approx(trained.result["test/accuracy"])


def test_of_equal_probabilities_the_lower_label_comes_first():
    given = torch.tensor([[0.1] * 10, [0, 0.25, 0, 0.125, 0, 0.25, 0, 0.25, 0.125, 0]])
    batch = Predicted(["a", "b"], given.log(), given)
    assert most_probable(batch, 3)[1].tolist() == [[0, 1, 2], [1, 5, 7]]
    values, labels = most_probable(batch, "all")
    assert labels.tolist() == [[*range(10)], [1, 5, 7, 3, 8, 0, 2, 4, 6, 9]]
    assert values.equal(given.gather(1, labels))
    assert most_probable(batch, 99)[1].equal(labels)


@pytest.mark.parametrize("temperature", [None, 1.5])
def test_of_logits_that_differ_in_the_last_bit_the_largest_comes_first_as_in_a_test(temperature):
    second = torch.tensor(0.25)
    first = torch.nextafter(second, torch.tensor(1.0))
    logits = torch.tensor([[second, 0, first]])
    probabilities = Answering([], [], [], temperature).probabilities(logits)
    assert probabilities[0, 0] == probabilities[0, 2]
    values, labels = most_probable(Predicted(["a"], logits, probabilities), 3)
    assert labels.tolist() == [[2, 0, 1]]
    assert labels[0, 0] == Answers(logits, torch.tensor([0]), torch.tensor([0]), list("abc")).predicted[0]
    assert values.equal(probabilities[:, [2, 0, 1]])


def test_an_output_that_is_not_finite_is_said_and_the_file_is_valid(overflowing, digit_files, tmp_path, caplog):
    files = [str(path) for path in digit_files[:3]]
    options = {"batch_size": 2, "num_workers": 0, "on_error": "stop", "device": "cpu"}
    for name in ("a.json", "a.csv"):
        predictions = Predictions(overflowing, files, **options)
        with prediction_file(tmp_path / name, predictions.classes, 1) as write:
            for batch in predictions:
                write(batch)
        assert caplog.messages == [
            f"3 images without a prediction ({', '.join(files)}): the output of the network is not finite, so that the "
            "probabilities are nan, in .json null, and the class that is named means nothing"
        ]
        caplog.clear()

    def refuse(constant):
        raise AssertionError(constant)

    rows = json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    assert [[each["probability"] for each in row["classes"]] for row in rows] == [[None]] * 3
    assert pd.read_csv(tmp_path / "a.csv")["probability"].isna().all()
    assert math.isnan(predict(overflowing, files[0], device="cpu")[0]["classes"][0]["probability"])


def test_the_batch_size_changes_nothing(run, digit_files):
    files = [str(path) for path in digit_files[:5]]
    one, two = run(files, batch_size=1), run(files, batch_size=2)
    for first, second in zip(one, two, strict=True):
        assert [entry["class"] for entry in first["classes"]] == [entry["class"] for entry in second["classes"]]
        assert first["classes"][0]["probability"] == pytest.approx(second["classes"][0]["probability"], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_processes_change_nothing(run, digit_files, tmp_path, caplog, num_workers):
    bad = list(write_bad(tmp_path / "bad").values())
    images = [*map(str, digit_files[:7]), str(tmp_path / "bad"), *map(str, digit_files[7:40])]
    alone = run(images, batch_size=4, on_error="skip")
    said, children = caplog.messages[:], len(multiprocessing.active_children())
    caplog.clear()
    assert run(images, batch_size=4, on_error="skip", num_workers=num_workers) == alone
    assert caplog.messages == said
    assert len(alone) == 40
    assert len(multiprocessing.active_children()) == children
    with pytest.raises(UserError, match=f"^cannot read {bad[0]} "):
        run(images, batch_size=4, num_workers=num_workers)
    assert len(multiprocessing.active_children()) == children


def test_a_top_above_the_number_of_classes_returns_all_classes(run, digit_files):
    (row,) = run(str(digit_files[0]), top=99)
    assert run(str(digit_files[0]), top="all") == [row]
    assert {entry["class"] for entry in row["classes"]} == set("0123456789")
    probabilities = [entry["probability"] for entry in row["classes"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


# lines


def test_lines_name_images_as_they_are_and_align_their_classes(capsys):
    def row(image, name):
        return {"image": image, "classes": [{"class": name, "probability": 0.5}, {"class": "b", "probability": 0.25}]}

    print_predictions(
        [[row("a[b].png", ":cat:"), row("猫.png", "c")], [row("a\nlonger.png", "d")], [row("e.png", "f")]]
    )
    assert capsys.readouterr().out.splitlines() == [
        "a[b].png  :cat: 50.0%, b 25.0%",
        "猫.png    c 50.0%, b 25.0%",
        r"a\nlonger.png  d 50.0%, b 25.0%",
        "e.png          f 50.0%, b 25.0%",
    ]


# mistakes


@pytest.mark.parametrize("images", ["2024", "[a.png,2024]", "photos"])
def test_images_may_be_named_by_a_number(composed, images):
    PREDICT_SCHEMA.check(compose("predict", overrides=["checkpoint=none", f"images={images}"]))


def test_another_kind_of_output_is_refused_before_any_work(composed):
    config = compose("predict", overrides=["checkpoint=none", "images=none", "output=classes.txt"])
    with pytest.raises(
        UserError,
        match=r"^output=classes\.txt must be a file whose name ends in \.csv, \.parquet or \.json, or be left out$",
    ):
        PREDICT_SCHEMA.check(config)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("top", 0, "an integer of at least 1 or all"),
        ("num_workers", -1, "an integer from 0 to 1024"),
        ("batch_size", 0, "an integer from 1 to 1000000"),
        ("on_error", "go", "one of stop, skip"),
    ],
)
def test_a_wrong_argument_is_one_line(run, digit_files, option, value, words):
    with pytest.raises(UserError, match=f"^{option}={value} must be {words}$"):
        run(digit_files[0], **{option: value})


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_image_is_one_line(run, digit_files, tmp_path, kind):
    path = write_bad(tmp_path)[kind]
    if not path.is_file():
        pytest.skip("it is not among the images of a folder or glob, nor a file")
    with pytest.raises(UserError) as error:
        run([str(digit_files[0]), str(path)])
    assert str(error.value).startswith(f"cannot read {path} (")
    assert str(error.value).endswith("): remove it, or set on_error=skip to leave it out")
    assert "\n" not in str(error.value)


def test_unreadable_images_are_left_out_and_counted(run, digit_files, tmp_path, caplog):
    bad = list(write_bad(tmp_path / "bad").values())
    files = [str(path) for path in digit_files[:3]]
    expected = run(files)
    images = [files[0], str(tmp_path / "bad"), *files[1:]]
    for found, alone in zip(run(images, on_error="skip", batch_size=2), expected, strict=True):
        assert (found["image"], found["classes"][0]["class"]) == (alone["image"], alone["classes"][0]["class"])
        assert found["classes"][0]["probability"] == pytest.approx(alone["classes"][0]["probability"], abs=1e-5)
    assert caplog.messages[-1].startswith(
        f"left out {len(bad)} of {3 + len(bad)} images, which cannot be read: {bad[0]} ("
    )
    with pytest.raises(
        UserError, match=rf" and {len(bad) - 3} more: remove them, or set on_error=skip to leave them out$"
    ):
        run(images)
    with pytest.raises(UserError, match=r": remove it, or set on_error=skip to leave it out$"):
        run(images, batch_size=1)  # it ends at the first one
    with pytest.raises(UserError, match=rf"^none of {len(bad)} images can be read: "):
        run(str(tmp_path / "bad"), on_error="skip")


def test_names_that_are_not_valid_text_are_written_and_stay_different(run, digit_files, tmp_path):
    for name in (b"a b\xff\xe7\x8c\xab.png", b"a b\xfe\xe7\x8c\xab.png"):
        (tmp_path / os.fsdecode(name)).write_bytes(digit_files[0].read_bytes())
    rows = run(str(tmp_path))
    assert [row["image"] for row in rows] == [f"{tmp_path}/a b\\xfe猫.png", f"{tmp_path}/a b\\xff猫.png"]
    expected = run(str(digit_files[0]))[0]["classes"][0]["class"]
    assert [row["classes"][0]["class"] for row in rows] == [expected, expected]


def test_no_gpu_is_one_line(run, digit_files):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"^device=cuda, but torch .* finds no CUDA GPU here"):
        run(str(digit_files[0]), device="cuda")
