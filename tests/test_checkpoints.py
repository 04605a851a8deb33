import pickle
from pathlib import Path

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf

from reslab.checkpoints import BestCheckpoint, find_checkpoint, load_classifier
from reslab.errors import UserError

# which checkpoint


@pytest.mark.parametrize(
    ("present", "asked", "found"),
    [
        (["best.ckpt", "last.ckpt"], ".", "checkpoints/best.ckpt"),
        (["last.ckpt"], ".", "checkpoints/last.ckpt"),
        (["best.ckpt", "last.ckpt"], "checkpoints/last.ckpt", "checkpoints/last.ckpt"),
    ],
)
def test_a_run_or_a_file_names_its_checkpoint(tmp_path, present, asked, found):
    (tmp_path / "checkpoints").mkdir()
    for name in present:
        (tmp_path / "checkpoints" / name).touch()
    assert find_checkpoint(tmp_path / asked) == tmp_path / found
    assert find_checkpoint(str(tmp_path / asked)) == tmp_path / found


@pytest.mark.parametrize("asked", ["", "nothing", "checkpoints/best.ckpt"])
def test_no_checkpoint_is_one_line(tmp_path, asked):
    with pytest.raises(UserError, match="neither a checkpoint nor a run's folder") as error:
        find_checkpoint(tmp_path / asked)
    assert str(error.value).startswith(f"checkpoint={tmp_path / asked}: ")


@pytest.mark.parametrize(("accuracy", "better"), [(0.5, True), (0.49, False), (0.51, True)])
def test_of_equal_epochs_the_later_is_the_better(tmp_path, accuracy, better):
    checkpoint = BestCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    checkpoint.best_k_models = {"before": torch.tensor(0.5)}
    checkpoint.kth_best_model_path, checkpoint.best_model_score = "before", torch.tensor(0.5)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert bool(checkpoint.check_monitor_top_k(trainer, torch.tensor(accuracy))) == better


# what is loaded


def test_the_loaded_classifier_gives_the_trained_ones_outputs(trained):
    classifier, config, spec = load_classifier(find_checkpoint(trained.folder))
    assert not classifier.training
    with torch.inference_mode():
        assert torch.equal(classifier.predict_step(trained.images, 0), trained.probabilities)
    assert spec.classes == [str(digit) for digit in range(10)]
    assert (spec.channels, spec.image_size) == (1, 8)
    assert classifier.record == {name: trained.classifier.record[name] for name in ("config", "spec", "origin")}
    assert config == OmegaConf.create(OmegaConf.to_container(trained.config, resolve=True))


def test_weights_to_start_from_are_not_looked_for_again(trained, tmp_path):
    checkpoint = torch.load(trained.folder / "checkpoints" / "best.ckpt", weights_only=True)
    checkpoint["reslab"]["config"]["model"]["weights"] = "gone.pth"
    torch.save(checkpoint, tmp_path / "moved.ckpt")
    classifier, config, _ = load_classifier(tmp_path / "moved.ckpt")
    assert config.model.weights is None
    assert torch.equal(classifier.network.fc.weight, trained.classifier.network.fc.weight)


def kinds(value):
    if isinstance(value, dict):
        return {dict}.union(*(kinds(part) for pair in value.items() for part in pair))
    if isinstance(value, list | tuple):
        return {list}.union(*map(kinds, value))
    return {type(value)}


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_holds_plain_values_and_tensors_only(trained, name):
    checkpoint = torch.load(trained.folder / "checkpoints" / name, weights_only=True)
    assert kinds(checkpoint) <= {dict, list, str, int, float, bool, type(None), torch.Tensor}
    assert checkpoint["reslab"]["spec"]["classes"] == [str(digit) for digit in range(10)]


# what is refused


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return Path.touch, (self.victim,)


def write_torch(path, content):
    torch.save(content, path)


def write_pickle(path, content):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_torch, write_pickle])
@pytest.mark.parametrize("place", ["state_dict", "reslab"])
def test_nothing_in_a_checkpoint_is_run(tmp_path, write, place):
    path, victim = tmp_path / "evil.ckpt", tmp_path / "victim"
    write(path, {"state_dict": {}, "reslab": {}, place: Malicious(victim)})
    with pytest.raises(UserError, match=r"evil.ckpt is not a checkpoint of ResLab \(UnpicklingError\)$") as error:
        load_classifier(path)
    assert not victim.exists()
    assert "\n" not in str(error.value)
    torch.load(path, weights_only=False) if write is write_torch else pickle.loads(path.read_bytes())
    assert victim.exists()  # it would have run


@pytest.mark.parametrize("content", [b"", b"some text\nof two lines", b"PK\x03\x04 half a zip file"])
def test_other_files_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "other.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"other\.ckpt is not a checkpoint of ResLab") as error:
        load_classifier(path)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is not a checkpoint of ResLab"):
        load_classifier(tmp_path / "other.ckpt")
