import sys

import pytest
from conftest import names, needs_fashion_mnist
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from reslab.commands.printing import input_shape, longer, next_steps, print_next_steps, print_summary
from reslab.data.base import ImageDataModule
from reslab.data.datasets import Digits
from reslab.data.splits import Split
from reslab.errors import UserError
from reslab.training.build import build_data

LENGTH = {"max_epochs": 2, "max_steps": -1}


def config(**trainer):
    return OmegaConf.create({"trainer": LENGTH | trainer})


@pytest.fixture
def result(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["src/train.py", "--config-dir", "my conf"])
    (tmp_path / "src" / "reslab").mkdir(parents=True)
    for name in ("report", "predict", "evaluate", "train"):
        (tmp_path / "src" / f"{name}.py").touch()
    (tmp_path / "a run").mkdir()
    return {"folder": str(tmp_path / "a run"), "epochs": 2, "steps": 40}


def test_the_last_lines_are_commands_to_paste(result, tmp_path):
    steps = {name: line.partition("src/")[2] for name, line in next_steps(result, config()).items()}
    assert steps == {
        "report": "report.py 'a run'",
        "predict": "predict.py '--config-dir=my conf' 'a run' photo.jpg",
        "evaluate": "evaluate.py '--config-dir=my conf' 'a run'",
        "continue": "train.py '--config-dir=my conf' 'resume=a run' trainer.max_epochs=4",
    }
    (tmp_path / "a run" / "events.out.tfevents.1").touch()
    assert next_steps(result, config())["curves"].endswith("tensorboard --logdir 'a run'")
    (tmp_path / "a run" / "run.html").touch()
    steps = next_steps(result, config())
    assert (steps["page"], "report" in steps) == ("'a run/run.html'", False)


def test_no_line_is_broken_at_the_width_of_the_terminal(result, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    print_next_steps(result, config())
    lines = capsys.readouterr().out.splitlines()
    assert [line[:10].strip() for line in lines] == ["report", "predict", "evaluate", "continue"]
    assert len(lines[3]) > 80


@pytest.mark.parametrize(
    ("trainer", "option"),
    [
        ({}, "trainer.max_epochs=4"),
        ({"max_steps": 40}, "trainer.max_steps=80"),
        ({"max_epochs": 9}, None),  # early stopping or trainer.max_time has ended the run
    ],
)
def test_a_run_can_train_on_where_its_length_has_ended_it(result, trainer, option):
    assert longer(result, config(**trainer)) == option


SHAPES = {
    "digits": (10, 1, 8), "mnist": (10, 1, 28), "fashion_mnist": (10, 1, 28), "kmnist": (10, 1, 28),
    "emnist": (47, 1, 28), "cifar10": (10, 3, 32), "cifar100": (100, 3, 32), "svhn": (10, 3, 32), "stl10": (10, 3, 96),
    "imagenette": (10, 3, 160), "imagenet": (1000, 3, 224), "synthetic": (10, 3, 32),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(names("data")) - {"imagefolder"}))
def test_a_named_data_set_needs_no_files_for_a_summary(composed, monkeypatch, name):
    monkeypatch.setattr(ImageDataModule, "setup", lambda *_: pytest.fail("the files were read"))
    assert input_shape(composed(f"data={name}")) == SHAPES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "synthetic", pytest.param("fashion_mnist", marks=needs_fashion_mnist)])
@pytest.mark.parametrize("options", [(), ("data.channels=3", "data.image_size=40")])
def test_a_summary_without_files_is_that_with_files(composed, name, options):
    spec = build_data(composed(f"data={name}", *options), stages=("fit",)).spec
    assert input_shape(composed(f"data={name}", *options)) == (len(spec.classes), spec.channels, spec.image_size)


@pytest.mark.parametrize("weights", ["imagenet", "IMAGENET1K_V9"])
def test_a_summary_refuses_weights_that_do_not_exist(composed, weights):
    with pytest.raises(UserError, match=weights):
        print_summary(composed("model=resnet50", "data=synthetic", f"model.weights={weights}"))


@pytest.mark.slow
def test_a_summary_shows_the_stem_of_the_weights_without_a_download(composed, capsys):
    small = ("model=resnet18", "data=synthetic", "data.image_size=32")
    print_summary(composed(*small))
    assert "maxpool" not in capsys.readouterr().out
    print_summary(composed(*small, "model.weights=IMAGENET1K_V1"))
    assert "maxpool" in capsys.readouterr().out


def test_a_summary_on_absent_files(composed, capsys):
    print_summary(composed("model=resnet20", "data=cifar100", "data.root=/absent"))
    lines = capsys.readouterr().out.splitlines()
    assert "image  3x32x32" in lines
    assert next(line for line in lines if line.startswith("fc ")).split()[1:4] == ["Linear", "100", "6,500"]


def test_a_summary_says_the_size_of_an_evaluation(composed, capsys):
    print_summary(composed("model=resnet8", "data=digits", "data.eval_size=16"))
    lines = capsys.readouterr().out.splitlines()
    print_summary(composed("model=resnet8", "data=digits", "data.image_size=16"))
    larger = capsys.readouterr().out.splitlines()
    flops = next(line for line in larger if line.startswith("total")).split()[-2:]
    line = f"The table is for images of 8 pixels; in evaluation, one of 16 takes {' '.join(flops)}FLOPs."
    assert line in lines
    assert not any(each.startswith("The table") for each in larger)


class Own(Digits):
    """A data set of one's own: it extends one of ours and reads other images."""

    def read(self, split):
        found = super().read(split)
        return found and Split(found.images.repeat(1, 1, 2, 2), found.labels)


def test_the_files_of_a_data_set_of_ones_own_are_read(composed):
    config = composed("data=digits")
    config.data._target_ = f"{Own.__module__}.{Own.__qualname__}"
    assert input_shape(config) == (10, 1, 16)


@pytest.mark.parametrize("root", ["null", "absent"])
def test_an_image_folder_needs_its_files(composed, root):
    with pytest.raises((UserError, InstantiationException)):
        input_shape(composed("data=imagefolder", f"data.root={root}"))
