import doctest
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from image_batches import random_images
from PIL import Image

import reslab.data.base
from reslab.data.augmentation import Augmentation, draw_published_rectangles
from reslab.data.base import ImageDataModule
from reslab.data.datasets import Synthetic
from reslab.data.splits import Split
from reslab.errors import UserError
from reslab.training.build import build_data

SYNTHETIC = ("data=synthetic", "data.num_images=200", "data.batch_size=20")


def indices_of(loader):
    return torch.cat(list(loader.sampler))


def pretend_trainer(world_size=1, rank=0, overfit_batches=0, limit_val_batches=1.0, limit_test_batches=1.0):
    return SimpleNamespace(
        world_size=world_size, global_rank=rank, strategy=SimpleNamespace(root_device=torch.device("cpu")),
        overfit_batches=overfit_batches, limit_val_batches=limit_val_batches, limit_test_batches=limit_test_batches,
    )  # fmt: skip


# splits


@pytest.mark.slow
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
    batches = zip(data.val_dataloader(), data.test_dataloader(), strict=True)
    for (images, labels), (test_images, test_labels, _) in batches:
        assert torch.equal(images, test_images)
        assert torch.equal(labels, test_labels)
    assert not torch.equal(data.splits["test"].images, data.splits["train"].images)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.batch_size=181",), "data.batch_size=181 is more than the 180 training images"),
        (("data.augment.crop=99",), "data.augment.crop=99 must be less than the 32 pixels of an image's side"),
        (("data.augment.crop=32",), "data.augment.crop=32 must be less than the 32 pixels of an image's side"),
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
        ("batch_size", 0, "data.batch_size=0 must be an integer from 1 to 1000000"),
        ("channels", 2, "data.channels=2 must be one of 1, 3, null"),
        ("val_fraction", 1.0, "data.val_fraction=1.0 must be a number from 0 to less than 1"),
        ("mean", (0.5, 1.5), r"data.mean=\[0.5, 1.5\] must be a list of 1 or 3, each a number from 0 to 1, or be null"),
        ("num_classes", 1, "data.num_classes=1 must be an integer from 2 to 1000000"),
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


def test_a_label_without_a_class_is_refused():
    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    data = Constant(**options)
    data.classes = ["a"]
    with pytest.raises(UserError, match=r"^data=synthetic has an image with the label 1 and 1 classes$"):
        data.setup("fit")


class Wide(ImageDataModule):
    """A data set of a user whose images are not square."""

    classes = ["a", "b"]

    def read(self, split):
        return Split(random_images(20, 3, 6, 9), torch.arange(20) % 2)


@pytest.mark.parametrize("augment", [{"right_angles": True}, {"vertical_flip": True, "scale": 0.5}])
def test_only_square_images_are_rotated_by_right_angles(augment):
    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    data = Wide(**options | {"augment": {"crop": 1, "flip": False, "erasing": 0.0} | augment})
    if "right_angles" in augment:
        with pytest.raises(
            UserError, match=r"^data.augment.right_angles=true needs square images; these have 6x9 pixels$"
        ):
            data.setup("fit")
    else:
        data.setup("fit")
        images, _ = next(iter(data.train_dataloader()))
        assert data.augmentation()(images).shape == images.shape == (2, 3, 6, 9)


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


def sort_by_class(split):
    """Put the images of a split in the order of their classes."""
    split.indices = split.indices[split.labels[split.indices].argsort(stable=True)]


@pytest.mark.parametrize("limit", [1, 0.2, 0.9])
def test_overfitting_does_not_shuffle_and_sees_all_classes(composed, limit):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    sort_by_class(data.splits["train"])
    data.trainer = pretend_trainer(overfit_batches=limit)
    loader = data.train_dataloader()
    first, *others = ([labels.tolist() for _, labels in loader] for _ in range(2))
    assert others == [first]
    assert [sorted(labels) for labels in first] == [sorted([*range(10)] * 2)] * 9
    assert sorted(indices_of(loader).tolist()) == sorted(data.splits["train"].indices.tolist())


@pytest.mark.parametrize("limit", [1.0, 4])
def test_overfitting_on_all_batches_has_complete_ones_that_devices_share_equally(composed, limit):
    data = build_data(composed(*SYNTHETIC, "data.batch_size=50"), ("fit",))  # 180 images: three batches and 30 more
    for rank in (0, 1):
        data.trainer = pretend_trainer(world_size=2, rank=rank, overfit_batches=limit)
        assert [len(labels) for _, labels in data.train_dataloader()] == [25] * data.batches_per_epoch == [25] * 3
    data.trainer = pretend_trainer(world_size=3, overfit_batches=limit)
    with pytest.raises(UserError, match=r"^data\.batch_size=50 cannot be shared equally by 3 devices$"):
        data.train_dataloader()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("limit", "spread"), [(1, True), (9, True), (10, False), (11, False), (0.5, True), (0.99, True), (1.0, False)]
)
@pytest.mark.parametrize("name", ["val", "test"])
def test_only_a_limited_evaluation_has_another_order(composed, name, limit, spread):
    data = build_data(composed(*SYNTHETIC, "data.val_fraction=0.5", "data.batch_size=10"), ("fit", "test"))
    split = data.splits[name]
    sort_by_class(split)
    batches = len(split) // 10
    data.trainer = pretend_trainer(
        **{f"limit_{name}_batches": limit if isinstance(limit, float) else limit + batches - 10}
    )
    order = indices_of(getattr(data, f"{name}_dataloader")())
    assert sorted(order.tolist()) == sorted(split.indices.tolist())
    assert (order.tolist() != split.indices.tolist()) == spread
    if spread:
        assert (split.labels[order].view(batches, 10).sort(1).values == torch.arange(10)).all()


def test_the_devices_share_the_batches_of_a_limited_evaluation(composed):
    data = build_data(composed(*SYNTHETIC), ("fit", "test"))
    data.trainer = pretend_trainer(limit_test_batches=2)
    alone = list(data.test_dataloader().sampler)
    shares = []
    for rank in (0, 1):
        data.trainer = pretend_trainer(world_size=2, rank=rank, limit_test_batches=2)
        shares.append(list(data.test_dataloader().sampler))
    for batch, first, second in zip(alone, *shares, strict=True):
        assert torch.equal(torch.stack([first, second], dim=1).flatten(), batch)


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


def test_a_batch_of_training_holds_each_image_as_often_as_repeats_says(composed):
    data = build_data(composed(*SYNTHETIC, "data.repeats=4"), ("fit",))
    batches, once = list(data.train_dataloader().sampler), build_data(composed(*SYNTHETIC), ("fit",))
    assert len(batches) == len(once.train_dataloader()) == data.batches_per_epoch
    assert all((batch.unique(return_counts=True)[1] == 4).all() for batch in batches)
    assert torch.equal(data.val_dataloader().sampler.order(), once.val_dataloader().sampler.order())


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


# random numbers


def global_generators():
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        [np.asarray(part).tolist() for part in np.random.get_state()],
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ("data=digits",),
        ("data=digits", "data.balance=true"),
        ("data=synthetic", "data.num_images=300"),
        ("data=imagefolder", "data.num_workers=0", "data.augment.randaugment=9"),
        ("data=imagefolder", "data.num_workers=2", "data.augment.randaugment=9"),
        ("data=imagefolder", "data.in_memory=true", "data.num_workers=0", "data.augment.scale=null"),
        ("data=imagefolder", "data.in_memory=true", "data.num_workers=2", "data.augment.scale=null"),
    ],
)
def test_reading_images_draws_nothing_from_the_global_generators(composed, tmp_path, options):
    """A run that also reads its test images must begin with the same weights as one that does not."""
    if "data=imagefolder" in options:
        for number in range(200):
            path = tmp_path / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (9, 8), number).save(path)
        options += (f"data.root={tmp_path}", "data.image_size=8")
    before = global_generators()
    data = build_data(composed(*options, "data.batch_size=50"), ("fit", "test"))
    _ = data.spec, data.checksum(), data.training_files(), data.batches_per_epoch
    for limit in (1.0, 1):
        data.trainer = pretend_trainer(limit_val_batches=limit, limit_test_batches=limit)
        for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
            assert sum(len(labels) for _, labels, *_ in loader) > 0
    data.teardown("fit")
    assert global_generators() == before


# what the network must know


def test_the_spec_describes_the_images_of_the_data_set(composed):
    data = build_data(composed(*SYNTHETIC, "data.num_classes=7"), ("fit",))
    spec = data.spec
    train = data.splits["train"]
    pixels = train.images.numpy()[train.indices.numpy()].astype(np.float64) / 255  # without those for validation
    assert len(pixels) == 179  # of 200 images of seven classes, and a tenth of each class is 3
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


@pytest.mark.parametrize("seed", [1, 2])
def test_the_statistics_of_digits_leave_out_validation_and_test_images(composed, seed):
    data = build_data(composed("data=digits", f"seed={seed}"), ("fit", "test"))
    spec, splits = data.spec, data.splits
    pixels = splits["train"].images.numpy().astype(np.float64) / 255
    train = pixels[splits["train"].indices.numpy()]
    assert spec.mean == pytest.approx([train.mean()], rel=1e-12)
    assert spec.std == pytest.approx([train.std()], rel=1e-12)
    assert abs(spec.mean[0] - pixels.mean()) > 1e-5  # with the validation images it would be another number


@pytest.mark.parametrize(("given", "fit"), [(None, "squash"), ("crop", "crop"), ("pad", "pad")])
def test_images_in_memory_that_are_not_square_are_squashed_unless_asked_otherwise(given, fit):
    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    data = Wide(**options | {"fit": given, "eval_size": 5})
    data.setup("fit")
    assert (data.spec.fit, data.spec.image_size, data.spec.size_in_evaluation) == (fit, 9, 5)


def test_a_square_image_is_cropped_by_default(composed):
    assert build_data(composed("data=digits"), ("fit",)).spec.fit == "crop"


class Constant(ImageDataModule):
    """Images whose second channel holds nothing."""

    classes = ["a", "b"]

    def read(self, split):
        if split == "val":
            return None
        images = torch.randint(0, 256, (20, 3, 4, 4), dtype=torch.uint8)
        images[:, 1] = 77
        return Split(images, torch.arange(20) % 2)


def test_images_of_another_type_than_bytes_are_refused():
    """Statistics that are given, for levels from 0 to 1, would be taken for those of levels from 0 to 255."""

    class Floats(Constant):
        def read(self, split):
            found = super().read(split)
            return found and Split(found.images / 255, found.labels)

    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    with pytest.raises(UserError, match=r"^data=synthetic: read must return uint8 images, from 0 to 255, not float32$"):
        Floats(**options).setup("fit")


def test_a_channel_without_any_variation_is_refused():
    options = {name: value for name, value in SYNTHETIC_ARGUMENTS.items() if name not in ("num_classes", "num_images")}
    data = Constant(**options)
    data.setup("fit")
    with pytest.raises(UserError) as caught:
        _ = data.spec
    assert str(caught.value) == (
        "channel 1 has the same value in all pixels of all training images, so that its standard deviation is 0: "
        "remove the channel, or set data.std"
    )
    data.std = [1.0, 1.0, 1.0]
    assert data.spec.mean[1] == pytest.approx(77 / 255, rel=1e-12)


def test_augmentation_has_the_options_of_the_configuration_or_is_off(composed):
    options = "data.augment={crop:3,flip:true,erasing:0.5,erasing_aspect:uniform,erasing_fill:9}"
    augmentation = build_data(composed(*SYNTHETIC, options), ()).augmentation()
    assert isinstance(augmentation, Augmentation)
    assert (augmentation.crop, augmentation.flip, augmentation.erasing) == (3, True, 0.5)
    assert (augmentation.draw_rectangles, augmentation.erasing_fill) == (draw_published_rectangles, 9)
    off = build_data(composed(*SYNTHETIC, "data.augment=null"), ()).augmentation()
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert off(images) is images


def test_training_and_validation_share_one_copy_of_their_array_on_the_device(composed, monkeypatch):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    device = torch.device("meta")  # it stands for a GPU
    monkeypatch.setattr(data, "_resident_device", lambda images: device)
    train, val = data.train_dataloader(), data.val_dataloader()
    assert train.images.device == train.labels.device == device
    assert train.images is val.images
    assert train.labels is val.labels
    assert len(data.copies) == 2
    del train, val
    assert len(data.copies) == 0


def test_an_array_that_is_on_the_gpu_stays_there_however_little_memory_is_free(composed, monkeypatch):
    data = build_data(composed(*SYNTHETIC), ("fit",))
    data.trainer = pretend_trainer()
    data.trainer.strategy.root_device = torch.device("cuda", 0)
    images, copy = data.splits["train"].images, torch.empty(1, device="meta")
    free, kept = [10 * images.nbytes, images.nbytes, images.nbytes], [0, 0, 2 * images.nbytes]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free.pop(0), 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1000 + kept.pop(0))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1000)
    assert data._resident_device(images).type == "cuda"
    assert data._resident_device(images).type == "cpu"  # too little is left
    assert data._resident_device(images).type == "cuda"  # what the job before has freed counts
    data.copies[id(images)] = copy
    assert data._resident_device(images) == copy.device
