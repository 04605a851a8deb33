from dataclasses import replace

import pytest
import torch
from hydra import compose

from reslab.errors import UserError
from reslab.inference import evaluation
from reslab.inference.loading import load_classifier
from reslab.inference.views import with_views
from reslab.training.views import five_crops, shifted


@pytest.fixture
def run(composed, trained):
    """Test the trained digits. `composed` starts Hydra."""
    return lambda *options: evaluation.test_network(
        compose("evaluate", [f"checkpoint={trained.folder}", "trainer=cpu", *options])
    )


@pytest.mark.slow
def test_flip_is_flip_averaging_to_the_last_bit(run, trained, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["config"]["flip_averaging"] = True
    torch.save(checkpoint, tmp_path / "flips.ckpt")
    averaging = run(f"checkpoint={tmp_path}/flips.ckpt")
    flip = run("views=flip")
    assert flip.answers.logits.equal(averaging.answers.logits)
    assert flip.result["metrics"] == averaging.result["metrics"] != run().result["metrics"]
    assert flip.result["views"] == averaging.result["views"] == ["flip"]
    none = run(f"checkpoint={tmp_path}/flips.ckpt", "views=none")
    assert none.answers.logits.equal(run().answers.logits)
    assert (none.result["views"], none.result["flip_averaging"]) == ([], False)


@pytest.mark.slow
def test_the_logits_of_all_copies_are_averaged(run, trained):
    answers = run("views=[flip,shifts]").answers
    copies = [copy for images in (trained.images, trained.images.flip(3)) for copy in shifted(images)]
    with torch.inference_mode():
        expected = torch.stack([trained.classifier(copy) for copy in copies]).mean(0)
    torch.testing.assert_close(answers.logits, expected, atol=1e-4, rtol=1e-4)
    assert len(copies) == 18


@pytest.mark.slow
@pytest.mark.parametrize("data", [[], "files"])
def test_crops_are_cut_out_of_the_resized_image(run, trained, data, digit_files):
    """The digits have 8 x 8 pixels. They are enlarged to 12, and the network takes squares of 8, or of 10."""
    files = [] if not data else ["data=imagefolder", f"data.root={digit_files[0].parents[1]}", "data.num_workers=0"]
    answers = run("views=crops", "data.eval_size=10", "data.resize=12", *files)
    spec = replace(load_classifier(trained.folder / "checkpoints" / "best.ckpt").spec, eval_size=12)
    classifier = load_classifier(trained.folder / "checkpoints" / "best.ckpt").classifier
    classifier.preprocess.in_evaluation = spec.fitting(training=False)
    if not data:
        images = trained.images
        with torch.inference_mode():
            logits = [classifier.network(crop) for crop in five_crops(classifier.preprocess(images), 10)]
        torch.testing.assert_close(answers.answers.logits, torch.stack(logits).mean(0), atol=1e-4, rtol=1e-4)
    assert (answers.result["image_size"], answers.result["resize"], answers.result["views"]) == (10, 12, ["crops"])
    middle = run("data.eval_size=10", "data.resize=12", *files)
    assert answers.answers.logits.shape == middle.answers.logits.shape
    assert not torch.allclose(answers.answers.logits, middle.answers.logits)


def test_crops_as_large_as_the_images_are_one_line(run):
    with pytest.raises(UserError) as error:
        run("views=crops")
    assert str(error.value) == (
        "views=crops cuts squares of 8 pixels out of larger images: it needs a data.resize of more than 8 pixels, "
        "which the run or evaluate sets"
    )


def test_the_views_of_the_run_are_kept_unless_others_are_asked_for(trained):
    loaded = load_classifier(trained.folder / "checkpoints" / "best.ckpt")
    assert with_views(loaded, None) is loaded
    assert with_views(loaded, ["flip", "shifts"]).classifier.views.names == ["flip", "shifts"]
    assert with_views(loaded, "none").classifier.views.names == []
