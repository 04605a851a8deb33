import doctest
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reslab.data.base
from reslab.data.base import ImageDataModule
from reslab.data.datasets import Synthetic
from reslab.data.splits import Split, pixel_statistics, stratified_split
from reslab.data.transforms import Augmentation
from reslab.errors import UserError
from reslab.training.build import build_data

SYNTHETIC = ("data=synthetic", "data.num_images=200", "data.batch_size=20")


def indices_of(loader):
    return torch.cat(list(loader.sampler))


def pretend_trainer(world_size=1, rank=0, overfit_batches=0):
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    return SimpleNamespace(world_size=world_size, global_rank=rank, overfit_batches=overfit_batches, strategy=strategy)


# functions


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_stratified_split_takes_the_fraction_of_every_class(fraction):
    sizes = [100, 40, 9, 1]
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))[torch.randperm(150)]
    rest, chosen = stratified_split(labels, fraction, seed=3)
    assert labels[chosen].bincount(minlength=4).tolist() == [round(fraction * size) for size in sizes]
    assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(150))  # disjoint and complete
    assert torch.equal(rest, rest.sort().values)
    assert torch.equal(chosen, chosen.sort().values)


def test_stratified_split_is_a_function_of_the_seed():
    labels = torch.arange(1000) % 10
    torch.manual_seed(0)
    first = stratified_split(labels, 0.1, seed=1)[1]
    torch.manual_seed(1)
    assert torch.equal(stratified_split(labels, 0.1, seed=1)[1], first)
    assert len({tuple(stratified_split(labels, 0.1, seed)[1].tolist()) for seed in range(10)}) == 10
    assert first.max() > 900  # not just the first ones


@pytest.mark.parametrize("shape", [(37, 3, 9, 8), (5, 1, 28, 28)])
def test_pixel_statistics_equal_numpys_in_double_precision(shape):
    images = (torch.rand(shape, generator=torch.Generator().manual_seed(0)).square() * 255).byte()
    mean, std = pixel_statistics(images)
    pixels = images.numpy().astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


# splits


def test_a_tenth_of_every_class_is_kept_for_validation_and_the_seed_chooses_it(composed):
    chosen = []
    for seed in (1, 1, 2):
        data = build_data(composed(*SYNTHETIC, f"seed={seed}"), ("fit",))
        train, val = data.splits["train"], data.splits["val"]
        assert val.labels[val.indices].bincount().tolist() == [2] * 10
        assert sorted([*train.indices.tolist(), *val.indices.tolist()]) == list(range(200))
        chosen.append(val.indices.tolist())
    assert chosen[0] == chosen[1] != chosen[2]


def test_without_a_validation_fraction_all_images_train_and_none_validate(composed):
    data = build_data(composed(*SYNTHETIC, "data.val_fraction=0"), ("fit",))
    assert data.splits["val"] is None
    assert data.val_dataloader() == []
    assert indices_of(data.train_dataloader()).sort().values.tolist() == list(range(200))


def test_validate_on_test_trains_on_all_images_and_validates_on_the_test_set(composed):
    data = build_data(composed(*SYNTHETIC, "data.validate_on_test=true"), ("fit", "test"))
    assert len(data.splits["train"]) == 200
    assert data.splits["val"] is data.splits["test"]
    for (images, labels), (test_images, test_labels) in zip(data.val_dataloader(), data.test_dataloader(), strict=True):
        assert torch.equal(images, test_images)
        assert torch.equal(labels, test_labels)
    assert not torch.equal(data.splits["test"].images, data.splits["train"].images)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.batch_size=181",), "data.batch_size=181 is more than the 180 training images"),
        (("data.val_fraction=0.01",), "data.val_fraction=0.01 takes no image"),
        (("data.mean=[0.5]",), "need 3 values"),
        (("data.mean=[0.5,0.5,0.5]", "data.std=[0.5]"), "need 3 values"),
    ],
)
def test_options_that_do_not_fit_the_images_are_refused(composed, overrides, message):
    def prepare():
        data = build_data(composed(*SYNTHETIC, *overrides), ("fit",))
        return data.spec, data.batches_per_epoch

    with pytest.raises(UserError, match=message):
        prepare()


SYNTHETIC_ARGUMENTS = {
    "name": "synthetic", "root": ".", "batch_size": 2, "image_size": None, "channels": None, "val_fraction": 0.1,
    "validate_on_test": False, "augment": None, "balance": False, "mean": None, "std": None, "num_workers": 0,
    "seed": 1, "num_classes": 2, "num_images": 20,
}  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("batch_size", 0, "data.batch_size=0 must be an integer of at least 1"),
        ("channels", 2, "data.channels=2 must be one of 1, 3, null"),
        ("val_fraction", 1.0, "data.val_fraction=1.0 must be a number from 0 to less than 1"),
        ("mean", (0.5, 1.5), r"data.mean=\[0.5, 1.5\] must be a list of 1 or 3, each a number from 0 to 1 or null"),
        ("num_classes", 1, "data.num_classes=1 must be an integer of at least 2"),
    ],
)
def test_the_constructor_checks_its_options(argument, value, message):
    """A user of the library gets the same check as one of the commands."""
    Synthetic(**SYNTHETIC_ARGUMENTS)
    with pytest.raises(UserError, match=f"^{message}$"):
        Synthetic(**SYNTHETIC_ARGUMENTS | {argument: value})


class WithoutDownload(ImageDataModule):
    """A data set of a user, which only reads."""

    classes = ["a", "b"]

    def read(self, split):
        raise FileNotFoundError(f"there is no {self.root / 'images.bin'}")


def test_a_data_set_without_a_download_reports_its_own_error(tmp_path):
    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    data = WithoutDownload(**options | {"name": "own", "root": tmp_path})
    with pytest.raises(UserError, match=f"^data=own: there is no {tmp_path}/images.bin$"):
        data.setup("fit")


def test_the_example_in_the_documentation():
    assert doctest.testmod(reslab.data.base) == (0, 4)


def test_a_batch_may_hold_all_training_images(composed):
    data = build_data(composed(*SYNTHETIC, "data.batch_size=180"), ("fit",))
    assert [len(labels) for _, labels in data.train_dataloader()] == [180]


def test_each_split_is_read_once_and_the_test_set_only_for_the_test(composed, monkeypatch):
    reads = []
    read = Synthetic.read
    monkeypatch.setattr(Synthetic, "read", lambda self, split: reads.append(split) or read(self, split))
    data = build_data(composed(*SYNTHETIC), ("fit", "fit", "validate"))
    assert reads == ["train", "val"]
    data.setup("test")
    data.setup("test")
    assert reads == ["train", "val", "test"]


# loaders


def test_only_training_is_shuffled(composed):
    data = build_data(composed(*SYNTHETIC), ("fit", "test"))
    train = data.splits["train"].indices
    drawn = indices_of(data.train_dataloader())
    assert drawn.tolist() != train.tolist()
    assert drawn.sort().values.tolist() == train.tolist()
    assert indices_of(data.val_dataloader()).tolist() == data.splits["val"].indices.tolist()
    assert indices_of(data.test_dataloader()).tolist() == list(range(200))


def test_overfitting_does_not_shuffle(composed):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    data.trainer = pretend_trainer(overfit_batches=1)
    assert indices_of(data.train_dataloader()).tolist() == data.splits["train"].indices.tolist()


def test_the_devices_share_each_global_batch(composed):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    alone = list(data.train_dataloader().sampler)
    shares = []
    for rank in (0, 1):
        data.trainer = pretend_trainer(world_size=2, rank=rank)
        shares.append(list(data.train_dataloader().sampler))
    assert len(alone) == 9
    for batch, first, second in zip(alone, *shares, strict=True):
        assert torch.equal(torch.stack([first, second], dim=1).flatten(), batch)


def test_a_batch_that_the_devices_cannot_share_equally_is_refused(composed):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    data.trainer = pretend_trainer(world_size=3)
    with pytest.raises(UserError, match=r"data\.batch_size=20 cannot be shared equally by 3 devices"):
        data.train_dataloader()
    assert len(data.val_dataloader()) == 1  # the 20 images need not be shared equally


@pytest.mark.parametrize("balance", [True, False])
def test_balance_draws_a_rare_class_as_often_as_a_common_one(composed, balance):
    data = build_data(composed(*SYNTHETIC, "data.num_images=2000", "data.val_fraction=0",
                               f"data.balance={balance}"), ("fit",))  # fmt: skip
    labels = (torch.arange(2000) >= 1900).long()
    data.splits["train"] = Split(data.splits["train"].images, labels)
    rare = sum(int(labels.sum()) for _, labels in data.train_dataloader())
    if balance:
        # A binomial count differs by six standard deviations once in 5e8 draws.
        assert abs(rare - 1000) < 6 * 500**0.5
    else:
        assert rare == 100


# what the network must know


def test_the_spec_describes_the_images_of_the_data_set(composed):
    data = build_data(composed(*SYNTHETIC, "data.num_classes=7"), ("fit",))
    spec = data.spec
    pixels = data.splits["train"].images.numpy().astype(np.float64) / 255
    assert (spec.classes, spec.channels, spec.image_size) == ([str(label) for label in range(7)], 3, 32)
    assert spec.mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-12)
    assert spec.std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-12)


def test_the_spec_holds_the_options_that_are_set(composed):
    overrides = ("data.image_size=16", "data.channels=3", "data.mean=[0.25]", "data.std=[0.75]")
    spec = build_data(composed("data=digits", *overrides), ("fit",)).spec
    assert (spec.channels, spec.image_size, spec.mean, spec.std) == (3, 16, [0.25], [0.75])
    assert len(spec.classes) == 10


def test_one_statistic_may_be_set_and_the_other_computed(composed):
    computed = build_data(composed("data=digits"), ("fit",)).spec
    spec = build_data(composed("data=digits", "data.mean=[0.25]"), ("fit",)).spec
    assert (spec.mean, spec.std) == ([0.25], computed.std)


def test_the_statistics_do_not_depend_on_the_seed(composed):
    specs = [build_data(composed("data=digits", f"seed={seed}"), ("fit",)).spec for seed in (1, 2)]
    assert specs[0] == specs[1]


def test_augmentation_has_the_options_of_the_configuration_or_is_off(composed):
    data = build_data(composed(*SYNTHETIC, "data.augment={crop:3,flip:true,erasing:0.5}"), ())
    augmentation = data.augmentation()
    assert isinstance(augmentation, Augmentation)
    assert (augmentation.crop, augmentation.flip, augmentation.erasing) == (3, True, 0.5)
    off = build_data(composed(*SYNTHETIC, "data.augment=null"), ()).augmentation()
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert off(images) is images
