"""What people type, and what they mean by it."""

from pathlib import Path

import pytest

from reslab.commands import arguments
from reslab.commands.arguments import hydra_arguments_of
from reslab.commands.spelling import joined
from reslab.errors import UserError
from reslab.inference.options import EVALUATE_SCHEMA, PREDICT_SCHEMA
from reslab.training.options import TRAINING_SCHEMA


@pytest.mark.parametrize(
    ("typed", "whole"),
    [
        (["optimizer.lr", "=", "0.1"], ["optimizer.lr=0.1"]),
        (["optimizer.lr=", "0.1", "seed=1"], ["optimizer.lr=0.1", "seed=1"]),
        (["optimizer.lr", "=0.1"], ["optimizer.lr=0.1"]),
        (["seed=1,", "2,", "3", "-m"], ["seed=1,2,3", "-m"]),
        (["seed=1", ",2"], ["seed=1,2"]),
        (["model.layers=[1,", "2,", "2", "]"], ["model.layers=[1,2,2]"]),
        (["trainer.max_steps", "=", "-1"], ["trainer.max_steps=-1"]),
        (["--lr", "=", "0.1"], ["--lr=0.1"]),
        (["model = resnet8", " seed= 1"], ["model=resnet8", "seed= 1"]),
        (["data.root= photos", "my photo = 1.png"], ["data.root= photos", "my photo = 1.png"]),  # names of files
        (["seed=", "model=resnet8"], ["seed=", "model=resnet8"]),
        (["seed=", "-m"], ["seed=", "-m"]),
        (["-m", "=3"], ["-m", "=3"]),
        (["run", "a.png", "b.png"], ["run", "a.png", "b.png"]),
    ],
)
def test_blanks_around_the_equals_sign_and_after_a_comma_do_not_count(typed, whole):
    assert joined(typed) == whole


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (["model=resnet8", "-m", "seed=1,2"], ["model=resnet8", "seed=1,2", "-m"]),
        (["-m", "seed=1,2"], ["seed=1,2", "-m"]),
        (["seed=1,2", "--config-dir", "mine", "-m", "mixup=1"], ["seed=1,2", "mixup=1", "--config-dir", "mine", "-m"]),
        (["seed=1", "--cfg", "job"], ["seed=1", "--cfg", "job"]),
        (["--config-dir=~/mine", "seed=1"], ["seed=1", f"--config-dir={Path.home()}/mine"]),
        (["-cd", "~/mine", "seed=1"], ["seed=1", "-cd", f"{Path.home()}/mine"]),
        (["hydra.searchpath=['file://~/mine']"], [f"hydra.searchpath=['file://{Path.home()}/mine']"]),
        (["--config-dir=~nobody_of_this_name/x"], ["--config-dir=~nobody_of_this_name/x"]),
    ],
)
def test_a_flag_may_stand_anywhere(typed, taken, monkeypatch):
    monkeypatch.setattr(arguments, "own_folders", lambda _: [])  # those that are named are not there
    assert hydra_arguments_of(typed, TRAINING_SCHEMA) == taken


@pytest.mark.parametrize(
    ("schema", "typed", "taken"),
    [
        (EVALUATE_SCHEMA, ["sweep/0_seed=1"], ["checkpoint='sweep/0_seed=1'"]),
        (EVALUATE_SCHEMA, ["root=a", "run"], ["root=a", "checkpoint='run'"]),
        (PREDICT_SCHEMA, ["run", "a b.png", "c,d.png"], ["checkpoint='run'", "images=['a b.png','c,d.png']"]),
        (PREDICT_SCHEMA, ["run", "top=1", "a.png"], ["top=1", "checkpoint='run'", "images=['a.png']"]),
        (PREDICT_SCHEMA, ["checkpoint=run", "a.png"], ["checkpoint=run", "images=['a.png']"]),
        (PREDICT_SCHEMA, ["checkpoint=run", "images=a.png", "b.png"], ["checkpoint=run", "images=['a.png','b.png']"]),
        (PREDICT_SCHEMA, ["checkpoint=run", "images=[a.png]", "b.png"], ["checkpoint=run", "images=[a.png,'b.png']"]),
    ],
)
def test_the_folder_of_a_run_and_images_need_no_name(schema, typed, taken):
    assert hydra_arguments_of(typed, schema) == taken


def test_a_tilde_in_an_argument_without_a_name_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert hydra_arguments_of(["~/run"], EVALUATE_SCHEMA) == ["checkpoint='/home/me/run'"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "typed", "line"),
    [
        (TRAINING_SCHEMA, ["--model", "resnet18"], "--model: options are name=value, without dashes: model=resnet18"),
        (TRAINING_SCHEMA, ["--trainer.max_epochs=5"],
         "--trainer.max_epochs=5: options are name=value, without dashes: trainer.max_epochs=5"),
        (TRAINING_SCHEMA, ["--test"], "--test: options are name=value, without dashes: test=true"),
        (TRAINING_SCHEMA, ["--resume", "run"], "--resume: options are name=value, without dashes: resume=run"),
        (TRAINING_SCHEMA, ["--lr=0.1"], "--lr=0.1: options are name=value, without dashes; there is no option lr: "
                                        "optimizer.lr sets the learning rate"),
        (TRAINING_SCHEMA, ["--epochs", "5"], "--epochs: options are name=value, without dashes; there is no option "
                                             "epochs: trainer.max_epochs sets the number of epochs"),
        (TRAINING_SCHEMA, ["-b", "64"], "-b: options are name=value, without dashes; there is no option b: "
                                        "data.batch_size sets the number of images in a batch"),
        (TRAINING_SCHEMA, ["\u2013m", "seed=1,2"], "\u2013m begins with a typographic dash: type -m"),
        (TRAINING_SCHEMA, ["resnet18"], "resnet18: an option is name=value; model=resnet18"),
        (TRAINING_SCHEMA, ["CIFAR10"], "CIFAR10: an option is name=value; data=cifar10"),
        (TRAINING_SCHEMA, ["compile"], "compile: an option is name=value, e.g. compile=true"),
        (TRAINING_SCHEMA, ["resume"], "resume: an option is name=value, e.g. resume=latest"),
        (TRAINING_SCHEMA, ["test"], "test: an option is name=value, e.g. test=false"),
        (TRAINING_SCHEMA, ["model", "resnet8"], "model: an option is name=value, model=resnet8"),
        (TRAINING_SCHEMA, ["optimizer", "seed=1"], "optimizer: an option is name=value, e.g. optimizer=adam"),
        (TRAINING_SCHEMA, ["data.augment"], "data.augment: an option is name=value, e.g. data.augment.scale=null"),
        (TRAINING_SCHEMA, ["trainer.max_epochs:2"],
         "trainer.max_epochs:2: an option is name=value; trainer.max_epochs=2"),
        (TRAINING_SCHEMA, ["help"], "help: an option is name=value; --help shows them"),
        (TRAINING_SCHEMA, ["-model", "resnet8"], "-model: options are name=value, without dashes: model=resnet8"),
        (TRAINING_SCHEMA, ["-help"], "-help: type --help"),
        (EVALUATE_SCHEMA, ["latest", "checkpoint=run"], "latest: checkpoint= is given already: leave one of them out"),
        (TRAINING_SCHEMA, ["max", "epochs=3"], "max epochs=3: a name has no blanks: trainer.max_epochs=3"),
        (TRAINING_SCHEMA, ["model=resnet8 seed=1"],
         "model=resnet8 seed=1: model=resnet8 and seed=1 are two arguments, in Python two strings"),
        (TRAINING_SCHEMA, ["model=resnet8,data=digits"],
         "model=resnet8,data=digits: model=resnet8 and data=digits are two arguments, in Python two strings"),
        (TRAINING_SCHEMA, ["optimizer.lr=10^-3"], "optimizer.lr=10^-3 must be a number from 1e-12 to 1e+38"),
        (TRAINING_SCHEMA, ["data.Root=a^b"], "there is no option data.Root: did you mean data.root?"),
        (TRAINING_SCHEMA, ["data.root=my", "holiday snaps"],
         'holiday snaps: an option is name=value; a value with blanks needs quotes, e.g. "data.root=my photos"'),
        (TRAINING_SCHEMA, ["batch-size=3"],
         "there is no option batch-size: data.batch_size sets the number of images in a batch"),
        (TRAINING_SCHEMA, ["model=resnet18,"], "model=resnet18,: a value is missing after the comma"),
        (TRAINING_SCHEMA, ["model.layers=[1"], "model.layers=[1: a bracket has no partner"),
        (TRAINING_SCHEMA, ["optimizer.betas=(0.9,0.999)"],
         "optimizer.betas=(0.9,0.999): a list has square brackets: 'optimizer.betas=[0.9,0.999]'"),
        (TRAINING_SCHEMA, ["model.name='a"], "model.name='a: a quote has no partner"),
        (TRAINING_SCHEMA, ["model.name=a&b"], "model.name=a&b: text with such characters needs quotes, for the shell "
                                              """too: 'model.name='"'"'a&b'"'"''"""),
        (EVALUATE_SCHEMA, ["run", "other"], "other: an option is name=value; a value with blanks needs quotes, e.g. "
                                            '"data.root=my photos"'),
    ],
)  # fmt: skip
def test_a_mistake_is_answered_with_what_is_meant(schema, typed, line):
    with pytest.raises(UserError) as refused:
        hydra_arguments_of(typed, schema)
    assert str(refused.value) == line


@pytest.mark.parametrize("name", ["~267.PNG", "+1.png", "a=b.jpg", "~a=1.png"])
def test_a_file_that_looks_like_an_option_is_taken_where_files_are(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    assert hydra_arguments_of(["run", name], PREDICT_SCHEMA) == ["checkpoint='run'", f"images=['./{name}']"]


def test_a_file_with_the_name_of_an_option_is_not_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "top=1").touch()
    assert hydra_arguments_of(["top=1"], PREDICT_SCHEMA) == ["top=1"]


@pytest.mark.parametrize("name", ["-dash107.jpg", "-cat.jpg", "--a b.png"])
def test_a_file_that_looks_like_a_flag_is_told_its_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(UserError) as refused:
        hydra_arguments_of(["run", name], PREDICT_SCHEMA)
    path = f"'./{name}'" if " " in name else f"./{name}"
    assert str(refused.value) == f"{name} begins with a dash, as flags do: type {path} for the file of this name"


def test_a_folder_without_a_name_is_answered_by_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "holiday").mkdir()
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    for word, line in {
        "holiday": "holiday: an option is name=value; data=imagefolder data.root=holiday",
        "run": "run: an option is name=value; resume=run or from=run",
    }.items():
        with pytest.raises(UserError, match=f"^{line}$"):
            hydra_arguments_of([word], TRAINING_SCHEMA)
