import csv
import json
import shutil

import pytest
import torch
from conftest import equal, last_weights
from conftest import run as run_command
from hydra import compose
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from reslab.commands.printing import print_calibration
from reslab.errors import UserError
from reslab.inference import evaluation
from reslab.inference.calibration import calibrate
from reslab.inference.conformal import class_scores
from reslab.inference.temperature import with_temperature
from reslab.run import Run
from reslab.training import build, fit
from reslab.training.checkpoints import read_checkpoint


@pytest.fixture
def run(trained, tmp_path):
    """A copy of the trained run, whose checkpoints may change."""
    shutil.copytree(trained.folder, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def calibrated(composed, run):
    """The run, once it has been calibrated. `composed` starts Hydra."""
    calibrate(calibration_of(run.folder))
    return run


def calibration_of(checkpoint, *overrides):
    return compose("calibrate", [f"checkpoint={checkpoint}", "trainer=cpu", *overrides])


def evaluation_of(checkpoint, *overrides):
    return compose("evaluate", [f"checkpoint={checkpoint}", "trainer=cpu", *overrides])


def validation_logits(trained):
    data = build.build_data(trained.config, stages=("fit",))
    split = data.splits["val"]
    with torch.inference_mode():
        logits = trained.classifier.evaluation_logits(split.images[split.indices])
    return logits.clone(), split.labels[split.indices]


def test_the_validation_images_of_the_run_are_tested(composed, trained):
    tested = evaluation.test_network(evaluation_of(trained.folder, "split=val"))
    logits, labels = validation_logits(trained)
    torch.testing.assert_close(tested.answers.logits, logits, atol=1e-4, rtol=1e-4)
    assert tested.answers.labels.equal(labels)
    assert tested.answers.names[0] == f"val {tested.answers.indices[0]}"  # a test image may have the same number
    assert tested.result["split"] == "val"
    best = next(row for row in Run(trained.folder).metrics if row["step"] == tested.result["step"])
    assert tested.result["metrics"]["val/accuracy"] == best["val/accuracy"]
    assert tested.result["metrics"]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)
    assert not any(name.startswith("test/") for name in tested.result["metrics"])


def test_calibration_stores_the_temperature_of_the_validation_images(composed, run, trained):
    before = run.best.stat().st_mtime_ns
    content = torch.load(run.best, weights_only=True)
    result = calibrate(calibration_of(run.folder))
    logits, labels = validation_logits(trained)
    scaled = logits / result["temperature"]
    assert result["loss_before"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert result["loss_after"] == pytest.approx(F.cross_entropy(scaled, labels).item(), rel=1e-3)
    assert result["loss_after"] < result["loss_before"]
    for temperature in (0.98, 1.02):
        assert F.cross_entropy(scaled / temperature, labels) > F.cross_entropy(scaled, labels)
    errors = [multiclass_calibration_error(each.softmax(1), labels, 10, 15).item() for each in (logits, scaled)]
    assert [result["calibration_error_before"], result["calibration_error_after"]] == pytest.approx(errors, abs=1e-4)
    record = read_checkpoint(run.best)["reslab"]
    assert {"checkpoint": str(run.best)} | record["calibration"] == result
    scores = class_scores(logits).gather(1, labels[:, None]).flatten().sort().values
    torch.testing.assert_close(record["calibration_scores"], scores, atol=1e-4, rtol=1e-3)
    assert run.best.stat().st_mtime_ns == before  # it says when the weights were saved
    changed = torch.load(run.best, weights_only=True)
    assert equal(changed["state_dict"], content["state_dict"])
    for entry in ("calibration", "calibration_scores"):
        del changed["reslab"][entry]
    assert same(changed, content)


def same(first, second):
    if isinstance(first, torch.Tensor):
        return first.equal(second) and first.dtype == second.dtype and first.stride() == second.stride()
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second and type(first) is type(second)


@pytest.mark.slow
def test_a_run_resumes_from_a_calibrated_checkpoint_as_from_the_original(composed, run, tmp_path):
    weights = []
    for name in ("plain", "calibrated"):
        shutil.copytree(run.folder, tmp_path / name)
        if name == "calibrated":
            calibrate(calibration_of(tmp_path / name / "checkpoints" / "last.ckpt"))
        config = composed(
            "model=resnet8", "trainer=cpu", "trainer.log_every_n_steps=6", "trainer.max_epochs=5", "logger=none",
            f"folder={tmp_path / name}", f"resume={tmp_path / name}", "test=false",
        )  # fmt: skip
        fit.train(config)
        weights.append(last_weights(tmp_path / name))
    assert equal(*weights)
    assert "calibration" not in read_checkpoint(tmp_path / "calibrated" / "checkpoints" / "last.ckpt")["reslab"]


@pytest.mark.slow
def test_a_calibrated_test_changes_probabilities_and_no_answer(calibrated, tmp_path):
    plain = evaluation.test_network(evaluation_of(calibrated.folder))
    scaled = evaluation.test_network(evaluation_of(calibrated.folder, "calibrated=true"))
    temperature = read_checkpoint(calibrated.best)["reslab"]["calibration"]["temperature"]
    assert scaled.answers.logits.equal(with_temperature(plain.answers.logits, temperature))
    assert scaled.answers.predicted.equal(plain.answers.predicted)
    metrics, before = scaled.result["metrics"], plain.result["metrics"]
    for name in ("test/accuracy", "test/top5_accuracy", "test/f1_macro"):
        assert metrics[name] == before[name]
    assert metrics["test/loss"] == pytest.approx(scaled.answers.losses.mean().item(), rel=1e-6) != before["test/loss"]
    assert scaled.result["uncalibrated"] == {name: before[name] for name in ("test/loss", "test/calibration_error")}
    assert scaled.result["temperature"] == temperature
    assert scaled.result["classes"] == plain.result["classes"]


@pytest.mark.slow
def test_the_coverage_of_the_test_images_is_measured(calibrated, tmp_path):
    output = tmp_path / "evaluation.json"
    result = evaluation.evaluate(evaluation_of(calibrated.folder, "coverage=0.9", f"output={output}"))
    scores = read_checkpoint(calibrated.best)["reslab"]["calibration_scores"]
    answers = evaluation.test_network(evaluation_of(calibrated.folder)).answers
    assert len(scores) == 143
    limit = scores[130 - 1]  # ceil(144 * 0.9) is 130
    sets = answers.logits.double().log_softmax(1) >= -limit
    assert result["sets"] == {
        "asked": 0.9,
        "calibration_images": 143,
        "coverage": sets[torch.arange(359), answers.labels].double().mean().item(),
        "mean_size": sets.sum(1).double().mean().item(),
        "empty": (sets.sum(1) == 0).double().mean().item(),
        "single": (sets.sum(1) == 1).double().mean().item(),
    }
    assert json.loads(output.read_text()) == result
    table = tmp_path / "images.csv"
    options = ("coverage=0.9", "calibrated=true", f"predictions={table}")
    both = evaluation.evaluate(evaluation_of(calibrated.folder, *options))
    with table.open() as file:
        written = [json.loads(row["set"]) for row in csv.DictReader(file)]
    assert [{*map(int, names)} for names in written] == [{*each.nonzero().ravel().tolist()} for each in sets]
    firsts = zip(written, answers.predicted.tolist(), strict=True)
    assert all(int(names[0]) == predicted for names, predicted in firsts if names)
    assert both["sets"] == result["sets"]  # which do not depend on the temperature


@pytest.mark.parametrize("option", ["calibrated=true", "coverage=0.9"])
def test_a_checkpoint_without_a_calibration_is_one_line(composed, trained, option):
    with pytest.raises(UserError, match=r"best\.ckpt has no calibration; this adds it: .*calibrate.*best\.ckpt$"):
        evaluation.evaluate(evaluation_of(trained.folder, option))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["views=flip"], "views=none, and this is views=flip"),
        (["views=[flip,shifts]", "data.eval_size=16"], "views=none size=8, and this is views=flip,shifts size=16"),
        (["data.interpolation=bicubic"], "interpolation=bilinear, and this is interpolation=bicubic"),
    ],
)
def test_other_views_or_sizes_are_one_line(calibrated, options, message):
    with pytest.raises(UserError) as error:
        evaluation.evaluate(evaluation_of(calibrated.folder, "calibrated=true", *options))
    assert str(error.value) == (f"{calibrated.best} was calibrated with {message}: calibrate it with these options")


@pytest.mark.slow
def test_two_processes_calibrate_and_test_as_one(calibrated, run, tmp_path):
    """Only the first of them has the answers to all images."""
    alone = read_checkpoint(calibrated.best)["reslab"]["calibration"]
    options = ["coverage=0.9", "calibrated=true", f"output={tmp_path}/one.json"]
    one = evaluation.evaluate(evaluation_of(run.folder, *options))
    for command, more in (("calibrate", ()), ("evaluate", (*options[:2], "output=two.json"))):
        done = run_command(command, f"checkpoint={run.folder}", "trainer=ddp_cpu", *more, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    together = read_checkpoint(calibrated.best)["reslab"]["calibration"]
    numbers = {name: pytest.approx(value, rel=1e-3) for name, value in alone.items() if isinstance(value, float)}
    assert together == alone | numbers
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["sets"] == pytest.approx(one["sets"], abs=0.01)
    assert two["metrics"] == pytest.approx(one["metrics"], rel=1e-4)
    other = tmp_path / "other"
    shutil.copytree(run.folder, other)
    done = run_command(
        "evaluate", f"checkpoint=[{run.folder},{other}]", "trainer=ddp_cpu", "output=three.json", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads((tmp_path / "three.json").read_text())["members"]) == 2


@pytest.mark.slow
def test_a_calibration_for_other_views_replaces_the_first_one(calibrated):
    result = calibrate(calibration_of(calibrated.folder, "views=[shifts,flip]"))
    assert result["views"] == ["flip", "shifts"]
    assert (
        evaluation.evaluate(evaluation_of(calibrated.folder, "calibrated=true", "views=[flip,shifts]"))["temperature"]
        == (result["temperature"])
    )


def test_a_coverage_that_is_too_high_is_one_line_before_the_test(calibrated):
    with pytest.raises(UserError, match=r"^coverage=0.999 needs at least 999 validation images, and .* with 143, whic"):
        evaluation.evaluate(evaluation_of(calibrated.folder, "coverage=0.999"))


def changed_run(run, **options):
    """Let the best checkpoint say that the run had other options of its data set."""
    checkpoint = torch.load(run.best, weights_only=True)
    checkpoint["reslab"]["config"]["data"] |= options
    torch.save(checkpoint, run.best)
    return run.folder


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0}, "had no validation images (data.val_fraction keeps some for validation)"),
        ({"validate_on_test": True}, "validated on its test images (data.val_fraction keeps some for validation)"),
    ],
)
def test_a_run_without_validation_images_is_one_line(composed, run, options, message):
    with pytest.raises(UserError) as error:
        calibrate(calibration_of(changed_run(run, **options)))
    assert str(error.value) == f"split=val: the run of {run.best} {message}"


@pytest.mark.parametrize("options", [{"val_fraction": 0.2}, {"folds": 5, "fold": 1}])
def test_other_images_in_memory_are_one_line(composed, run, options):
    with pytest.raises(UserError, match=r"are not those of the run of .*best\.ckpt \(their checksum differs\)"):
        calibrate(calibration_of(changed_run(run, **options)))


def test_another_data_set_has_no_validation_images_of_the_run(composed, run):
    with pytest.raises(UserError, match=r"^split=val tests the images that the run validated on: leave data= out"):
        calibrate(calibration_of(run.folder, "data=digits"))


@pytest.fixture
def folder_run(composed, digit_files, tmp_path):
    """A run on 359 image files, without a fixed division."""
    folder = tmp_path / "photos"
    shutil.copytree(digit_files[0].parents[1], folder)
    config = composed(
        "model=resnet8", "data=imagefolder", f"data.root={folder}", "data.image_size=8", "data.mean=[0.3,0.3,0.3]",
        "data.std=[0.3,0.3,0.3]", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.num_workers=0",
        "trainer=cpu", "trainer.max_epochs=2", "logger=none", "data.batch_size=16", f"folder={tmp_path}/run",
    )  # fmt: skip
    fit.train(config)
    return folder, Run(tmp_path / "run")


@pytest.mark.slow
def test_the_files_that_a_run_validated_on_are_known_where_they_are_now(folder_run, tmp_path):
    folder, run = folder_run
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    tested = evaluation.test_network(evaluation_of(run.folder, "split=val", f"root={moved}", "data.num_workers=0"))
    best = next(row for row in run.metrics if row["step"] == tested.result["step"])
    assert tested.result["metrics"]["val/loss"] == pytest.approx(best["val/loss"], rel=1e-6)
    files = tested.answers.files
    assert len(files) == len(read_checkpoint(run.best)["reslab"]["validation_files"])
    (moved / files[0]).unlink()
    shutil.copy(moved / files[1], (moved / files[1]).with_name("new.png"))
    with pytest.raises(UserError, match=rf"^the validation images in {moved} are not those of .*missing\)"):
        calibrate(calibration_of(run.folder, f"root={moved}", "data.num_workers=0"))


def test_a_checkpoint_that_cannot_be_written_is_one_line(composed, run, monkeypatch):
    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("reslab.training.checkpoints.replaced", refuse)
    with pytest.raises(UserError, match=r"best\.ckpt cannot be written: No space left on device$"):
        calibrate(calibration_of(run.folder))


CHANGES = {
    "no scores": lambda record: record.pop("calibration_scores"),
    "no calibration": lambda record: record.pop("calibration"),
    "no temperature": lambda record: record["calibration"].pop("temperature"),
    "another part": lambda record: record["calibration"].update(more=1),
    "a temperature of 0": lambda record: record["calibration"].update(temperature=0.0),
    "an infinite temperature": lambda record: record["calibration"].update(temperature=float("inf")),
    "a temperature as text": lambda record: record["calibration"].update(temperature="1"),
    "unknown views": lambda record: record["calibration"].update(views=["other"]),
    "other images": lambda record: record["calibration"].update(images=142),
    "scores as a list": lambda record: record.update(calibration_scores=[1.0] * 143),
    "scores of float32": lambda record: record.update(calibration_scores=record["calibration_scores"].float()),
    "scores in another order": lambda record: record.update(calibration_scores=record["calibration_scores"].flip(0)),
    "a score that is NaN": lambda record: record["calibration_scores"].__setitem__(-1, float("nan")),
    "a negative score": lambda record: record["calibration_scores"].__setitem__(0, -1.0),
}


@pytest.mark.slow
def test_a_calibration_that_calibrate_would_not_write_is_refused(calibrated):
    content = calibrated.best.read_bytes()
    for change in CHANGES.values():
        checkpoint = torch.load(calibrated.best, weights_only=True)
        change(checkpoint["reslab"])
        torch.save(checkpoint, calibrated.best)
        with pytest.raises(UserError, match=r"^.*best\.ckpt is not a checkpoint of ResLab: reslab\.calibration"):
            evaluation.evaluate(evaluation_of(calibrated.folder))
        calibrated.best.write_bytes(content)
    assert evaluation.evaluate(evaluation_of(calibrated.folder, "calibrated=true"))["temperature"] > 0


def test_a_network_of_the_zoo_stays_as_it_is(composed):
    with pytest.raises(UserError, match="is in the zoo, which stays as it is: copy the network's folder"):
        calibrate(calibration_of("zoo/digits_resnet8"))
    with pytest.raises(UserError, match="has no calibration, and the zoo stays as it is: copy the network's folder"):
        evaluation.evaluate(evaluation_of("zoo/digits_resnet8", "coverage=0.9"))


@pytest.mark.parametrize(
    ("given", "options"),
    [
        (["checkpoint=latest"], ""),
        (
            ["checkpoint=a", "views=[flip,shifts]", "data.eval_size=12", "trainer.precision=bf16-mixed", "split=val"],
            " 'views=[flip,shifts]' data.eval_size=12 trainer.precision=bf16-mixed",
        ),
    ],
)
def test_the_command_that_uses_a_calibration_has_the_options_of_its_measurement(capsys, monkeypatch, given, options):
    monkeypatch.setattr("reslab.commands.printing.task_overrides", lambda: given)
    numbers = dict.fromkeys(("loss_before", "loss_after", "calibration_error_before", "calibration_error_after"), 0.1)
    found = {"temperature": 2.0, "standard_error": 0.1, "images": 9, "checkpoint": "a.ckpt"} | numbers
    print_calibration(found)
    assert capsys.readouterr().out.splitlines()[-1].endswith(f" a.ckpt calibrated=true{options}")
