import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import with_precision
from hydra import compose

from reslab.errors import UserError
from reslab.inference import evaluation
from reslab.inference.answering import reading
from reslab.inference.calibration import calibrate
from reslab.inference.conformal import prediction_sets, threshold
from reslab.inference.loading import load_classifier
from reslab.inference.prediction import Predictions, predict
from reslab.inference.prediction_file import prediction_file
from reslab.inference.temperature import with_temperature
from reslab.training import fit
from reslab.training.checkpoints import read_checkpoint
from reslab.training.views import Views


@pytest.fixture
def checkpoint(composed, trained, tmp_path):
    """The checkpoint of the trained run with a calibration. `composed` starts Hydra."""
    shutil.copy(trained.folder / "checkpoints" / "best.ckpt", tmp_path / "best.ckpt")
    calibrate(compose("calibrate", [f"checkpoint={tmp_path}/best.ckpt", "trainer=cpu"]))
    return tmp_path / "best.ckpt"


def probabilities_of(checkpoint, files, **options):
    options = {"batch_size": 100, "num_workers": 0, "on_error": "stop", "device": "cpu"} | options
    batches = list(Predictions(checkpoint, files, **options))
    sets = [each for batch in batches for each in batch.sets or ()]
    return torch.cat([batch.probabilities for batch in batches]), sets


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed", "bf16-true", "64-true"])
def test_predict_answers_in_the_precision_of_the_run_as_evaluate_does(checkpoint, trained, digit_files, precision):
    with_precision(checkpoint, precision)
    tested = evaluation.test_network(
        compose("evaluate", [f"checkpoint={checkpoint}", "trainer=cpu", "data.batch_size=100"])
    )
    probabilities, _ = probabilities_of(checkpoint, digit_files)
    difference = (probabilities - tested.answers.probabilities).abs().max()
    to_float32 = (probabilities - trained.probabilities).abs().max()
    assert probabilities.dtype == torch.float32
    if precision == "64-true":
        assert max(difference, to_float32) < 1e-5
    else:
        assert difference < 1e-5
        assert to_float32 > 1e-4


def test_another_precision_than_that_of_the_run_is_said(checkpoint, digit_files, caplog):
    content = torch.load(checkpoint, weights_only=True)
    content["reslab"]["origin"]["precision"] = "bf16-mixed"  # of a GPU, where trainer.precision=auto was this
    torch.save(content, checkpoint)
    probabilities_of(checkpoint, digit_files[:2])
    assert caplog.messages == ["the run computed in bf16-mixed and its network computes in 32-true here"]


@pytest.mark.slow
def test_another_precision_than_that_of_the_calibration_is_said(checkpoint, digit_files, caplog):
    record = read_checkpoint(checkpoint)["reslab"]
    assert record["calibration"]["precision"] == "32-true"
    probabilities_of(checkpoint, digit_files[:2], calibrated=True)
    assert caplog.messages == []
    with_precision(checkpoint, "bf16-mixed")
    line = f"{checkpoint} was calibrated in 32-true and computes in bf16-mixed now; this calibrates it for that: "
    probabilities_of(checkpoint, digit_files[:2], calibrated=True)
    evaluation.test_network(compose("evaluate", [f"checkpoint={checkpoint}", "trainer=cpu", "coverage=0.9"]))
    said = [message for message in caplog.messages if message.startswith(line)]
    assert len(said) == 2
    assert said[0].endswith("trainer.precision=bf16-mixed")
    content = torch.load(checkpoint, weights_only=True)
    del content["reslab"]["calibration"]["precision"]  # an older version
    torch.save(content, checkpoint)
    caplog.clear()
    probabilities_of(checkpoint, digit_files[:2], calibrated=True)
    assert caplog.messages == []


@pytest.mark.slow
def test_the_temperature_divides_the_logits(checkpoint, trained, digit_files):
    record = read_checkpoint(checkpoint)["reslab"]
    with torch.inference_mode():
        logits = trained.classifier.evaluation_logits(trained.images)
    expected = with_temperature(logits, record["calibration"]["temperature"]).softmax(1)
    probabilities, sets = probabilities_of(checkpoint, digit_files, calibrated=True)
    torch.testing.assert_close(probabilities, expected, atol=1e-5, rtol=1e-4)
    assert sets == []
    plain, _ = probabilities_of(checkpoint, digit_files)
    assert plain.argmax(1).equal(probabilities.argmax(1))
    assert not torch.allclose(plain, probabilities, atol=1e-3)


@pytest.mark.slow
def test_the_sets_are_those_of_the_scores(checkpoint, trained, digit_files, tmp_path):
    with torch.inference_mode():
        logits = trained.classifier.evaluation_logits(trained.images)
    limit = threshold(read_checkpoint(checkpoint)["reslab"]["calibration_scores"], 0.98)
    kept = prediction_sets(logits, limit)
    for calibrated in (False, True):  # the temperature makes no difference
        _, sets = probabilities_of(checkpoint, digit_files, coverage=0.98, calibrated=calibrated)
        assert [sorted(labels) for labels in sets] == [row.nonzero().flatten().tolist() for row in kept]
    assert {len(labels) for labels in sets} >= {1, 2}
    by_probability = logits.argsort(1, descending=True)
    assert all(labels == order[: len(labels)] for labels, order in zip(sets, by_probability.tolist(), strict=True))
    rows = predict(checkpoint, digit_files, device="cpu", coverage=0.98)
    assert [row["set"] for row in rows] == [[str(label) for label in labels] for labels in sets]
    with prediction_file(tmp_path / "a.csv", [*"0123456789"], 1) as write:
        for batch in Predictions(
            checkpoint, digit_files, batch_size=64, num_workers=0, on_error="stop", device="cpu", coverage=0.98
        ):
            write(batch)
    with (tmp_path / "a.csv").open() as file:
        assert [json.loads(row["set"]) for row in csv.DictReader(file)] == [row["set"] for row in rows]


@pytest.mark.slow
def test_views_are_averaged(trained, digit_files):
    best = trained.folder / "checkpoints" / "best.ckpt"
    with torch.inference_mode():
        views = Views(flip=True, shifts=True)
        logits = views.mean_logits(trained.images, trained.classifier.preprocess, trained.classifier.network)
    probabilities, _ = probabilities_of(best, digit_files, views=["flip", "shifts"])
    torch.testing.assert_close(probabilities, logits.softmax(1), atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match=r"^views=mirror must be none, flip, shifts, crops or a list of these copies"):
        probabilities_of(best, digit_files, views="mirror")


@pytest.mark.slow
def test_the_mean_of_two_networks(composed, trained, digit_files, tmp_path):
    fit.train(
        composed(
            "model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "logger=none", "seed=7", f"folder={tmp_path}/b"
        )
    )
    paths = [trained.folder / "checkpoints" / "best.ckpt", tmp_path / "b" / "checkpoints" / "best.ckpt"]
    alone = [probabilities_of(path, digit_files)[0] for path in paths]
    together, _ = probabilities_of(paths, digit_files)
    torch.testing.assert_close(together, (alone[0] + alone[1]) / 2, atol=1e-6, rtol=1e-5)
    assert probabilities_of(paths[:1], digit_files)[0].equal(alone[0])
    with pytest.raises(UserError, match="calibrated and coverage are for one network"):
        probabilities_of(paths, digit_files, coverage=0.9)


def test_networks_that_read_images_otherwise_are_one_line(composed, trained, digit_files, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["spec"]["eval_size"] = 10
    torch.save(checkpoint, tmp_path / "larger.ckpt")
    with pytest.raises(
        UserError, match=r"^.*larger\.ckpt reads images of another size or of other colours than .*best"
    ):
        predict([trained.folder / "checkpoints" / "best.ckpt", tmp_path / "larger.ckpt"], digit_files, device="cpu")


def test_seeds_with_other_means_read_images_alike_unless_these_are_borders(trained):
    network = load_classifier(trained.folder / "checkpoints" / "best.ckpt")

    def reads(**spec):
        return reading(network._replace(spec=replace(network.spec, **spec)))

    assert reads(mean=[0.3]) == reads(mean=[0.4])
    assert reads(mean=[0.3], fit="pad") != reads(mean=[0.4], fit="pad")
    assert reads(mean=[0.3], fit="pad", background=[9, 9, 9]) == reads(mean=[0.4], fit="pad", background=[9, 9, 9])
    for other in ({"eval_size": 9}, {"resize": 9}, {"interpolation": "bicubic"}, {"mean": [0.3] * 3}):
        assert reads(**{"mean": [0.3]} | other) != reads(mean=[0.3])


@pytest.mark.parametrize("options", [{"calibrated": True}, {"coverage": 0.9}])
def test_a_calibration_is_needed_for_the_same_views(checkpoint, trained, digit_files, options):
    with pytest.raises(UserError, match="has no calibration; this adds it: "):
        predict(trained.folder / "checkpoints" / "best.ckpt", digit_files, device="cpu", **options)
    with pytest.raises(UserError, match="was calibrated with views=none, and this is views=flip: "):
        predict(checkpoint, digit_files, device="cpu", views="flip", **options)
