import os
import signal

import pytest
import torch

from reslab.errors import UserError
from reslab.training.checkpoints import CheckpointFiles, refuse_broken_best, refuse_pipes


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


def test_a_best_checkpoint_that_cannot_be_read_is_refused(trained, tmp_path):
    """The result would be of other weights without a word."""
    refuse_broken_best(tmp_path / "best.ckpt")  # it was removed
    refuse_broken_best(trained.folder / "checkpoints" / "best.ckpt")
    (tmp_path / "best.ckpt").write_bytes((trained.folder / "checkpoints" / "best.ckpt").read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"best\.ckpt cannot be read, .* remove it to resume"):
        refuse_broken_best(tmp_path / "best.ckpt")


def test_a_pipe_in_the_folder_of_a_run_is_refused(trained, tmp_path):
    refuse_pipes(trained.folder)
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(UserError, match=r"train\.log is a pipe"):
        refuse_pipes(tmp_path)


def test_a_worker_process_that_dies_leaves_the_checkpoint_complete(tmp_path, monkeypatch):
    """torch raises its error in whatever the main process does."""

    def report(number, frame):
        raise RuntimeError("DataLoader worker died")

    def save(checkpoint, file):
        os.kill(os.getpid(), signal.SIGCHLD)
        save_all(checkpoint, file)

    save_all, before = torch.save, signal.signal(signal.SIGCHLD, report)
    monkeypatch.setattr(torch, "save", save)
    try:
        with pytest.raises(RuntimeError, match="DataLoader worker died"):
            CheckpointFiles().save_checkpoint({"step": 7}, tmp_path / "last.ckpt")
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True) == {"step": 7}
