"""Whether a configuration would be the same run, also where the saved one is older than some options."""

import inspect
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from reslab import run
from reslab.configuration import CONF, flatten, shown
from reslab.errors import UserError
from reslab.run import ABSENT, COUNT_BATCHES, Run, canonical, differences
from reslab.sweeps.jobs import job_identity
from reslab.training.options import TRAINER

# A value that changes what a run does, for each option of ABSENT that a resumed run may not change.
OTHER = {
    "flip_averaging": True, "mixup": 0.2, "cutmix": 1.0, "model.whiten_stem": True, "data.augment.randaugment": 2,
    "data.augment.erasing_aspect": "uniform", "data.augment.erasing_fill": 72,
}  # fmt: skip


def configuration(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = OmegaConf.to_container(compose("config", overrides=["data=imagefolder", *overrides]))
    assert isinstance(config, dict)
    return {str(name): value for name, value in config.items()}


def test_the_run_of_a_checkpoint_is_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "run" / "checkpoints")
    for path in (
        "best.ckpt",
        "./best.ckpt",
        "../checkpoints/best.ckpt",
        tmp_path / "run" / "checkpoints" / "best.ckpt",
    ):
        assert Run.of_checkpoint(path).folder.resolve() == tmp_path / "run"
    monkeypatch.chdir(tmp_path / "run")
    assert (
        Run.of_checkpoint("checkpoints/best.ckpt").folder == Run.of_checkpoint("weights.safetensors").folder == Path()
    )
    (tmp_path / "run" / "checkpoints" / "own").mkdir()
    monkeypatch.chdir(tmp_path / "run" / "checkpoints" / "own")
    assert Run.of_checkpoint("../best.ckpt").folder == tmp_path / "run"


def without(config: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the configuration of a run that is older than an option."""
    group, _, rest = name.partition(".")
    if not rest:
        return {key: value for key, value in config.items() if key != name}
    return config | {group: without(config[group], rest)}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_an_older_run_is_one_with_the_value_that_does_what_it_did(name: str) -> None:
    now = configuration()
    older = without(now, name)
    assert name in flatten(now)
    assert name not in flatten(older)
    assert differences(older, now) == []
    changed = configuration(f"{name}={OTHER[name]}")
    assert differences(older, changed) == [f"{name} was {shown(ABSENT[name])} and is {shown(OTHER[name])}"]


@pytest.mark.slow
def test_a_job_that_is_older_than_an_option_keeps_its_result() -> None:
    for name in ABSENT.keys() & flatten(configuration()).keys():
        now = configuration(f"{name}={shown(ABSENT[name])}")
        assert canonical(job_identity(without(now, name))) == canonical(job_identity(now))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("model.freeze", True, 1), ("trainer.limit_val_batches", 1, 1.0), ("trainer.val_check_interval", 1.0, 1),
        ("data.my_option", False, 0), ("data.my_option", 0.0, False), ("data.my_list", [1, True], [1, 1]),
        ("data.my_list", [{"a": True}], [{"a": 1}]), ("trainer.overfit_batches", 1, True),
    ],
)  # fmt: skip
def test_values_that_python_calls_equal_and_do_other_things_are_different(name: str, before: Any, after: Any) -> None:
    assert before == after
    assert differences({name: before}, {name: after}) == [f"{name} was {shown(before)} and is {shown(after)}"]


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("optimizer.lr", 1, 1.0), ("optimizer.betas", [0, 1.0], [0.0, 1]), ("trainer.overfit_batches", 0.0, 0),
        ("trainer.limit_val_batches", 0, 0.0), ("trainer.limit_train_batches", 0.5, 0.5), ("model.freeze", 2, 2),
        ("data.my_option", float("nan"), float("nan")), ("data.my_group", [{"a": 1}], [{"a": 1.0}]),
    ],
)  # fmt: skip
def test_values_that_do_the_same_are_no_difference(name: str, before: Any, after: Any) -> None:
    assert differences({name: before}, {name: after}) == []


def test_the_page_on_resuming_lists_every_option_that_may_change() -> None:
    page = (Path(__file__).parents[1] / "docs" / "resuming.md").read_text(encoding="utf-8")
    table = page.partition("These options may change:")[2].partition("The name of a group")[0]
    listed = re.findall(r"`([\w.]+)`", table)
    of_the_command = {"resume", "folder", "summary", "find_lr"}  # they are no settings of a run
    assert sorted(listed) == sorted({*run.MAY_DIFFER, *run.MAY_NOT_DIFFER} - of_the_command)


def test_every_option_that_counts_batches_is_known() -> None:
    """One that takes integers and, up to 1, fractions: 1 and 1.0 do other things there."""
    counting = [name for name, kind in TRAINER.items() if kind.allows(7) and kind.allows(0.5) and not kind.allows(1.5)]
    assert sorted(counting) == sorted(COUNT_BATCHES)


def test_a_number_of_threads_that_is_left_to_the_run_is_no_difference() -> None:
    runs = {number: {"threads": number} for number in (None, 2, 4)}
    assert differences(runs[2], runs[4]) == ["threads was 2 and is 4"]
    assert differences(runs[None], runs[4]) == differences(runs[2], runs[None]) == differences({}, runs[4]) == []


def test_a_new_option_is_looked_up_when_configurations_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.ABSENT, "data.new", "before")
    assert differences({"data": {}}, {"data": {"new": "before"}}) == []
    assert differences({"data": {}}, {"data": {"new": "after"}}) == ["data.new was before and is after"]


def test_settings_with_a_path_of_any_bytes_are_read_again(tmp_path: Path) -> None:
    """A path that is no text in the encoding of the locale has surrogates, e.g. every umlaut in LC_ALL=C."""
    saved = Run(tmp_path)
    path = os.fsdecode(b"\xc3\x84pfel-\xff")
    saved.write_settings(OmegaConf.to_yaml({"data": {"root": path}}), [f"data.root='{path}'"])
    assert saved.config == {"data": {"root": path}}
    assert saved.overrides == [f"data.root='{path}'"]
    assert OmegaConf.load(saved.config_file).data.root == path
    saved.config_file.write_text("seed: [1")
    with pytest.raises(yaml.YAMLError):
        _ = saved.config


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{not json", "it is not text"),
        (b'{"status":', "it is not JSON: Expecting value in line 1, column 11"),
        (b"", "it is not JSON: Expecting value in line 1, column 1"),
        (b"[" * 100_000, "it nests too deeply"),
        (b"[1]", "it is not a result with a status"),
        (b'{"test/accuracy": 1}', "it is not a result with a status"),
    ],
)
def test_a_damaged_result_is_unreadable_and_not_absent(tmp_path: Path, content: bytes, reason: str) -> None:
    """A program that reads many runs must not take a finished one for one that was never finished."""
    saved = Run(tmp_path)
    assert saved.result == {"status": "unfinished"}
    saved.result_file.write_bytes(content)
    assert saved.result == {"status": "unreadable", "error": f"result.json: {reason}"}
    assert (saved.status, saved.has_ended, saved.has_failed) == ("unreadable", False, False)


def test_a_result_that_an_editor_has_marked_as_utf_8_is_read(tmp_path: Path) -> None:
    Run(tmp_path).result_file.write_text('{"status": "finished"}', encoding="utf-8-sig")
    assert Run(tmp_path).status == "finished"


def test_a_failure_has_its_time(tmp_path: Path) -> None:
    before = time.time()
    Run(tmp_path).fail("broken")
    assert before - 0.001 <= Run(tmp_path).ended_at <= time.time()


def test_a_folder_to_share_is_written_by_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^format=share is for the command: python src/export.py <run> format=share"):
        Run(tmp_path).export("share")  # type: ignore[arg-type]


# The defaults in which a method differs from its command: it decodes images itself, and has no option `trainer`.
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "predict": {"num_workers": 0},
    "evaluate": {"device": "auto", "data": None},
    "calibrate": {"device": "auto"},
    "export": {},
}


@pytest.mark.parametrize("name", OWN_DEFAULTS)
def test_the_defaults_of_a_method_are_those_of_its_command(name: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        in_conf = compose(name)
    parameters = inspect.signature(getattr(Run, name)).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    assert defaults == {option: in_conf[option] for option in defaults} | OWN_DEFAULTS[name]
