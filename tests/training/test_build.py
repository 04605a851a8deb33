import functools

import pytest
import torch
from lightning.pytorch.profilers import SimpleProfiler

from reslab.errors import UserError
from reslab.training import build, fit

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "logger=none")


def test_no_gpu_is_one_line(composed):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=r"trainer\.accelerator=gpu, but torch .* finds no GPU here"):
        fit.train(composed(*QUICK, "trainer=gpu"))


@pytest.mark.parametrize(
    ("asked", "accelerator", "capabilities", "resolved"),
    [
        ("16-mixed", "cpu", {}, "bf16-mixed"),
        ("32-true", "cpu", {"amx_bf16": True}, "32-true"),
        ("auto", "cpu", {"avx512_bf16": False, "avx512_f": True}, "32-true"),
        ("auto", "cpu", {"avx512_bf16": True}, "bf16-mixed"),
        ("auto", "cpu", {"amx_bf16": True}, "bf16-mixed"),
    ],
)
def test_auto_is_the_precision_of_the_device(monkeypatch, asked, accelerator, capabilities, resolved):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert build.resolve_precision(asked, accelerator) == resolved


def test_the_stem_is_whitened_by_training_images(composed):
    config = composed(*QUICK, "model.whiten_stem=true")
    data = build.build_data(config, stages=("fit",))
    weight = build.build_classifier(config, data).network.conv1.weight.detach()
    assert torch.equal(weight[8:], -weight[:8])  # eight of the nine directions of a 3x3 patch


def test_whitening_does_not_overwrite_loaded_weights(composed, trained):
    checkpoint = trained.folder / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match=r"model\.whiten_stem=true would overwrite"):
        fit.train(composed(*QUICK, "model.whiten_stem=true", f"model.weights={checkpoint}"))


def test_the_schedule_is_called_without_hydras_checks(composed):
    config = composed("model=resnet8")
    classifier = build.build_classifier(config, build.build_data(config, stages=("fit",)))
    assert type(classifier.schedule) is functools.partial  # Hydra's is a subclass
    assert classifier.schedule(29, 100) == pytest.approx(1.0)  # the peak of one_cycle, after 0.3 of the steps


def test_only_a_profiler_that_was_asked_for_times_actions(composed):
    trainer = build.build_trainer(composed("trainer=cpu"), [], logger=None)
    assert isinstance(trainer.profiler, build.NoProfiler)
    with trainer.profiler.profile("one"), trainer.profiler.profile("another"):
        pass
    with pytest.raises(ZeroDivisionError), trainer.profiler.profile("an error"):
        _ = 1 / 0
    asked = build.build_trainer(composed("trainer=cpu", "trainer.profiler=simple"), [], logger=None)
    assert isinstance(asked.profiler, SimpleProfiler)
