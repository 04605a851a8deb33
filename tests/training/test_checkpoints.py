import pytest
import torch


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
