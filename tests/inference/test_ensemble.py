import json
import math
import shutil

import pytest
import torch
from hydra import compose

from reslab.commands.printing import print_evaluation
from reslab.errors import UserError
from reslab.inference import evaluation
from reslab.inference.ensemble import averaged, class_order, mean_logits, members_of, runs_of_sweep
from reslab.training import fit
from reslab.training.answers import Answers


def answers_of(logits, labels=(0, 1, 0), indices=(0, 1, 2), classes="ab", files=None):
    logits, labels, indices = torch.tensor(logits), torch.tensor(labels), torch.tensor(indices)
    return Answers(logits.float(), labels, indices, list(classes), files)


def test_the_softmax_of_the_mean_is_the_mean_of_the_softmaxes():
    logits = [3 * torch.randn(50, 7, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    expected = torch.stack([each.softmax(1) for each in logits]).mean(0)
    torch.testing.assert_close(mean_logits(logits).softmax(1), expected)
    torch.testing.assert_close(mean_logits(logits).logsumexp(1), torch.zeros(50), atol=1e-6, rtol=0)


def test_two_networks_by_hand():
    sure, unsure = [math.log(0.9), math.log(0.1)], [math.log(0.3), math.log(0.7)]
    first, second = answers_of([sure] * 3), answers_of([unsure] * 3)
    together, aligned = averaged([first, second], ["a", "b"])
    torch.testing.assert_close(together.probabilities, torch.tensor([[0.6, 0.4]] * 3))
    assert [member.logits.tolist() for member in aligned] == [first.logits.tolist(), second.logits.tolist()]


def test_only_images_that_all_were_tested_on_count():
    first = answers_of([[1, 2], [3, 4], [5, 6]], indices=(0, 4, 7))
    second = answers_of([[7, 8], [9, 10]], labels=(1, 0), indices=(4, 7))
    together, aligned = averaged([first, second], ["a", "b"])
    assert together.indices.tolist() == [4, 7]
    assert together.labels.tolist() == [1, 0]
    assert aligned[0].logits.tolist() == [[3, 4], [5, 6]]
    by_file = [
        answers_of([[1, 2]] * 3, files=["x", "y", "z"]),
        answers_of([[1, 2]] * 3, (0, 0, 1), files=["z", "x", "y"]),
    ]
    assert averaged(by_file, ["a", "b"])[1][1].files == ["x", "y", "z"]
    with pytest.raises(UserError, match="no image was tested by all of the networks"):
        averaged([answers_of([[1, 2]], (0,), (0,)), answers_of([[1, 2]], (0,), (1,))], ["a", "b"])
    with pytest.raises(UserError, match="b was tested on other images than the first checkpoint"):
        averaged([first, answers_of([[1, 2]] * 3, labels=(1, 1, 1), indices=(0, 4, 7))], ["a", "b"])


def test_classes_are_matched_by_name():
    first = answers_of([[1, 2], [3, 4], [5, 6]])
    second = answers_of([[2, 1], [4, 3], [6, 5]], labels=(1, 0, 1), classes="ba")
    together, aligned = averaged([first, second], ["a", "b"])
    assert aligned[1].logits.equal(first.logits)
    assert aligned[1].labels.equal(first.labels)
    torch.testing.assert_close(together.probabilities, first.probabilities)
    assert class_order(["z", "x", "y"], ["x", "y", "z"], "b") == [1, 2, 0]
    for other in (["x", "y"], ["x", "y", "w"], ["x", "y", "z", "w"]):
        with pytest.raises(UserError, match=r"^b does not know the same classes as the first .* knows (z|z, w|w)$"):
            class_order(other, ["x", "y", "z"], "b")
    assert class_order(["x", "x", "y"], ["x", "x", "y"], "b") == [0, 1, 2]
    with pytest.raises(UserError, match=r"^b does not know the same .* no mean: several classes have one name$"):
        class_order(["x", "y", "x"], ["x", "x", "y"], "b")


@pytest.fixture
def run(composed):
    """Evaluate, as src/evaluate.py does. `composed` starts Hydra."""
    return lambda *options: evaluation.evaluate(compose("evaluate", ["trainer=cpu", *options]))


@pytest.fixture
def others(composed, trained, tmp_path):
    """The trained run, and one of two epochs with another seed, in the folder of a sweep."""
    config = composed(
        "model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "logger=none", "seed=7", f"folder={tmp_path}/sweep/1",
    )  # fmt: skip
    fit.train(config)
    shutil.copytree(trained.folder, tmp_path / "sweep" / "0")
    for folder in ("0", "1"):
        (tmp_path / "sweep" / folder / ".hydra").mkdir(exist_ok=True)
        (tmp_path / "sweep" / folder / ".hydra" / "config.yaml").write_text("seed: 1")
    (tmp_path / "sweep" / "multirun.yaml").write_text("")
    return tmp_path / "sweep"


@pytest.mark.slow
def test_the_mean_of_two_runs(run, others, tmp_path, capsys):
    paths = [others / name / "checkpoints" / "best.ckpt" for name in ("0", "1")]
    result = run(f"checkpoint=[{paths[0]},{paths[1]}]", f"output={tmp_path}/a.json")
    single = [evaluation.test_network(compose("evaluate", ["trainer=cpu", f"checkpoint={path}"])) for path in paths]
    probabilities = (single[0].answers.probabilities + single[1].answers.probabilities) / 2
    labels = single[0].answers.labels
    right = probabilities.argmax(1) == labels
    assert result["metrics"]["test/accuracy"] == pytest.approx(right.float().mean().item())
    loss = -probabilities.gather(1, labels[:, None]).log().mean().item()
    assert result["metrics"]["test/loss"] == pytest.approx(loss, rel=1e-5)
    assert result["checkpoint"] == [str(path) for path in paths]
    for member, alone in zip(result["members"], single, strict=True):
        assert member["metrics"] == pytest.approx(alone.result["metrics"], rel=1e-6)
        assert member["metrics"]["test/accuracy"] == alone.result["metrics"]["test/accuracy"]
        assert member["step"] == alone.result["step"]
    assert (result["images"], result["found"], result["left_out"]) == (359, 359, {"by_a_member": 0})
    assert json.loads((tmp_path / "a.json").read_text()) == result
    sweep = run(f"checkpoint={others}")
    assert sweep == result
    print_evaluation(result)
    printed = capsys.readouterr().out
    assert "mean of                 the probabilities of 2 networks" in printed
    assert f"{paths[1]} (epoch " in printed.replace("\n", "")


@pytest.mark.slow
def test_an_ensemble_of_one_is_the_network_to_the_last_bit(run, trained):
    path = trained.folder / "checkpoints" / "best.ckpt"
    assert run(f"checkpoint=[{path}]") == run(f"checkpoint={path}")


@pytest.mark.slow
def test_images_that_a_member_was_trained_on_are_left_out(composed, run, trained, digit_files, tmp_path):
    """The second run is one on a part of the files that the first one is tested on."""
    folder = digit_files[0].parents[1]
    own = composed(
        "model=resnet8", "data=imagefolder", f"data.root={folder}", "data.image_size=8", "data.mean=[0.3,0.3,0.3]",
        "data.std=[0.3,0.3,0.3]", "data.test_fraction=0.2", "data.num_workers=0", "trainer=cpu", "trainer.max_epochs=1",
        "logger=none", "data.batch_size=16", f"folder={tmp_path}/own", "test=false",
    )  # fmt: skip
    fit.train(own)
    best = trained.folder / "checkpoints" / "best.ckpt"
    data = ["data=imagefolder", f"data.root={folder}", "data.num_workers=0"]
    alone = run(f"checkpoint={tmp_path}/own", *data)
    result = run(f"checkpoint=[{best},{tmp_path}/own]", *data)
    assert result["images"] == alone["images"] < 359
    assert result["found"] == 359
    assert result["left_out"] == {"by_a_member": 359 - alone["images"]}
    assert result["members"][1]["metrics"]["test/accuracy"] == alone["metrics"]["test/accuracy"]


@pytest.mark.slow
def test_equal_numbers_of_other_images_are_one_line(composed, run, tmp_path):
    """Without files, images are known by their numbers. Here the labels are equal too, and the pixels are others."""
    options = ("data=synthetic", "data.num_images=20", "data.batch_size=10", "model=resnet8", "model.widths=[4,4,4]")
    options += ("trainer=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none", "page=false")
    for name, size in (("a", 8), ("b", 8), ("c", 9)):
        fit.train(composed(*options, f"data.image_size={size}", f"folder={tmp_path}/{name}", "test=false"))
    assert run(f"checkpoint=[{tmp_path}/a,{tmp_path}/b]")["images"] == 20
    with pytest.raises(UserError, match=r"^the networks were trained on different data sets: data=… names the one"):
        run(f"checkpoint=[{tmp_path}/a,{tmp_path}/c]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["calibrated=true"], "calibrated and coverage are for one network"),
        (["coverage=0.9"], "calibrated and coverage are for one network"),
        (["trainer.limit_test_batches=1"], "trainer.limit_test_batches chooses other images for each network"),
    ],
)
def test_what_several_networks_cannot_have_is_one_line(run, trained, tmp_path, options, message):
    paths = [trained.folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    shutil.copy(paths[0], tmp_path / "copy.ckpt")
    with pytest.raises(UserError, match=f"^{message}"):
        run(f"checkpoint=[{paths[0]},{tmp_path}/copy.ckpt]", *options)


def test_the_same_network_twice_is_one_line(trained):
    best = trained.folder / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match=r"best\.ckpt is named twice, and would count twice in the mean"):
        members_of([str(trained.folder), str(best)])
    assert members_of([str(trained.folder)]) == members_of(str(trained.folder)) == [str(trained.folder)]


def test_a_sweep_without_a_finished_run_is_one_line(tmp_path):
    (tmp_path / "multirun.yaml").write_text("")
    with pytest.raises(UserError, match=r"the sweep has no finished run with a checkpoint$"):
        runs_of_sweep(tmp_path)
