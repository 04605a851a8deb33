import json
import logging
import shutil

import pytest
import torch
from conftest import TRAINED, equal, last_weights, names
from hydra import compose
from noise_images import fill_with_colors

from reslab.data.base import ImageDataModule, Split
from reslab.errors import RunError, UserError
from reslab.inference.evaluation import evaluate
from reslab.run import Run
from reslab.training import checkpoints, fit
from reslab.training.classifier import Classifier
from reslab.training.process import prepare_process
from reslab.training.schedules import one_cycle

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2", "logger=none")


def test_a_run_learns_the_digits_and_records_its_origin(composed, tmp_path):
    result = fit.train(composed("model=resnet8", "trainer=cpu", "trainer.max_epochs=12", "logger=none"))
    assert result == json.loads((tmp_path / "result.json").read_text())
    assert result["test/accuracy"] > 0.9  # ten classes; an untrained network has 0.1
    assert result["seed"] == 42
    assert result["device"] == "cpu"
    assert result["parameters"] == 75_002  # 75,290 without the two channels that grey images do not have, 2 x 16 x 9
    assert result["versions"]["torch"] == torch.__version__
    assert result["status"] == "finished"
    assert result["epochs"] == 12
    assert result["steps"] == 12 * 20  # 1,295 training images in whole batches of 64
    assert result["train/images_per_second"] == pytest.approx(12 * 20 * 64 / result["train/seconds"])
    assert {"val/accuracy", "val/loss", "test/loss", "test/f1_macro", "test/calibration_error"} <= result.keys()
    assert len(result["git_commit"].partition("-dirty-")[0]) == 40
    assert result["processor"].endswith(f", {torch.backends.cpu.get_cpu_capability()}")


def test_no_processor_trains_in_tf32():
    """It would with what allows it on a GPU, and convolutions that are matrix products would differ from the others."""
    prepare_process(0)
    assert torch.get_float32_matmul_precision() == "high"
    assert torch.backends.mkldnn.matmul.fp32_precision == "ieee"


@pytest.mark.slow
def test_the_best_weights_by_validation_accuracy_are_tested(composed, tmp_path):
    result = fit.train(composed(*QUICK, "trainer.max_epochs=5", "optimizer.lr=0.4", "scheduler=constant"))
    best = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["callbacks"]["BestCheckpoint"]["best_score"] == result["val/accuracy"]
    assert best["callbacks"]["BestCheckpoint"]["best_step"] == best["global_step"] == result["best_step"]
    again = evaluate(composed_evaluation(tmp_path))
    assert again["metrics"] == pytest.approx({name: result[name] for name in again["metrics"]})
    assert sum(row["images"] for row in again["classes"]) == 359


def composed_evaluation(checkpoint):
    return compose("evaluate", overrides=[f"checkpoint={checkpoint}", "trainer=cpu"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("data.val_fraction=0", "there are no validation images"),
        ("trainer.limit_val_batches=0", "trainer.limit_val_batches=0 leaves the validation out"),
    ],
)
def test_without_validation_the_last_weights_are_tested(composed, tmp_path, caplog, option, why):
    caplog.set_level(logging.INFO, "reslab")
    result = fit.train(composed(*QUICK, option))
    assert [line for line in caplog.messages if "last weights" in line] == [f"the last weights are tested: {why}"]
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()
    assert "val/accuracy" not in result
    last = evaluate(composed_evaluation(tmp_path / "checkpoints" / "last.ckpt"))
    assert last["metrics"]["test/accuracy"] == result["test/accuracy"]


@pytest.mark.slow
def test_watching_the_test_set_still_tests_the_last_weights(composed, tmp_path):
    config = composed(*QUICK, "data.val_fraction=0", "data.validate_on_test=true", "trainer.max_epochs=4")
    result = fit.train(config)
    last = evaluate(composed_evaluation(tmp_path / "checkpoints" / "last.ckpt"))
    assert last["metrics"]["test/accuracy"] == result["test/accuracy"]
    assert last["images"] == 359


@pytest.mark.slow
def test_a_resumed_run_keeps_its_threads_and_so_its_weights(composed, tmp_path):
    """On two processors, 1 and 2 threads give other weights from the first steps on."""
    config = composed(*QUICK, "threads=2", "trainer.max_steps=20")
    assert fit.train(config)["threads"] == 2
    weights = []
    for name, asked in (("a", "null"), ("b", 2)):
        folder = shutil.copytree(tmp_path / "checkpoints", tmp_path / name / "checkpoints").parent
        longer = (f"folder={folder}", f"resume={folder}", "trainer.max_steps=30")
        assert torch.get_num_threads() == 1
        result = fit.train(composed(*QUICK, *longer, f"threads={asked}"))
        assert (result["threads"], torch.get_num_threads()) == (2, 1)
        weights.append(last_weights(folder))
    assert equal(*weights)
    with pytest.raises(UserError, match="would be another run: threads was 2 and is 4; from="):
        fit.train(composed(*QUICK, *longer, "threads=4"))


def test_the_schedule_of_a_longer_run_holds_from_the_first_resumed_step_on(composed, tmp_path):
    options = (*QUICK, "scheduler=one_cycle", "optimizer.lr=0.5", "trainer.limit_train_batches=1", "test=false")
    fit.train(composed(*options, "trainer.max_epochs=2", "trainer.limit_val_batches=0"))
    fit.train(composed(*options, "trainer.max_epochs=6", "trainer.limit_val_batches=0", f"resume={tmp_path}"))
    factors = [one_cycle(step, 2 if step < 2 else 6, warmup_fraction=0.3, anneal="cos") for step in range(6)]
    assert [row["train/learning_rate"] for row in Run(tmp_path).metrics] == pytest.approx([0.5 * f for f in factors])


def test_a_seed_determines_every_bit_and_loggers_change_none(composed, tmp_path):
    first = fit.train(composed(*QUICK, f"folder={tmp_path}/a", "data.augment.erasing=0.5", "model.dropout=0.2"))
    fit.train(
        composed(*QUICK, f"folder={tmp_path}/b", "data.augment.erasing=0.5", "model.dropout=0.2", "logger=tensorboard")
    )
    fit.train(composed(*QUICK, f"folder={tmp_path}/c", "data.augment.erasing=0.5", "model.dropout=0.2", "seed=7"))
    a, b, c = (last_weights(tmp_path / name) for name in "abc")
    assert equal(a, b)
    assert not equal(a, c)
    assert first["seed"] == 42


@pytest.mark.slow
def test_early_stopping_ends_a_run_that_no_longer_improves_and_says_so(composed, tmp_path, caplog):
    options = (
        *QUICK, "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=1e-12",
        "trainer.max_epochs=9", "test=false",
    )  # fmt: skip
    caplog.set_level("INFO")
    result = fit.train(composed(*options))
    assert result["epochs"] < 9
    assert result["stopped"] == "val/accuracy has not improved in 1 validation"
    line = f"stopped after epoch {result['epochs']} of 9: {result['stopped']}"
    assert caplog.messages.count(line) == 1
    assert fit.train(composed(*options, f"resume={tmp_path}"))["stopped"] == result["stopped"]
    assert caplog.messages[-1] == (
        f"{tmp_path} has finished at step {result['steps']} ({result['stopped']}), so nothing is left to do"
    )
    assert "stopped" not in fit.train(
        composed(*options, f"resume={tmp_path}", f"trainer.max_epochs={result['epochs']}")
    )
    with pytest.raises(UserError, match="early stopping needs validation images"):
        fit.train(composed(*QUICK, f"folder={tmp_path}/b", "callbacks=early_stopping", "data.val_fraction=0"))


@pytest.mark.parametrize(
    ("overrides", "advice"),
    [
        (
            ["data.batch_size=64"],
            "=64: try data.batch_size=32 trainer.accumulate_grad_batches=2: an optimizer step then averages over 64 "
            "images instead of 64, and a batch norm over 32 instead of 64",
        ),
        (
            ["data.batch_size=9", "trainer.accumulate_grad_batches=3"],
            "=9: try data.batch_size=4 trainer.accumulate_grad_batches=6: an optimizer step then averages over 24 "
            "images instead of 27, and a batch norm over 4 instead of 9",
        ),
        (["data.batch_size=1"], "data.batch_size=1: the network is too large for it"),
    ],
)
def test_out_of_memory_says_which_batch_to_try(composed, monkeypatch, overrides, advice):
    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(Classifier, "training_step", forward)
    with pytest.raises(RunError) as error:
        fit.train(composed(*QUICK, *overrides))
    assert advice in str(error.value)


def test_out_of_memory_with_graphs_advises_to_train_without(composed):
    advice = pytest.raises(RunError, match=r"=64: graph=false needs less; try data\.batch_size=32 ")
    with advice, fit.memory_advice(composed("data.batch_size=64"), has_graphs=True):
        raise torch.OutOfMemoryError


# every choice of every group takes a step


def stand_in(self: ImageDataModule, name: str) -> Split:
    """Return random images of the data set's shape, so that all its options are used without its files."""
    sizes = {"digits": 8, "cifar10": 32, "cifar100": 32, "svhn": 32, "stl10": 96, "synthetic": 32}
    grey = self.name in ("digits", "mnist", "fashion_mnist", "kmnist", "emnist")
    size = 28 if grey and self.name != "digits" else sizes.get(self.name, 64)
    if not hasattr(self, "classes"):
        self.classes = [str(label) for label in range(10)]
    images = torch.randint(0, 256, (200, 1 if grey else 3, size, size), dtype=torch.uint8)
    return Split(images, torch.arange(200) % len(self.classes))


def step(config):
    result = fit.train(config)
    assert result["steps"] == 1
    assert 0 < result["train/loss"] < 100
    assert ("test/accuracy" in result) == config.test


DEBUG = ("trainer=debug", "trainer.accelerator=cpu", "logger=none", "data.batch_size=8")


@pytest.mark.slow
@pytest.mark.parametrize("name", names("data"))
def test_every_data_set_takes_a_step(composed, monkeypatch, name):
    monkeypatch.setattr(ImageDataModule, "_read_or_download", stand_in)
    step(composed(*DEBUG, "model=resnet8", f"data={name}", "data.root=unused", "data.image_size=32"))


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", names("optimizer"))
@pytest.mark.parametrize("scheduler", names("scheduler"))
def test_every_optimizer_and_schedule_takes_a_step(composed, optimizer, scheduler):
    step(composed(*DEBUG, "model=resnet8", f"optimizer={optimizer}", f"scheduler={scheduler}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [name for name in names("experiment") if name != "finetune"],  # its weights are downloaded
)
def test_every_experiment_takes_a_step(composed, monkeypatch, name):
    monkeypatch.setattr(ImageDataModule, "_read_or_download", stand_in)
    config = composed(f"experiment={name}", "data.root=unused", *DEBUG, "trainer.max_epochs=1", "trainer.max_steps=1")
    step(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(names("trainer")) - {"gpu", "overfit"}))
def test_every_trainer_preset_takes_a_step(composed, name):
    config = composed(
        "model=resnet8", f"trainer={name}", "trainer.accelerator=cpu", "trainer.devices=1", "trainer.strategy=auto",
        "trainer.max_epochs=1", "trainer.limit_train_batches=1", "logger=none",
    )  # fmt: skip
    step(config)


@pytest.mark.slow
def test_the_overfit_preset_reaches_a_training_accuracy_of_1(composed):
    config = composed(
        "model=resnet8", "trainer=overfit", "trainer.accelerator=cpu", "logger=none", "test=false", "data.augment=null"
    )
    result = fit.train(config)
    assert result["steps"] == 50 * 2
    assert result["train/accuracy"] == 1.0


@pytest.mark.slow
def test_a_resumed_run_does_not_need_the_weights_that_it_began_with(composed, trained, tmp_path):
    weights = tmp_path / "weights.ckpt"
    weights.write_bytes(Run(trained.folder).best.read_bytes())
    options = ("model=resnet8", "trainer=debug", "test=false", "logger=none", f"model.weights={weights}")
    fit.train(composed(*options, "trainer.max_epochs=1"))
    weights.unlink()
    assert fit.train(composed(*options, "trainer.max_epochs=2", f"resume={tmp_path}"))["epochs"] == 2
    with pytest.raises(UserError) as refused:
        fit.train(composed(*options, "optimizer.lr=0.3", f"resume={tmp_path}"))
    assert str(refused.value) == (
        f"resume={tmp_path} would be another run: optimizer.lr was 0.1 and is 0.3; from={tmp_path} repeats it with "
        f"other settings, model.weights={tmp_path} begins a new run from its weights"
    )


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["data.in_memory=true", "data.augment.scale=null"]])
def test_a_resumed_run_tests_no_image_that_it_was_trained_on(composed, tmp_path, options, caplog):
    """Added images move one from the training to the test."""
    photos, folder = tmp_path / "photos", tmp_path / "run"
    fill_with_colors(photos, {"cat": 30, "dog": 30})
    own = ["seed=2", f"data.root={photos}", "data.image_size=8", "data.batch_size=8", "data.num_workers=0", *options]
    own = ["model=resnet8", "trainer=cpu", "logger=none", "data=imagefolder", f"folder={folder}", *own]
    fit.train(composed(*own, "trainer.max_epochs=1"))
    fill_with_colors(photos, {"cat": 38})
    caplog.clear()
    longer = (f"resume={folder}", "trainer.max_epochs=2", "data.allow_changes=true")
    result = fit.train(composed(*own, *longer))
    line = "left out 1 image that the network was trained or validated on"
    assert line in caplog.messages
    assert result["test/images"] == 13
    moved = "1 of the 5 validation images were training images before: the validation accuracy may be too high"
    assert moved in caplog.messages
    assert any(message.endswith(", 1 moved to the test images") for message in caplog.messages)
    caplog.clear()
    fit.train(composed(*own, longer[0], "trainer.max_epochs=3"))
    assert moved in caplog.messages  # for the rest of the run
    result = json.loads((folder / "result.json").read_text())
    caplog.clear()
    again = evaluate(composed_evaluation(folder))
    assert line in caplog.messages
    assert again["images"] == 13
    assert again["metrics"] == pytest.approx({name: result[name] for name in again["metrics"]})


@pytest.mark.slow
def test_a_finished_run_is_not_tested_again(composed, tmp_path, caplog):
    options = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=2")
    first = fit.train(composed(*options))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with caplog.at_level("INFO", logger="reslab"):
        assert fit.train(composed(*options, f"resume={tmp_path}")) == first
    assert caplog.messages[-1] == f"{tmp_path} has finished at step 40, so nothing is left to do"
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("lost", ["result.json", "answers.safetensors", "metrics.csv", "checkpoints/best.ckpt"])
def test_a_finished_run_that_has_lost_a_file_has_something_to_do(composed, trained, tmp_path, lost):
    folder = tmp_path / "copy"
    shutil.copytree(trained.folder, folder)
    config = composed(*TRAINED, f"folder={folder}", f"resume={folder}")
    resumed = checkpoints.resumed_checkpoint(folder, config)
    resumed.record["config"]["logger"]["tensorboard"]["save_dir"] = str(folder)  # it was copied
    assert fit.has_nothing_to_do(config, Run(folder), resumed)
    assert not fit.has_nothing_to_do(composed(*TRAINED, f"folder={folder}", "test=false"), Run(folder), resumed)
    (folder / lost).unlink()
    assert not fit.has_nothing_to_do(config, Run(folder), resumed)
