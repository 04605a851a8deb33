import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import CONF
from hydra import compose
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from reslab.command import (
    check_complete,
    dotted_keys,
    fail,
    job_folder,
    new_folder,
    one_line,
    suggest,
    unknown_option,
    visible,
    with_resumed_settings,
)
from reslab.errors import UserError


def make_folder(parent):
    """Within a run the resolver gives the same folder again."""
    return new_folder.__wrapped__(parent)


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


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model=resnet19", "model=resnet19 does not exist: did you mean resnet9 or resnet18 or resnet14?"),
        ("data=cifar", "data=cifar does not exist: did you mean cifar10 or cifar100?"),
        ("experiment=six_blocks", "experiment=six_blocks does not exist: did you mean six_block?"),
        ("scheduler=linear", "scheduler=linear does not exist; all: constant, cosine, multi_step, one_cycle"),
        ("trainer=defualt", "trainer=defualt does not exist: did you mean default?"),
    ],
)
def test_an_unknown_choice(line_of, override, line):
    assert line_of(override) == line


def test_a_file_that_begins_with_an_underscore_is_no_choice(line_of):
    assert "_data" not in line_of("data=_dat")


@pytest.mark.parametrize(
    ("overrides", "key", "nearest"),
    [
        (["trainer.max_epoch=3"], "trainer.max_epoch", "trainer.max_epochs"),
        (["optimiser.lr=1"], "optimiser", "optimizer"),
        (["sed=1"], "sed", "seed"),
        (["model=resnet50", "model.width_per_grop=8"], "model.width_per_grop", "model.width_per_group"),
        (["optimizer=adamw", "optimizer.beta=1"], "optimizer.beta", "optimizer.betas"),  # SGD has none
        (["data=imagefolder", "data.test_fractoin=1"], "data.test_fractoin", "data.test_fraction"),
    ],
)
def test_an_unknown_option(line_of, overrides, key, nearest):
    line = line_of(*overrides)
    assert "\n" not in line
    assert line.startswith(f"there is no option {key}: did you mean {nearest}")


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
    assert "torch.nn.modules.linear.Linear" in line
    assert "missing 1 required positional argument: 'out_features'" in line
    assert "\n" not in line


def plain(config):
    return {name: value for name, value in OmegaConf.to_container(config).items() if name != "_target_"}


@pytest.mark.parametrize(
    ("error", "line", "status", "lines"),
    [
        (UserError("no such thing:\n  do this"), "error: no such thing:; do this", 2, 1),
        (RuntimeError("out of memory"), "error: RuntimeError: out of memory", 1, 2),
    ],
)
def test_the_exit_status_tells_mistakes_from_failures(capsys, error, line, status, lines):
    with pytest.raises(SystemExit) as stopped:
        fail(error, "config")
    assert stopped.value.code == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0] == line
    assert len(shown.err.splitlines()) == lines  # a failure also tells how to see the traceback


def test_what_must_be_given(composed):
    with pytest.raises(UserError, match=r"^checkpoint, images must be given, e\.g\. checkpoint=…$"):
        check_complete(compose("predict"))
    with pytest.raises(UserError, match=r"^images must be given"):
        check_complete(compose("predict", overrides=["checkpoint=a"]))
    check_complete(compose("predict", overrides=["checkpoint=a", "images=b"]))


# suggestions


def test_what_begins_with_an_underscore_is_never_suggested():
    assert visible(["b", "_base", "a"]) == ["a", "b"]
    assert suggest("_base", ["_base", "bass"], "all") == ": did you mean bass?"
    assert suggest("_base", ["_base"], "nothing") == "; nothing"


def test_dotted_keys():
    assert dotted_keys({"a": {"b": 1, "c": {"d": 2}}, "e": [3]}) == ["a", "a.b", "a.c", "a.c.d", "e"]


def test_the_command_lines_choices_decide_what_is_suggested(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "model=timm", "-m", "seed=1,2", "optimizer.lr=3"])
    assert "did you mean model.timm_name" in unknown_option("model.timm_nam", "config")
    monkeypatch.setattr(sys, "argv", ["train.py"])
    assert "model.timm_name" not in unknown_option("model.timm_nam", "config")


# folders


def test_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "2026-01-31_12-00-00")
    folders = [Path(make_folder(str(tmp_path / "runs"))).name for _ in range(3)]
    assert folders == ["2026-01-31_12-00-00", "2026-01-31_12-00-00_2", "2026-01-31_12-00-00_3"]


def test_a_run_keeps_its_folder(tmp_path):
    assert new_folder(str(tmp_path)) == new_folder(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "pool", [ThreadPoolExecutor, partial(ProcessPoolExecutor, mp_context=get_context("fork"))], ids=["threads", "forks"]
)
def test_no_two_runs_at_once_share_a_folder(tmp_path, monkeypatch, pool):
    monkeypatch.setattr(time, "strftime", lambda _: "now")  # in the forked processes too
    with pool(4) as workers:
        folders = list(workers.map(make_folder, itertools.repeat(str(tmp_path / "runs"), 60)))
    assert len(set(folders)) == 60
    assert sorted(map(Path, folders)) == sorted((tmp_path / "runs").iterdir())


def test_a_thousand_runs_in_a_second_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    for name in ("now", *(f"now_{number}" for number in range(2, 1000))):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match="a thousand runs"):
        make_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ("model=resnet20,seed=2", "3_model=resnet20_seed=2"),
        ("optimizer.lr=1e-05,+trainer.x=-1", "3_optimizer.lr=1e-05_+trainer.x=-1"),
        ("data.root=/my data/../x", "3_data.root=_my_data_.._x"),
        ("model.layers=[2, 2]", "3_model.layers=_2_2"),
        ("data.root=фото", "3_data.root="),  # 120 characters of two bytes would be too many for a file system
        ("", "3"),
    ],
)
def test_a_jobs_folder_reads_like_its_overrides(overrides, name):
    assert job_folder(3, overrides) == name


@pytest.mark.parametrize("overrides", ["x=" + "long" * 100, "x=" + "ü/" * 200, "a=b"])
def test_a_jobs_folder_is_one_short_path_component_of_its_number(tmp_path, overrides):
    folders = [job_folder(number, overrides) for number in (1, 2, 10, 11, 100)]
    assert [folder.split("_")[0] for folder in folders] == ["1", "2", "10", "11", "100"]
    for folder in folders:
        assert len(folder) <= 120
        (tmp_path / folder).mkdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(folders)


def test_the_resolvers_are_known_to_the_configuration(tmp_path):
    config = OmegaConf.create({"dir": f"${{new_folder:{tmp_path}/a}}", "job": "${job_folder:7,'a=1,b=2'}"})
    assert config.job == "7_a=1_b=2"
    assert config.dir == config.dir
    assert Path(config.dir).parent == tmp_path / "a"
    assert CONF.joinpath("config.yaml").read_text().count("${new_folder:") == 2


def test_resume_stands_for_the_runs_own_arguments(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[model=resnet8, seed=3, trainer.max_epochs=2]")
    asked = [f"resume={tmp_path}", "trainer.max_epochs=4"]
    assert with_resumed_settings(asked) == ["model=resnet8", "seed=3", *asked, f"hydra.run.dir={tmp_path}"]
    assert with_resumed_settings(["seed=1"]) == ["seed=1"]
    with pytest.raises(UserError, match="is not a run's folder"):
        with_resumed_settings([f"resume={tmp_path}/.hydra"])
