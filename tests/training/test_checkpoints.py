import lightning as L
import pytest
import torch

from reslab.training.checkpoints import BestCheckpoint


@pytest.mark.parametrize(("accuracy", "better"), [(0.5, True), (0.49, False), (0.51, True)])
def test_the_later_of_equal_epochs_is_the_best(tmp_path, accuracy, better):
    checkpoint = BestCheckpoint(tmp_path, monitor="val/accuracy", mode="max")
    checkpoint.best_k_models = {"before": torch.tensor(0.5)}
    checkpoint.kth_best_model_path, checkpoint.best_model_score = "before", torch.tensor(0.5)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert bool(checkpoint.check_monitor_top_k(trainer, torch.tensor(accuracy))) == better


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
