import json
from dataclasses import replace

import pytest
import torch
from noise_images import fill
from safetensors.torch import save_file
from torch.nn import functional as F

from reslab.data.splits import Split
from reslab.errors import UserError
from reslab.run import Run
from reslab.training.answers import Answers, read_answers, with_files, write_answers
from reslab.training.fit import train

NAN = float("nan")


def answers(files=None):
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [NAN, NAN, NAN]])
    return Answers(logits, torch.tensor([0, 2, 0]), torch.tensor([1, 4, 7]), ["cat", "</b>", "日本"], files)


def test_the_values_of_each_image():
    given = answers()
    assert given.predicted.tolist() == [0, 1, 1]  # the image without a softmax is of class 0, and counts as wrong
    assert given.right.tolist() == [True, False, False]
    assert given.losses[:2].tolist() == pytest.approx([0.407606, 3.095], abs=1e-3)
    assert given.confidence[:2].tolist() == pytest.approx([0.665241, 0.909443])
    assert given.losses[2].isnan()
    assert given.names == ["test 1", "test 4", "test 7"]
    assert replace(given, split="val").names == ["val 1", "val 4", "val 7"]
    assert replace(given, split="val").at(torch.tensor([2, 0])).names == ["val 7", "val 1"]


def test_what_is_written_is_read(tmp_path):
    for files in (None, ["cats/a.png", "日本/<b>.png", "bytes \udcff.png"]):
        path = tmp_path / "answers.safetensors"
        write_answers(path, answers(files), step=12)
        found, step = read_answers(path)
        assert step == 12
        assert torch.equal(found.logits.nan_to_num(9), answers().logits.nan_to_num(9))
        assert torch.equal(found.labels, answers().labels)
        assert torch.equal(found.indices, answers().indices)
        assert (found.classes, found.files) == (answers().classes, files)


def test_files_are_named_within_the_folder_of_the_data_set(tmp_path):
    inside, outside = f"{tmp_path}/cats/a.png", f"{tmp_path}2/a.png"
    split = Split(torch.zeros(8, 1, 2, 2), torch.zeros(8), files=[inside] * 7 + [outside])
    assert with_files(answers(), split, tmp_path).files == ["cats/a.png", "cats/a.png", outside]
    assert with_files(answers(), Split(torch.zeros(8, 1, 2, 2), torch.zeros(8)), tmp_path).files is None


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        ({"logits": torch.zeros(3, 2)}, {}),
        ({"logits": torch.zeros(3, 3, dtype=torch.float64)}, {}),
        ({"labels": torch.tensor([0, 1, 3])}, {}),
        ({"labels": torch.tensor([0, -1, 2])}, {}),
        ({"labels": torch.tensor([0, 1])}, {}),
        ({"indices": torch.tensor([1, 1, 7])}, {}),
        ({"indices": torch.tensor([[1, 2, 7]])}, {}),
        ({"files": torch.tensor([97, 0], dtype=torch.uint8)}, {}),
        ({"other": torch.zeros(1)}, {}),
        ({}, {"step": "x"}),
        ({}, {"classes": "{}"}),
        ({}, {"classes": "[1, 2, 3]"}),
        ({}, {"classes": "[" * 100_000}),
    ],
)
def test_a_file_with_other_values_is_refused(tmp_path, change, metadata):
    tensors = {"logits": torch.zeros(3, 3), "labels": torch.zeros(3).long(), "indices": torch.arange(3)} | change
    path = tmp_path / "answers.safetensors"
    save_file(tensors, path, {"step": "1", "classes": json.dumps(["a", "b", "c"])} | metadata)
    with pytest.raises(UserError, match=r"answers\.safetensors does not hold the answers of a test$"):
        read_answers(path)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "answers.safetensors"
    with pytest.raises(UserError, match="missing"):
        read_answers(path)
    path.mkdir()
    with pytest.raises(UserError, match=r"cannot be read: it is not a regular file$"):
        read_answers(path)
    path.rmdir()
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="cannot be read"):
        read_answers(path)
    write_answers(path, answers(), step=12)
    content = path.read_bytes()
    for kept in (0, 10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(UserError) as error:
            read_answers(path)
        assert (
            str(error.value) == f"{path} cannot be read: it is incomplete or damaged, or safetensors did not write it"
        )


def test_a_run_keeps_the_answers_behind_its_metrics(trained):
    run = Run(trained.folder)
    found, step = read_answers(run.answers_file)
    assert step == run.result["best_step"]
    assert len(found) == run.result["test/images"]
    assert found.right.float().mean().item() == pytest.approx(run.result["test/accuracy"], abs=1e-6)
    assert found.losses.mean().item() == pytest.approx(run.result["test/loss"], rel=1e-5)
    with torch.inference_mode():
        logits = trained.classifier.evaluation_logits(trained.images[found.indices])
    torch.testing.assert_close(found.logits, logits, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.labels, trained.labels[found.indices])


@pytest.mark.slow
@pytest.mark.parametrize("in_memory", ["true", "false"])
def test_the_answers_of_a_folder_name_its_files(composed, tmp_path, in_memory):
    root = tmp_path / "photos"
    fill(root / "train", {"cats": 4, "dogs": 4})
    broken, *others = fill(root / "test", {"cats": 3, "dogs": 4})
    broken.write_bytes(b"no image")
    config = composed(
        "data=imagefolder", f"data.root={root}", "data.image_size=8", f"data.in_memory={in_memory}", "model=resnet8",
        "data.on_error=skip", "data.val_fraction=0", "data.batch_size=2", "data.num_workers=2", "trainer.max_epochs=1",
    )  # fmt: skip
    train(config)
    found, _ = read_answers(Run(config.folder).answers_file)
    assert found.files == [str(path.relative_to(root)) for path in others]
    assert [found.classes[label] for label in found.labels] == [path.parent.name for path in others]


def test_the_loss_is_that_of_torch():
    given = answers()
    assert torch.equal(given.losses[:2], F.cross_entropy(given.logits, given.labels, reduction="none")[:2])
