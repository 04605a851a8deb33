"""The recipes of conf/experiment for ImageNet, against what was published, and one step of each on JPEG files."""

import random

import pytest
from conftest import last_weights
from omegaconf import OmegaConf
from PIL import Image

from reslab.training import fit
from reslab.training.build import build_classifier, build_data

# The command of the blog and of references/classification/README.md (pytorch/vision), and train.py's defaults.
TORCHVISION = {
    "model.name": "resnet50", "model.zero_init_residual": False, "model.stochastic_depth": 0.0,
    "optimizer._target_": "torch.optim.SGD", "optimizer.lr": 0.5, "optimizer.momentum": 0.9,
    "optimizer.nesterov": False, "optimizer.weight_decay": 2e-5,
    "scheduler._target_": "reslab.training.schedules.cosine", "scheduler.warmup_fraction": 5 / 600,
    "trainer.max_epochs": 600, "data.batch_size": 8 * 128, "data.val_fraction": 0,
    "loss._target_": "reslab.training.losses.cross_entropy", "label_smoothing": 0.1, "mixup": 0.2, "cutmix": 1.0,
    "data.augment.trivial_augment": True, "data.augment.randaugment": 0, "data.augment.erasing": 0.1,
    "data.augment.flip": True, "data.augment.scale": 0.08, "data.augment.color_jitter": 0, "data.repeats": 4,
    "data.image_size": 176, "data.eval_size": 224, "data.resize": 232, "data.interpolation": "bilinear",
    "data.mean": [0.485, 0.456, 0.406], "data.std": [0.229, 0.224, 0.225],
    "callbacks.ema.every_steps": 32, "callbacks.ema.decay": 1 - (1 - 0.99998) * 8 * 128 * 32 / 600,
    "callbacks.ema.copy_fraction": 5 / 600, "callbacks.ema.warmup": False,
}  # fmt: skip
# Table 2 of arXiv:2110.00476, one column for each procedure. RandAugment's magnitudes there are of 10, here of 30.
TABLE_2 = {
    "data.image_size": (224, 224, 160),
    "data.eval_size": (224, 224, 224),
    "trainer.max_epochs": (600, 300, 100),
    "data.batch_size": (2048, 2048, 2048),
    "optimizer._target_": ("reslab.training.optimizers.lamb",) * 3,
    "optimizer.lr": (5e-3, 5e-3, 8e-3),
    "scheduler._target_": ("reslab.training.schedules.cosine",) * 3,
    "optimizer.weight_decay": (0.01, 0.02, 0.02),
    "scheduler.warmup_fraction": (5 / 600, 5 / 300, 5 / 100),
    "label_smoothing": (0.1, 0.0, 0.0),
    "model.dropout": (0.0, 0.0, 0.0),
    "model.stochastic_depth": (0.05, 0.05, 0.0),
    "data.repeats": (3, 3, 1),
    "trainer.gradient_clip_val": (None, None, None),
    "data.augment.flip": (True, True, True),
    "data.augment.scale": (0.08, 0.08, 0.08),
    "data.augment.randaugment": (7 * 3, 7 * 3, 6 * 3),
    "data.augment.trivial_augment": (False, False, False),
    "mixup": (0.2, 0.1, 0.1),
    "cutmix": (1.0, 1.0, 1.0),
    "data.augment.erasing": (0.0, 0.0, 0.0),
    "data.augment.color_jitter": (0, 0, 0),
    "data.resize": (int(224 / 0.95),) * 3,
    "loss._target_": ("reslab.training.losses.binary_cross_entropy",) * 3,
    # of timm's training: its own defaults, and the option with which every mixed class counts as present
    "loss.target_threshold": (0.2, 0.2, 0.2),
    "loss.sum_classes": (False, False, False),
    "optimizer.betas": ([0.9, 0.999],) * 3,
    "optimizer.eps": (1e-6,) * 3,
    "optimizer.max_grad_norm": (1.0,) * 3,
    "model.name": ("resnet50",) * 3,
    "model.zero_init_residual": (True, True, True),
    "data.interpolation": ("bicubic",) * 3,
    "data.val_fraction": (0, 0, 0),
    "data.mean": ([0.485, 0.456, 0.406],) * 3,
}
PUBLISHED = {"imagenet_resnet50": TORCHVISION} | {
    f"imagenet_resnet50_{name}": {option: values[column] for option, values in TABLE_2.items()}
    for column, name in enumerate(("a1", "a2", "a3"))
}
SMALL = (
    "model.widths=[4,8,8,16]", "model.stem_width=4", "data.batch_size=24", "data.num_workers=0", "trainer=cpu",
    "trainer.max_steps=1", "logger=none", "model.weights=null",
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_settings(composed, name):
    config = composed(f"experiment={name}", "data.root=.")
    ours = {option: OmegaConf.select(config, option) for option in PUBLISHED[name]}
    ours = {option: list(value) if OmegaConf.is_list(value) else value for option, value in ours.items()}
    assert differences(ours, PUBLISHED[name]) == {}


def differences(ours, theirs):
    """Return the options that differ, with both values."""
    return {
        name: (ours[name], value)
        for name, value in theirs.items()
        if not (ours[name] == pytest.approx(value, rel=1e-12) if type(value) is float else ours[name] == value)
    }


@pytest.fixture
def photographs(tmp_path):
    """Two classes of JPEG files of several sizes, in train/ and val/ as ImageNet has them."""
    generator = random.Random(0)
    for split, count in (("train", 15), ("val", 2)):
        for name in ("n01440764", "n01443537"):
            folder = tmp_path / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                size = generator.randint(200, 300), generator.randint(200, 300)
                colors = tuple(generator.randbytes(3) for _ in range(2))
                image = Image.linear_gradient("L").resize(size).convert("RGB")
                image.paste(tuple(colors[0]), (20, 30, 120, 90))
                image.save(folder / f"{number}.JPEG")
    return tmp_path / "imagenet"


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_takes_a_step(composed, photographs, name):
    config = composed(f"experiment={name}", f"data.root={photographs}", *SMALL)
    result = fit.train(config)
    assert result["steps"] == 1
    assert 0 < result["train/loss"] < 1.5  # two classes
    assert result["test/images"] == 4


# fine-tuning


@pytest.mark.slow
def test_fine_tuning_takes_a_step_of_the_classifier_alone(composed, photographs):
    config = composed("experiment=finetune", f"data.root={photographs}", *SMALL)
    first = build_classifier(config, build_data(config, ("fit",))).network.state_dict()
    assert fit.train(config)["steps"] == 1
    changed = {
        name for name, value in first.items() if not value.equal(last_weights(photographs.parent)[f"network.{name}"])
    }
    assert changed == {"fc.weight", "fc.bias"}


def test_fine_tuning_freezes_first_and_has_a_smaller_rate_for_each_earlier_stage(composed):
    config = composed("experiment=finetune", "data.root=.", "model.weights=null")
    assert (config.model.freeze, config.trainer.max_epochs) == (2, 12)
    assert config.model.layer_decay**5 == pytest.approx(0.01, rel=0.05)  # about a hundredth for the stem
