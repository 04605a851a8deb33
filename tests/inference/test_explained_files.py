"""Explanations of image files: overlays, the contact sheet and the list."""

import errno
import json
import shutil
import warnings

import numpy as np
import pytest
import torch
from conftest import with_precision
from PIL import Image

from reslab.errors import UserError
from reslab.inference.answering import Answering
from reslab.inference.explained_files import (
    CELL,
    LIST,
    SHEET,
    SHEET_IMAGES,
    Explained,
    Explanations,
    in_overlay_size,
    label_of,
    sheet_title,
    write_explanations,
)
from reslab.inference.explanation import grad_cam
from reslab.inference.prediction import predict
from reslab.newest import require_checkpoint
from reslab.run import Run


@pytest.fixture
def run(trained):
    """Explain images with the network of the trained digits."""
    return lambda images, **options: Explanations(require_checkpoint(trained.folder), images, device="cpu", **options)


def explained(name="a.png", predicted="cat", size=(12, 8)):
    row = {"image": name, "class": "cat", "probability": 0.5, "predicted": predicted, "layer": "layer3"}
    picture = torch.full((1, *size), 100, dtype=torch.uint8)
    return Explained(row, picture, torch.zeros(size), torch.ones(size, dtype=torch.bool))


def test_files_have_the_answers_of_the_test_and_the_maps_of_grad_cam(run, trained, digit_files):
    rows = [each.row for each in run(digit_files[:20])]
    heats = [each.heat for each in run(digit_files[:20])]
    assert [row["image"] for row in rows] == list(map(str, digit_files[:20]))
    best, labels = trained.probabilities[:20].max(1)
    assert [row["class"] for row in rows] == [row["predicted"] for row in rows] == [str(k) for k in labels.tolist()]
    np.testing.assert_allclose([row["probability"] for row in rows], best, atol=1e-5)
    assert {row["layer"] for row in rows} == {"global_pool"}
    maps = grad_cam(trained.classifier, trained.images[:20], labels)
    for heat, of_pixels in zip(heats, maps, strict=True):
        assert heat.shape == (256, 256)
        torch.testing.assert_close(heat[16::32, 16::32], of_pixels, atol=0.05, rtol=0)  # at the pixels' centres


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_the_probabilities_are_those_of_predict_in_the_precision_of_the_run(trained, digit_files, tmp_path, precision):
    checkpoint = shutil.copy(trained.folder / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    with_precision(checkpoint, precision)
    explained = list(Explanations(checkpoint, digit_files[:8], device="cpu"))
    predicted = [row["classes"][0] for row in predict(checkpoint, digit_files[:8], top=1, device="cpu")]
    assert [{name: each.row[name] for name in ("class", "probability")} for each in explained] == predicted
    in_float32 = list(Explanations(trained.folder / "checkpoints" / "best.ckpt", digit_files[:8], device="cpu"))
    difference = max(float((a.heat - b.heat).abs().max()) for a, b in zip(explained, in_float32, strict=True))
    assert all(each.heat.dtype == torch.float32 for each in explained)
    if precision == "64-true":
        assert difference < 1e-4
    else:
        assert 1e-4 < difference < 0.2


def test_of_logits_that_differ_in_the_last_bit_the_largest_is_explained(run, digit_files, monkeypatch):
    logits = torch.full((1, 10), 0.25)
    logits[0, 4] = torch.nextafter(logits[0, 4], torch.tensor(1.0))
    assert logits.softmax(1).unique().numel() == 1
    monkeypatch.setattr(Answering, "together", lambda *_: logits)
    (only,) = run(digit_files[0])
    assert (only.row["class"], only.row["predicted"]) == ("4", "4")


def test_an_output_that_is_not_finite_is_said_and_the_list_is_valid(overflowing, digit_files, tmp_path, caplog):
    write_explanations(Explanations(overflowing, digit_files[:2], device="cpu"), tmp_path)
    assert [row["probability"] for row in json.loads((tmp_path / LIST).read_text())] == [None, None]
    (line,) = caplog.messages
    assert line.startswith(f"2 images without a prediction ({digit_files[0]}, {digit_files[1]}): ")


def test_a_named_class_is_explained_with_its_own_probability(run, trained, digit_files):
    rows = [each.row for each in run(digit_files[:3], class_name="7", layer="layer2")]
    np.testing.assert_allclose([row["probability"] for row in rows], trained.probabilities[:3, 7], atol=1e-5)
    assert {(row["class"], row["layer"]) for row in rows} == {("7", "layer2")}
    assert [row["predicted"] for row in rows] == [str(k) for k in trained.probabilities[:3].argmax(1).tolist()]
    assert label_of("0", ["1 - one", "0 - zero"]) == 1
    with pytest.raises(UserError, match=r"^class=dgo is no class of this network: did you mean dog"):
        label_of("dgo", ["cat", "dog"])


def test_what_the_network_did_not_see_is_dark(run, digit_files, tmp_path):
    wide = Image.new("L", (24, 8), 200)
    wide.paste(Image.open(digit_files[0]), (8, 0))
    wide.save(tmp_path / "wide.png")
    (whole,) = run(tmp_path / "wide.png")
    (alone,) = run(digit_files[0])
    assert whole.row["probability"] == alone.row["probability"]
    side = whole.picture.shape[1]
    assert whole.picture.shape[2] == 3 * side
    assert whole.seen[:, side : 2 * side].all()
    assert not whole.seen[:, :side].any()
    assert not whole.seen[:, 2 * side :].any()
    assert whole.heat[:, :side].eq(0).all()
    pixels = np.asarray(whole.overlay())
    assert (pixels[:, : side - 1] == 70).all()  # 200 * UNSEEN


def test_unreadable_files_stop_or_are_left_out(run, digit_files, tmp_path, caplog):
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(UserError, match=r"cannot read .*a\.png"):
        list(run([tmp_path / "a.png", digit_files[0]]))
    (only,) = run([tmp_path / "a.png", digit_files[0]], on_error="skip")
    assert only.row["image"] == str(digit_files[0])
    with pytest.raises(UserError, match="none of 1 images can be read"):
        list(run([tmp_path / "a.png"], on_error="skip"))


def test_every_file_is_written_under_a_name_of_its_own(run, digit_files, tmp_path):
    names = ["7/x.png", "8/x.png", "8/ü<b>.png"]
    for name, file in zip(names, digit_files, strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(file.read_bytes())
    rows = write_explanations(run(tmp_path), tmp_path / "why")
    assert [row["overlay"] for row in rows] == ["0000_x.png", "0001_x.png", "0002__b_.png"]
    assert json.loads((tmp_path / "why" / LIST).read_text()) == rows
    assert sorted(path.name for path in (tmp_path / "why").iterdir()) == sorted(
        [LIST, SHEET, *(row["overlay"] for row in rows)]
    )
    assert [Image.open(tmp_path / "why" / row["overlay"]).size for row in rows] == [(256, 256)] * 3


def test_an_error_of_reading_is_not_blamed_on_the_output(tmp_path):
    def read():
        yield explained()
        raise OSError(errno.EIO, "Input/output error", "photos/b.png")

    with pytest.raises(OSError, match=r"photos/b\.png"):
        write_explanations(read(), tmp_path / "why")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"^output=.*file cannot be written: "):
        write_explanations([explained()], tmp_path / "file")


def test_python_gets_the_rows_of_the_list(trained, digit_files, tmp_path):
    rows = Run(trained.folder).explain(digit_files[:2], tmp_path / "why", class_name="3", device="cpu")
    assert rows == json.loads((tmp_path / "why" / LIST).read_text())
    np.testing.assert_allclose([row["probability"] for row in rows], trained.probabilities[:2, 3], atol=1e-5)


def test_an_image_without_evidence_is_named(run, trained, digit_files, caplog, monkeypatch):
    monkeypatch.setattr("reslab.inference.explained_files.grad_cam", lambda *given: torch.zeros(len(given[1]), 8, 8))
    list(run(digit_files[:1]))
    assert caplog.messages == [f"nothing in the maps of 1 image speaks for the class: {digit_files[0]}"]


@pytest.mark.slow
def test_the_sheet_shows_the_first_images_with_names_of_any_script(tmp_path, caplog):
    caplog.set_level("INFO")
    many = (explained(f"{number}.png") for number in range(SHEET_IMAGES + 5))
    assert len(write_explanations(many, tmp_path)) == SHEET_IMAGES + 5
    assert caplog.messages == [f"{tmp_path / SHEET} shows the first {SHEET_IMAGES} of {SHEET_IMAGES + 5} images"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_explanations([explained("$x^2$/Ж猫.png", "Кот $\\frac$")], tmp_path / "one")
    width, height = Image.open(tmp_path / "one" / SHEET).size
    assert width >= 2 * CELL
    assert height >= CELL


def test_a_title_has_the_class_and_the_predicted_one_if_it_is_another():
    assert sheet_title(explained().row) == "cat 50.0%\na.png"
    assert sheet_title(explained(predicted="dog").row) == "cat 50.0%, predicted dog\na.png"
    assert sheet_title(explained().row | {"image": "two\nlines.png"}) == "cat 50.0%\ntwo\\nlines.png"
    long = sheet_title(explained("x" * 400, "y" * 400).row | {"class": "z" * 400})
    assert [len(line) for line in long.splitlines()] == [44, 44]


@pytest.mark.parametrize(
    ("before", "after"),
    [((8, 8), (256, 256)), ((3, 1), (258, 86)), ((1, 100_000), (1, 768)), ((256, 10), (256, 10)),
     ((4000, 1000), (768, 192))],
)  # fmt: skip
def test_pictures_are_neither_tiny_nor_huge(before, after):
    assert in_overlay_size(Image.new("RGB", before)).size == after
