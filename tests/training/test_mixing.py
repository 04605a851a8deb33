import pytest
import torch
from torchvision.transforms import v2

from reslab.errors import UserError
from reslab.training.mixing import batch_mixing

CPU = torch.device("cpu")
ALPHAS = [(0.2, 0), (0, 1), (1, 0.5)]


def torchvisions(mixup, cutmix, num_classes):
    kinds = ((mixup, v2.MixUp), (cutmix, v2.CutMix))
    return v2.RandomChoice([kind(alpha=float(alpha), num_classes=num_classes) for alpha, kind in kinds if alpha])


@pytest.mark.parametrize(("mixup", "cutmix"), ALPHAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_batches_are_mixed_as_torchvision_mixes_them_bit_for_bit(mixup, cutmix, dtype):
    ours, theirs = batch_mixing(mixup, cutmix, 5, 12), torchvisions(mixup, cutmix, 5)
    images = torch.randn(7, 3, 12, 12).to(dtype).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(7) % 5
    methods = set()
    for seed in range(40):
        torch.manual_seed(seed)
        mix = ours.draw(CPU)
        after = torch.get_rng_state()
        x, targets = ours.apply(mix, images, labels)
        torch.manual_seed(seed)
        expected_x, expected_targets = theirs(images, labels)
        assert torch.equal(after, torch.get_rng_state())
        assert torch.equal(x, expected_x)
        assert torch.equal(targets, expected_targets)
        assert (x.dtype, targets.dtype) == (dtype, torch.float32)
        methods.add(mix.method)
    assert methods == {name for name, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha}


def test_mixing_reads_and_draws_nothing_once_the_numbers_are_known():
    """Shapes alone pass through meta tensors: a step that looks at a value could not be recorded."""
    mixing = batch_mixing(1, 1, 5, 8)
    images, labels = torch.empty(4, 3, 8, 8, device="meta"), torch.empty(4, dtype=torch.int64, device="meta")
    for _ in range(8):
        mix = mixing.draw(CPU)
        x, targets = mixing.apply(mix._replace(numbers=mix.numbers.to("meta")), images, labels)
        assert (x.shape, targets.shape) == ((4, 3, 8, 8), (4, 5))


def test_without_an_alpha_nothing_is_mixed():
    assert batch_mixing(0, 0.0, 5, 8) is None


@pytest.mark.parametrize("alphas", [(-0.2, 0), (0, 1e-4)])
def test_a_wrong_alpha_is_refused(alphas):
    with pytest.raises(UserError, match=r"must be a number from 0\.001 to 1000, or 0$"):
        batch_mixing(*alphas, 5, 8)
