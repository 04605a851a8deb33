"""Images whose label may be wrong, found by the runs of a cross-validation."""

import csv
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import run as run_command
from fake_runs import make_run
from PIL import Image
from sklearn.datasets import load_digits

from reslab.errors import UserError
from reslab.reports.label_errors import find_suspects, read_folds
from reslab.reports.label_errors_page import PAGE, TABLE, write_suspects
from reslab.training.answers import Answers, write_answers

CLASSES = ["cat", "dog", "<b>cow</b>"]
FOLDS, IMAGES = 3, 60  # IMAGES of each fold
WRONG = {(0, 5): 1, (1, 7): 2, (2, 31): 0}  # (fold, position): the label that the network gives instead


def answers_of(fold, seed=1):
    """Answers that are sure of the label, but for WRONG; another seed is less sure."""
    labels = torch.arange(IMAGES) % 3
    believed = labels.clone()
    for (number, position), label in WRONG.items():
        if number == fold:
            believed[position] = label
    logits = torch.nn.functional.one_hot(believed, 3).float() * (6 / seed)
    logits += 0.1 * torch.rand(logits.shape, generator=torch.Generator().manual_seed(fold))
    files = [f"{CLASSES[label]}/{fold}_{number}.png" for number, label in enumerate(labels.tolist())]
    return Answers(logits, labels, torch.arange(IMAGES) + IMAGES * fold, CLASSES, files)


def add_run(folder, fold, seed=1, answers=None, step=8, result=(), **options):
    answers = answers or answers_of(fold, seed)
    found = {"fold_split": "test", "steps": 8, "best_step": 8, "data_checksum": f"of {fold} and {seed}"}
    found |= {"test/images": len(answers), "test/images_available": len(answers)} | dict(result)
    name = folder / f"{fold}_seed={seed}"
    make_run(
        name, accuracy=0.9, result=found, seed=seed,
        **{"data__folds": FOLDS, "data__fold": fold, "data__val_fraction": 0.1} | options,
    )  # fmt: skip
    write_answers(name / "answers.safetensors", answers, step)


@pytest.fixture
def sweep(tmp_path):
    for fold in range(FOLDS):
        for seed in (1, 2):
            add_run(tmp_path / "sweep", fold, seed)
    return tmp_path / "sweep"


def test_the_images_that_no_network_agrees_with_are_the_suspects(sweep):
    folds = read_folds(sweep, None, "cpu")
    found = find_suspects(folds)
    suspects = found.ranked
    assert {(each.fold, each.position): each.suggested for each in suspects} == WRONG
    assert [each.given for each in suspects] == [each.position % 3 for each in suspects]
    assert [each.given_probability for each in suspects] == sorted(each.given_probability for each in suspects)
    for each in suspects:
        of_seeds = [answers_of(each.fold, seed).probabilities[each.position] for seed in (1, 2)]
        mean = torch.stack(of_seeds).double().mean(0)
        assert each.given_probability == pytest.approx(float(mean[each.given]))
        assert each.suggested_probability == pytest.approx(float(mean.max()))


def test_the_list_and_the_page_name_them_as_text(sweep, tmp_path, caplog):
    folds = read_folds(sweep, None, "cpu")
    found = find_suspects(folds)
    suspects = found.ranked
    write_suspects(folds, found, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / TABLE).open()))
    assert [row["path"] for row in rows] == [folds[each.fold].answers.names[each.position] for each in suspects]
    pairs = [(CLASSES[each.given], CLASSES[each.suggested]) for each in suspects]
    assert [(row["given"], row["suggested"]) for row in rows] == pairs
    page = (tmp_path / "out" / PAGE).read_text()
    assert f"3 suspects; about {found.estimate} of 180 labels are estimated to be wrong" in page
    assert "<b>cow" not in page
    assert page.count("<figure") == 3
    assert "shows no pictures of" in caplog.text  # the runs have no checkpoints


def test_images_in_memory_are_named_by_their_fold(tmp_path):
    """Each fold numbers its images from 0."""
    for fold in range(FOLDS):
        answers = replace(answers_of(fold), files=None, indices=torch.arange(IMAGES))
        add_run(tmp_path / "sweep", fold, answers=answers)
    folds = read_folds(tmp_path / "sweep", None, "cpu")
    write_suspects(folds, find_suspects(folds), tmp_path / "out")
    paths = {row["path"] for row in csv.DictReader((tmp_path / "out" / TABLE).open())}
    assert paths == {f"fold {fold}: test {position}" for fold, position in WRONG}
    assert (tmp_path / "out" / PAGE).read_text().count("fold 2: test 31") == 2  # below the picture, and its title


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda sweep: add_run(sweep, 0, 3, answers_of(1)), r"0_seed=3 has other images in its fold than .*0_seed=1"),
        (lambda sweep: add_run(sweep, 0, 3, step=4), r"answers.safetensors is of step 4, and the result .* of step 8"),
        (lambda sweep: add_run(sweep, 0, 3, result={"test/images_available": 70}), "0_seed=3 has tested a part of its"),
        (lambda sweep: add_run(sweep, 0, 3, result={"fold_split": "val"}), "has another kind of fold than"),
        (lambda sweep: add_run(sweep, 0, 3, data__name="mnist"), "has another data set than .*0_seed=1: give the runs"),
        (lambda sweep: add_run(sweep, 0, 3, data__folds=4), "has another data set than"),
        (lambda sweep: add_run(sweep, 0, 3, data__noise=100), "has another data set than"),  # an option of its own
        (
            lambda sweep: add_run(sweep, 0, 3, data__fold=None),
            "is no run of a cross-validation: train with",
        ),
        (
            lambda sweep: make_run(sweep / "9", data__folds=3, data__fold=0),
            "9 is unfinished, and each fold needs",
        ),
        (
            lambda sweep: (sweep / "0_seed=1/answers.safetensors").unlink(),
            "answers.safetensors is missing: only a",
        ),
    ],
)
def test_runs_that_do_not_belong_together_are_one_line(sweep, change, line):
    change(sweep)
    with pytest.raises(UserError, match=line):
        read_folds(sweep, None, "cpu")


def test_every_image_is_in_one_fold(tmp_path):
    for fold in (0, 2):
        add_run(tmp_path / "a", fold)
    with pytest.raises(UserError, match=r"fold 1 of 3 has no run in .*a: train with -m data.folds=5"):
        read_folds(tmp_path / "a", None, "cpu")
    add_run(tmp_path / "a", 1, answers=answers_of(0))
    with pytest.raises(UserError, match=r"cat/0_0.png is in two folds: the images have changed"):
        read_folds(tmp_path / "a", None, "cpu")


def test_validation_folds_of_other_images_are_one_line(tmp_path):
    """Where the fold is the test, the seed divides the other images, and their checksum says nothing."""
    for fold in range(FOLDS):
        add_run(tmp_path, fold, result={"fold_split": "val", "data_checksum": "one"})
    add_run(tmp_path, 0, 2, result={"fold_split": "val", "data_checksum": "another"})
    with pytest.raises(UserError, match=r"0_seed=2 has other images \(data_checksum\) than .*0_seed=1: give"):
        read_folds(tmp_path, None, "cpu")


def test_runs_of_other_configurations_are_not_averaged(sweep):
    add_run(sweep, 0, 3, optimizer__lr=0.0001)
    line = f"^the runs of {sweep} are of several configurations, which differ in optimizer.lr: give the runs of one"
    with pytest.raises(UserError, match=line):
        read_folds(sweep, None, "cpu")


def test_a_fold_that_was_repeated_with_its_seed_does_not_count_twice(sweep):
    (sweep / "0_seed=1").rename(sweep / "again")
    add_run(sweep, 0, 1)
    with pytest.raises(UserError, match=r"0_seed=1 and .*again have the same seed and fold: give the runs of one"):
        read_folds(sweep, None, "cpu")


def test_an_image_that_cannot_be_read_is_no_part_that_was_not_tested(sweep):
    add_run(sweep, 0, 3, result={"test/images_available": IMAGES + 1, "test/images_unreadable": 1})
    assert len(read_folds(sweep, None, "cpu")) == FOLDS


def test_answers_of_nan_are_one_line(tmp_path):
    for fold in range(FOLDS):
        add_run(
            tmp_path, fold, answers=Answers(torch.full((3, 3), torch.nan), torch.arange(3), torch.arange(3), CLASSES)
        )
    with pytest.raises(UserError, match="a network of this fold answers NaN"):
        read_folds(tmp_path, None, "cpu")


def test_without_cleanlab_one_line_says_what_installs_it(sweep, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    with pytest.raises(UserError, match=r"needs cleanlab: pip install -e '\.\[label_errors\]'$"):
        find_suspects(read_folds(sweep, None, "cpu"))


@pytest.mark.slow
def test_most_of_twenty_wrong_labels_are_among_the_first_suspects(tmp_path):
    """Digits as class folders, 20 of them in a wrong one. Of 30 images drawn by chance, 0.3 would be."""
    digits, generator = load_digits(), np.random.default_rng(0)
    wrong = generator.choice(len(digits.target), 20, replace=False)
    given = digits.target.copy()
    given[wrong] = (given[wrong] + generator.integers(1, 10, 20)) % 10
    files = [f"{label}/{number:04}.png" for number, label in enumerate(given)]
    for file, image in zip(files, digits.images, strict=True):
        (tmp_path / "photos" / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).astype("uint8")).save(tmp_path / "photos" / file)
    data = ["data=imagefolder", "data.root=photos", "data.image_size=8", "data.in_memory=true", "data.batch_size=64"]
    data += ["data.augment.flip=false", "data.augment.scale=null", "data.augment.crop=1"]
    training = ["model=resnet8", "trainer=cpu", "trainer.max_epochs=8", "trainer.precision=32-true", "logger=none"]
    folds = ["data.folds=5", "data.fold=range(5)", "hydra.sweep.dir=sweep"]
    done = run_command("train", "-m", *data, *training, *folds, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = run_command("find_label_errors", "sweep", cwd=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    suspects = [row["path"] for row in csv.DictReader((tmp_path / "sweep" / TABLE).open())]
    assert found.stdout.startswith(f"{len(suspects)} suspects; about ")
    assert len({files[number] for number in wrong} & {*suspects[:30]}) >= 18
    page = (tmp_path / "sweep" / PAGE).read_text()
    assert page.count("<img") == len(suspects)
