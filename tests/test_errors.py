import errno
import os
import re
import sys

import numpy as np
import pytest
import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, InterpolationKeyError

from reslab.configuration import nodes
from reslab.errors import (
    RefusedCallError,
    UserError,
    group_and_choice,
    is_mistake,
    mistakes_as_user_errors,
    one_line,
    suggest,
    visible,
)
from reslab.training.build import build_optimizer


@pytest.fixture
def line_of(composed, monkeypatch):
    """What the terminal shows of a command line that cannot be composed."""

    def line_of(*overrides, config_name="config"):
        monkeypatch.setattr(sys, "argv", ["command.py", *overrides])
        with pytest.raises(Exception) as error:  # noqa: PT011  # whatever Hydra raises
            compose(config_name, overrides=list(overrides))
        return one_line(error.value, config_name)

    return line_of


# one line for each error


CLASSES = """
from torch import nn
class Own(nn.Module):
    def __init__(self, *, width, channels=1):
        super().__init__()
class Faulty(nn.Module):
    def __init__(self, width):
        super().__init__()
        if width == 1: nn.Linear(3)
        if width == 2: nn.Linear(3, 3, depth=4)
        if width == 3: raise ValueError("one\\ntwo")
        if width == 5: self.layer = self.missing
        if width == 6: self.layer = nothing
        raise KeyError("three")
"""


@pytest.mark.parametrize(
    ("options", "overrides", "line"),
    [
        ({"_target_": "own_classes.Own"}, [], "model.width must be given: Own needs it"),
        (
            {"_target_": "own_classes.Own", "width": 1, "chanels": 1},
            ["+model.chanels=1"],
            "there is no option model.chanels: did you mean model.name or data.channels or model.widths?",
        ),
        (
            {"_target_": "own_classes.Faulty", "width": 1},
            [],
            "model: Linear.__init__() missing 1 required positional argument: 'out_features'",
        ),
        (
            {"_target_": "own_classes.Faulty", "width": 2},
            [],
            "model: Linear.__init__() got an unexpected keyword argument 'depth'",
        ),
        ({"_target_": "own_classes.Faulty", "width": 3}, [], "model: one; two"),
        ({"_target_": "own_classes.Faulty", "width": 4}, [], "model: KeyError: 'three'"),
    ],
)
def test_what_a_class_refuses_is_said_of_the_option(options, overrides, line, tmp_path, monkeypatch):
    (tmp_path / "own_classes.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException) as error:
        instantiate(OmegaConf.create({"model": options}).model)
    assert one_line(error.value, "config", overrides) == line


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (5, "model: AttributeError: 'Faulty' object has no attribute 'missing'"),
        (6, "model: NameError: name 'nothing' is not defined"),
    ],
)
def test_a_mistake_in_the_code_of_a_class_is_a_failure_with_a_traceback(width, line, tmp_path, monkeypatch):
    (tmp_path / "own_classes.py").write_text(CLASSES)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InstantiationException) as error:
        instantiate(OmegaConf.create({"model": {"_target_": "own_classes.Faulty", "width": width}}).model)
    assert (one_line(error.value, "config", []), is_mistake(error.value)) == (line, False)


def test_what_an_optimizer_refuses_is_said_of_the_option():
    options = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentun": 3}
    with pytest.raises(RefusedCallError) as error:
        build_optimizer(OmegaConf.create(options))
    assert one_line(error.value, "config", ["+optimizer.momentun=3"]).startswith(
        "there is no option optimizer.momentun: did you mean optimizer.momentum"
    )
    assert str(error.value) == "optimizer: SGD.__init__() got an unexpected keyword argument 'momentun'"


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("data//tmp/photos", ("data", "/tmp/photos")),
        ("data/./photos", ("data", "./photos")),
        ("data/../photos", ("data", "../photos")),
        ("data/photos/", ("data", "photos/")),
        ("model/torchvision/resnet18", ("model", "torchvision/resnet18")),
        ("trainer/preset/debg", ("trainer/preset", "debg")),
        ("own/thing", ("own", "thing")),
    ],
)
def test_a_choice_with_a_slash_is_divided_after_its_group(path, parts):
    assert group_and_choice(path) == parts


def test_a_folder_for_a_data_set_is_answered_with_imagefolder(line_of, tmp_path):
    assert line_of(f"data={tmp_path}") == (
        f"data={tmp_path} is a folder: data=imagefolder data.root={tmp_path} reads the images in it"
    )
    assert line_of("data=/nowhere/photos") == (
        "data=/nowhere/photos: there is no such folder; data=imagefolder data.root=… reads the images in one"
    )
    assert line_of("model=torchvision/resnet18") == "model=torchvision/resnet18 does not exist: did you mean resnet18?"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["optimizer=adam", "optimizer.betas=0.9,0.999"],
            "optimizer.betas=0.9,0.999 has several values: -m trains a run for each, and optimizer.betas=[0.9,0.999] "
            "is a list",
        ),
        (
            ["optimizer.betas=0.9,0.99"],
            "there is no option optimizer.betas: optimizer=adam and optimizer=adamw and optimizer=lamb and "
            "optimizer=lion and optimizer=muon have it",
        ),
        (
            ["optimizer.lr=0,01"],
            "optimizer.lr=0,01: a decimal number has a point, optimizer.lr=0.01; -m trains two runs",
        ),
        (
            ["data.batch_size=1,024"],
            "data.batch_size=1,024: an integer has no separators, data.batch_size=1024; -m trains a run for each of "
            "several values",
        ),
        (["~foo"], "there is no option foo; --cfg job shows all options"),
        (["~trainer.max_epoch"], "there is no option trainer.max_epoch: did you mean trainer.max_epochs?"),
        (["seed=0,1"], "seed=0,1 has several values: -m trains a run for each, and seed=[0,1] is a list"),
        (
            ["input_shape=28,28,1"],
            "there is no option input_shape: data.image_size sets the height and width of images",
        ),
    ],
)
def test_several_values_without_a_sweep(line_of, overrides, line):
    assert line_of(*overrides) == line


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=resnet19", "model=resnet19 does not exist: did you mean resnet9 or resnet18 or resnet14?"),
        ("data=cifar", "data=cifar does not exist: did you mean cifar10 or cifar100?"),
        ("model=resnext50", "model=resnext50 does not exist: did you mean resnext50_32x4d?"),
        ("experiment=six_blocks", "experiment=six_blocks does not exist: did you mean six_block?"),
        ("scheduler=linear", "scheduler=linear does not exist; all: constant, cosine, multi_step, one_cycle"),
        ("scheduler=[cosine,linear]", "scheduler=linear does not exist; all: constant, cosine, multi_step, one_cycle"),
        ("data@model=digits", "there is no option data@model: did you mean model or data.name or data.mean?"),
        ("trainer=defualt", "trainer=defualt does not exist: did you mean default?"),
    ],
)
def test_an_unknown_choice(line_of, override, line):
    assert line_of(override) == line


def test_a_file_that_begins_with_an_underscore_is_no_choice(line_of):
    assert "_data" not in line_of("data=_dat")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "key", "nearest"),
    [
        (["trainer.max_epoch=3"], "trainer.max_epoch", "trainer.max_epochs"),
        (["optimiser.lr=1"], "optimiser", "optimizer"),
        (["sed=1"], "sed", "seed"),
        (["Model=resnet8"], "Model", "model?"),  # and not checkpoint=, which other tools call model
        (["DATA=digits"], "DATA", "data?"),
        (["Optimizer=sgd"], "Optimizer", "optimizer?"),
        (["Seed=1"], "Seed", "seed?"),
        (["Trainer.Max_Epochs=1"], "Trainer", "trainer?"),
        (["model=resnet50", "model.width_per_grop=8"], "model.width_per_grop", "model.width_per_group"),
        (["optimizer=adamw", "optimizer.beta=1"], "optimizer.beta", "optimizer.betas"),  # SGD has none
        (["data=imagefolder", "data.test_fractoin=1"], "data.test_fractoin", "data.test_fraction"),
    ],
)
def test_an_unknown_option(line_of, overrides, key, nearest):
    line = line_of(*overrides)
    assert "\n" not in line
    assert line.startswith(f"there is no option {key}: did you mean {nearest}")


def unknown(key):
    """Return the line for an option that the composed configuration does not have."""
    error = ConfigAttributeError(f"Key '{key}' is not in struct")
    error.full_key = key
    return one_line(error, "config")


def test_the_comparison_leaves_hydra_as_it_was(composed):
    """In a sweep it happens between jobs, which need the running Hydra."""
    running = GlobalHydra.instance().hydra
    assert unknown("sed").startswith("there is no option sed")
    assert GlobalHydra.instance().hydra is running
    assert composed("seed=3").seed == 3


def test_a_removed_option_is_told(composed):
    assert unknown("trainer.devices") == "trainer.devices is needed: it can be set, not removed"


def test_whatever_breaks_lines_becomes_one():
    assert one_line(UserError("a\n  b\u2028c\r\n\n\x0bd\x85e"), "config") == "a; b; c; d; e"


def test_lightnings_own_word_for_a_mistake_is_one():
    assert is_mistake(MisconfigurationException("a"))
    assert not is_mistake(RuntimeError("a"))


@pytest.mark.slow
def test_an_option_like_no_other(line_of):
    assert line_of("xyzzyx=1") == "there is no option xyzzyx; --cfg job shows all options"


@pytest.mark.parametrize(
    ("command", "key", "nearest"), [("evaluate", "ouput", "output"), ("predict", "imges", "images")]
)
def test_the_options_of_another_command(line_of, command, key, nearest):
    line = line_of(f"{key}=a", config_name=command)
    assert line.startswith(f"there is no option {key}: did you mean {nearest}")


@pytest.mark.parametrize(
    ("override", "expected"), [("trainer.max_epochs=[1", "no viable alternative"), ("resnet18", "'resnet18'")]
)
def test_what_hydra_cannot_parse_is_one_line(line_of, override, expected):
    line = line_of(override)
    assert expected in line
    assert "\n" not in line


def test_a_wrong_type_names_the_option():
    config = OmegaConf.structured({"epochs": OmegaConf.create({"n": 1})})
    with pytest.raises(Exception) as error:  # noqa: PT011
        OmegaConf.merge(config, {"epochs": {"n": object()}})
    assert one_line(error.value, "config").startswith("epochs.n: Value 'object' is not a supported primitive type")


def test_a_constructors_own_words_are_shown(composed):
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": "reslab.data.datasets.Digits", **plain(composed("data.root=null").data)}, seed=1)
    assert one_line(error.value, "config") == "data=digits needs data.root, the folder of its images"
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": "torch.nn.Linear", "in_features": 1})
    line = one_line(error.value, "config")
    assert line == "out_features must be given: Linear needs it"


def plain(config):
    return {name: value for name, value in OmegaConf.to_container(config).items() if name != "_target_"}


# suggestions


def test_what_begins_with_an_underscore_is_never_suggested():
    assert visible(["b", "_base", "a"]) == ["a", "b"]
    assert suggest("_base", ["_base", "bass"], "all") == ": did you mean bass?"
    assert suggest("_base", ["_base"], "nothing") == "; nothing"


def test_every_option_and_group_has_a_dotted_name():
    config = {"a": {"b": 1, "c": {"d": 2}}, "e": [3]}
    assert [name for name, _ in nodes(config)] == ["a", "a.b", "a.c", "a.c.d", "e"]


def test_the_command_lines_choices_decide_what_is_suggested(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "model=timm", "-m", "seed=1,2", "optimizer.lr=3"])
    assert "did you mean model.timm_name" in unknown("model.timm_nam")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert "model.timm_name" not in unknown("model.timm_nam")


UNREADABLE = __file__
FULL, FAILING, CLOSED = (
    OSError(errno.ENOSPC, "No space left", "a"),
    OSError(errno.EIO, "Input/output error", "c"),
    PermissionError(errno.EACCES, "Permission denied", "outputs"),
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (FULL, "the disk is full: free some space"),
        (FAILING, "the disk fails at c (Input/output error)"),
        (CLOSED, "outputs cannot be written (Permission denied): hydra.run.dir=<folder> chooses another place"),
        (
            PermissionError(errno.EACCES, "Permission denied", UNREADABLE),
            f"{UNREADABLE} cannot be read (Permission denied): change its permissions",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "b"), "FileNotFoundError: [Errno 2] No such file: 'b'"),
    ],
)
def test_what_the_disk_refuses(line_of, monkeypatch, error, line):
    monkeypatch.setattr(os, "access", lambda path, mode: path != UNREADABLE)  # root may read everything
    assert one_line(error, "config") == line
    hidden = RuntimeError("unexpected pos 97536")  # as torch tells it
    hidden.__context__ = error
    assert one_line(hidden, "config") == (
        "RuntimeError: unexpected pos 97536" if isinstance(error, FileNotFoundError) else line
    )
    told = UserError("data.root: it cannot be read")
    told.__cause__ = error
    assert one_line(told, "config") == "data.root: it cannot be read"


@pytest.mark.parametrize(
    ("allocate", "size"),
    [
        (lambda: torch.empty(2**50, dtype=torch.uint8), " (1,125,899.9 GB were asked for at once)"),
        (lambda: np.ones(2**50, dtype=np.uint8), " (1.00 PiB were asked for at once)"),
        (lambda: bytearray(2**62), ""),
    ],
)
def test_too_little_memory_is_a_failure_of_one_line(allocate, size):
    with pytest.raises((RuntimeError, MemoryError)) as failed:
        allocate()
    advice = "smaller batches, smaller images, fewer images or a smaller network need less"
    in_hydra = InstantiationException("Error in call to target 'reslab.data.datasets.Digits'")
    in_hydra.__cause__ = failed.value
    for error in (failed.value, in_hydra):
        assert one_line(error, "config") == f"out of memory{size}: {advice}"
        assert not is_mistake(error)


def test_a_class_that_cannot_be_imported_is_one_line():
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": "nowhere_to_be_found.Own"})
    assert one_line(error.value, "config") == (
        "Error locating target 'nowhere_to_be_found.Own': "
        "ModuleNotFoundError(\"No module named 'nowhere_to_be_found'\"); "
        "PYTHONPATH must contain the folder of your own module"
    )


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("own_network.Tyny", "own_network has no Tyny: did you mean Tiny?"),
        ("own_network.Elsewhere", "own_network has no Elsewhere"),
        ("own_network.Tiny.Inner", "own_network.Tiny has no Inner"),
        ("importing.Own", "to import its module raises ModuleNotFoundError(\"No module named 'nowhere_at_all'\")"),
        ("misspelt.Own", "to import its module raises NameError(\"name 'undefined' is not defined\")"),
    ],
)
def test_a_name_that_a_module_does_not_have_is_said_of_the_module(tmp_path, monkeypatch, target, line):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_network.py").write_text("class Tiny: pass\n")
    (tmp_path / "importing.py").write_text("import nowhere_at_all\n")
    (tmp_path / "misspelt.py").write_text("undefined\n")
    for error_of in (lambda: instantiate({"_target_": target}), lambda: get_object(target)):
        with pytest.raises((InstantiationException, ImportError)) as error:
            error_of()
        assert one_line(error.value, "config") == f"Error locating target '{target}': {line}"


def test_a_control_character_in_an_error_is_shown_and_not_obeyed():
    for error in (UserError("no file a\x1b[2Jb"), RuntimeError("no file a\x1b[2Jb")):
        assert one_line(error, "config").endswith(r"no file a\x1b[2Jb")


@pytest.mark.parametrize(
    ("kind", "reason", "line"),
    [
        (
            RuntimeError,
            "RuntimeError: unable to allocate shared memory(shm) for file </torch_2_1_0>: No space left on device (28)",
            "/dev/shm, the memory that processes share, is full: data.num_workers=0 needs none, a smaller "
            "data.batch_size needs less",
        ),
        (UserError, "reslab.errors.UserError: a.png cannot be read", "a.png cannot be read"),
        (OSError, "OSError: [Errno 5] Input/output error: 'a.png'", "OSError: [Errno 5] Input/output error: 'a.png'"),
        (ValueError, "ValueError: one\ntwo", "ValueError: one; two"),
    ],
)
def test_an_error_of_a_process_that_reads_images_is_its_reason(kind, reason, line):
    traceback = (
        'Original Traceback (most recent call last):\n  File "worker.py", line 375, in _worker_loop\n    data = 1\n'
    )
    error = kind(f"Caught {kind.__name__} in DataLoader worker process 0.\n{traceback}{reason}\n")
    assert one_line(error, "config") == line


def test_an_error_that_is_among_its_own_causes_is_one_line():
    """TensorBoard raises the error of its thread again whenever it is used."""
    error, other = OSError(2, "No such file or directory"), RuntimeError("of the logger")
    error.__context__, other.__context__ = other, error
    assert not is_mistake(error)
    assert one_line(error, "config", []) == "FileNotFoundError: [Errno 2] No such file or directory"


def test_a_network_of_ones_own_without_a_name_is_told_to_have_one(composed, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: torch.nn.Identity\n")
    config = composed(f"hydra.searchpath=[file://{tmp_path}]", "model=mine")
    assert (config.model.weights, config.model.freeze) == (None, False)  # which its file need not set
    with pytest.raises(InterpolationKeyError) as error:
        _ = OmegaConf.create({"folder": "${model.name}", "model": config.model}).folder
    assert one_line(error.value, "config").startswith("the file of model= has no name: add a line `name: …`")


@pytest.mark.parametrize("mistake", [True, False])
def test_a_python_program_gets_a_mistake_as_one_error(mistake):
    cause = UserError("model.widths=[] must be a list") if mistake else RuntimeError("a failure")
    raised = InstantiationException("Error in call") if mistake else cause
    raised.__cause__ = cause if mistake else None
    with pytest.raises(type(cause), match=f"^{re.escape(str(cause))}$"), mistakes_as_user_errors():
        raise raised
