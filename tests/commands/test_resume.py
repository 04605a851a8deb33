"""Runs that are killed, interrupted, moved or changed, and go on: to the last bit as if nothing had happened."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import pytest
import torch
import yaml
from conftest import CONF, FP32, TRAINED
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from outcomes import assert_same, outcome_of

import reslab
from reslab import files
from reslab.commands.entry import errors_as_one_line, run_hydra
from reslab.commands.resume import outputs_of, resumed_command_line
from reslab.configuration import ZOO, composed, flatten, quoted, unquoted, without_plus
from reslab.errors import NothingLeftToDo, RunError, UserError
from reslab.internals import asks_for_sweep
from reslab.newest import newest_first, require_checkpoint
from reslab.run import MAY_DIFFER, Run, differences, identity, may_differ
from reslab.sweeps.options import PRUNING_OVERRIDE
from reslab.sweeps.trust import trust_of
from reslab.training import checkpoints, fit
from reslab.training.options import TRAINING_SCHEMA

TRAIN = str(CONF.parent / "src" / "train.py")

TINY = (
    "model=resnet8",
    "model.widths=[8,8,16]",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=7",
    "page=false",
    FP32,
)
OFTEN = "checkpoint.every_minutes=0.0005"  # 30 ms
KILLS = 10 if "RESLAB_ALL_FAULTS" in os.environ else 4  # of each recipe
RECIPES = {
    "sgd": ("data.augment.erasing=0.5", "data.augment.crop=1", "model.dropout=0.2"),
    "augmented": (
        "data.repeats=3", "data.augment.scale=0.5", "data.augment.right_angles=true", "data.augment.randaugment=5",
        "data.augment.trivial_augment=true", "data.augment.color_jitter=[0.4,0.4,0.4,0.1]", "mixup=0.2",
    ),
    "ema": ("callbacks=ema", "mixup=0.2", "cutmix=1", "scheduler=cosine", "model.stochastic_depth=0.3"),
    "adamw": ("optimizer=adamw", "scheduler=multi_step", "scheduler.milestones=[0.4,0.7]", "data.balance=true"),
    "accumulating": ("trainer.accumulate_grad_batches=3", "label_smoothing=0.1", "trainer.gradient_clip_val=1"),
    "losses": ("loss=binary_cross_entropy", "loss.target_threshold=0.2", "mixup=0.2", "data.class_weights=balanced"),
    "lamb": ("optimizer=lamb", "callbacks=ema", "callbacks.ema.every_steps=4", "callbacks.ema.copy_fraction=0.3"),
    "lion": ("optimizer=lion", "trainer.accumulate_grad_batches=3"),
    "muon": ("optimizer=muon", "model.freeze=1"),
    "preact": ("model.preactivation=true", "model.shortcut=B", "model.downsampling=pool", "flip_averaging=true"),
}  # fmt: skip


def start(folder, *arguments):
    with (folder / "output.txt").open("a") as output:
        return conftest.start("train", *arguments, cwd=folder, stdout=output, stderr=subprocess.STDOUT)


def start_printing(folder, *arguments):
    return conftest.start("train", *arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def run(folder, *arguments):
    assert start(folder, *arguments).wait() == 0, (folder / "output.txt").read_text()


def killed_again_and_again(folder, arguments, kills, seconds, generator):
    """Kill the run `kills` times, each after a random time of up to `seconds`, and let the last one end."""
    for survived in range(kills):
        process = start(folder, *arguments, "resume=auto")
        try:
            status = process.wait(seconds * generator.random())
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        else:  # it has ended before
            assert status == 0, (folder / "output.txt").read_text()
            return survived
    run(folder, *arguments, "resume=auto")
    return kills


def outcome(folder):
    """The outcome of the only run that has a result."""
    # a kill before the run's configuration is written leaves a folder that resume=auto cannot know
    (run_folder,) = (path.parent for path in folder.glob("outputs/*/*/result.json"))
    return outcome_of(run_folder)


def folders(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    return tmp_path / "whole", tmp_path / "parts"


def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(tmp_path):
    whole, parts = folders(tmp_path)
    arguments = (*TINY, *RECIPES["ema"], OFTEN)
    run(whole, *arguments)
    assert killed_again_and_again(parts, arguments, kills=3, seconds=1, generator=random.Random(0)) == 3
    assert_same(outcome(whole), outcome(parts))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_kills_of_each_recipe(tmp_path, recipe):
    arguments = (*TINY, "trainer.max_epochs=8", *RECIPES[recipe], OFTEN)
    whole = tmp_path / "whole"
    whole.mkdir()
    run(whole, *arguments)
    generator, survived, runs = random.Random(recipe), 0, 0
    while survived < KILLS:
        parts = tmp_path / f"parts{runs}"
        parts.mkdir()
        survived += killed_again_and_again(parts, arguments, kills=KILLS - survived, seconds=2, generator=generator)
        assert_same(outcome(whole), outcome(parts))
        runs += 1
    print(f"{recipe}: {survived} kills survived in {runs} runs")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_step_and_ends_the_run(tmp_path, number, status):
    whole, parts = folders(tmp_path)
    arguments = (*TINY, *RECIPES["sgd"])
    run(whole, *arguments)
    process = start(parts, *arguments)
    while not list(parts.glob("outputs/*/*/metrics.csv")):  # the first epoch has ended
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait() == status
    (run_folder,) = parts.glob("outputs/*/*")
    assert json.loads((run_folder / "result.json").read_text())["status"] == "interrupted"
    said = (parts / "output.txt").read_text()
    assert f"interrupted ({number.name}); this continues the run:\n" in said
    assert said.splitlines()[-1].endswith(f" resume={run_folder.relative_to(parts)}")
    assert "Traceback" not in (parts / "output.txt").read_text()
    run(parts, f"resume={run_folder}")
    assert_same(outcome(whole), outcome(parts))


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_signal_to_all_processes_of_a_run_saves_the_step_and_ends_it(tmp_path, digit_files, devices):
    """So do `timeout`, systemd and schedulers end a run, whose processes that read images need to survive."""
    whole, parts = folders(tmp_path)
    images = ("data=imagefolder", f"data.root={digit_files[0].parents[1]}", "data.in_memory=false")
    ranks = () if devices == 1 else ("trainer=ddp_cpu", "trainer.devices=2")
    arguments = (*TINY, *images, "data.image_size=8", "data.num_workers=2", *ranks, "trainer.log_every_n_steps=1")
    arguments += ("resume=auto",)
    run(whole, *arguments)
    process = start_printing(parts, *arguments)
    for line in process.stdout:
        if line.startswith("    1  "):  # the first epoch has ended
            os.killpg(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    run(parts, *arguments)
    assert_same(outcome(whole), outcome(parts))


TWO_PROCESSES = (
    *TINY, *RECIPES["sgd"], "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", OFTEN,
    "trainer.max_epochs=8", "trainer.log_every_n_steps=3", "resume=auto",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory):
    """The outcome of a run of two processes that nothing has interrupted."""
    folder = tmp_path_factory.mktemp("two")
    run(folder, *TWO_PROCESSES)
    return outcome(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_two_processes_go_on_too(tmp_path, whole_of_two, number, status):
    process = start_printing(tmp_path, *TWO_PROCESSES)
    for line in process.stdout:
        if line.startswith("    3  "):
            process.send_signal(number)
    assert process.wait() == status
    run(tmp_path, *TWO_PROCESSES)
    # when epoch 3 is told, 2 is saved
    assert int((tmp_path / "output.txt").read_text().partition(", step ")[2].split()[0]) >= 40
    assert_same(whole_of_two, outcome(tmp_path))


def damage_nothing(path):
    pass


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


CONSTANT = ("scheduler=constant", *TINY)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The outcome of a run with CONSTANT."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(folder, *CONSTANT)
    return outcome(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "broken"), [(damage_nothing, []), (truncate, ["last.broken"]), (flip_a_bit, ["last.broken"])]
)
def test_more_epochs_and_a_broken_checkpoint(tmp_path, uninterrupted, damage, broken):
    """A broken one is set aside and the one before it taken."""
    run(tmp_path, *CONSTANT, "trainer.max_epochs=2")
    (run_folder,) = tmp_path.glob("outputs/*/*")
    damage(run_folder / "checkpoints" / "last.ckpt")
    run(tmp_path, f"resume={run_folder}", "trainer.max_epochs=3")
    assert_same(uninterrupted, outcome(tmp_path))
    assert [path.name for path in (run_folder / "checkpoints").glob("*.broken")] == broken


@pytest.mark.slow
def test_a_run_that_max_steps_ended_within_an_epoch_goes_on_there(tmp_path, uninterrupted):
    run(tmp_path, *CONSTANT, "trainer.max_steps=27")
    (run_folder,) = tmp_path.glob("outputs/*/*")
    run(tmp_path, f"resume={run_folder}", "trainer.max_steps=-1")
    assert_same(uninterrupted, outcome(tmp_path))


@pytest.fixture
def copied(trained, tmp_path):
    """`trained` in a folder of its own, elsewhere than it was trained."""
    return Path(shutil.copytree(trained.folder, tmp_path / "elsewhere"))


def resumed(composed, folder, *overrides):
    return fit.train(composed(*TRAINED, f"folder={folder}", f"resume={folder}", *overrides))


@pytest.mark.slow
def test_a_run_that_was_moved_goes_on_with_its_best_weights(composed, trained, copied):
    before = best_state(trained.folder)
    result = resumed(composed, copied)  # nothing is left to train
    metrics = ("val/accuracy", "test/accuracy", "test/loss", "steps", "best_step")
    assert {name: result[name] for name in metrics} == {name: trained.result[name] for name in metrics}
    assert best_state(copied) == before
    result = resumed(composed, copied, "trainer.max_epochs=5", "optimizer.lr=0.1")
    assert best_state(copied)["best_score"] >= before["best_score"]
    assert best_state(copied)["best_step"] == result["best_step"]


def best_state(folder):
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["global_step"] == checkpoint["callbacks"]["BestCheckpoint"]["best_step"]
    return checkpoint["callbacks"]["BestCheckpoint"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seed=7"], "seed was 42 and is 7"),
        (["model=resnet14"], "model.layers was [1, 1, 1] and is [2, 2, 2]; model.name was resnet8 and is resnet14"),
        (["data.val_fraction=0.2"], "data.val_fraction was 0.1 and is 0.2"),
        (["optimizer.lr=0.01", "mixup=1"], "mixup was 0.0 and is 1; optimizer.lr was 0.1 and is 0.01"),
        (["callbacks=ema"], "callbacks.ema._target_ was null and is reslab.training.averaging.WeightAverage"),
    ],
)
def test_what_would_be_another_run_is_refused(composed, copied, overrides, told):
    before = contents(copied)
    with pytest.raises(UserError) as refused:
        resumed(composed, copied, *overrides)
    assert told in str(refused.value)
    assert contents(copied) == before


def test_fewer_epochs_than_the_run_has_are_refused_and_lose_no_result(composed, copied):
    before = contents(copied)
    with pytest.raises(UserError, match=r"^trainer\.max_epochs=3 is less than the 4 epochs that the run has begun$"):
        resumed(composed, copied, "trainer.max_epochs=3")
    assert contents(copied) == before


def test_other_images_are_another_run(composed, copied):
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["reslab"]["origin"]["data_checksum"] = "0" * 64
    torch.save(checkpoint, path)
    with pytest.raises(UserError, match="data=digits: the images differ from those that the run began with"):
        resumed(composed, copied, "trainer.max_epochs=5")


@pytest.mark.slow
def test_a_result_says_where_the_run_was_trained_before(composed, copied):
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    origin = checkpoint["reslab"]["origin"]
    origin |= {"device": "NVIDIA H100", "precision": "bf16-mixed"}
    torch.save(checkpoint, path)
    expected = {
        name: origin[name] for name in ("device", "processor", "threads", "precision", "versions", "git_commit")
    }
    for epochs in (5, 6):
        result = resumed(composed, copied, f"trainer.max_epochs={epochs}")
        (earlier,) = result["earlier_origins"]
        assert earlier == expected | {"until_step": checkpoint["global_step"]}
        assert (result["device"], result["precision"]) == ("cpu", "32-true")


@pytest.mark.parametrize(
    ("recorded", "told"),
    [
        ([*"123456789", "a cat"], r"\(new: 0; missing: a cat\)"),
        ([*"123456789"], r"\(new: 0\)"),
        ([*"987654321", "0"], r"\(another order\)"),
    ],
)
def test_other_classes_are_another_run(composed, copied, recorded, told):
    """An added class folder, or one of another name, moves the numbers of the classes after it."""
    path = copied / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["reslab"]["spec"]["classes"] = recorded
    torch.save(checkpoint, path)
    before = contents(copied)
    with pytest.raises(UserError, match=f"^data=digits: the classes are not those that the run began with {told}; "):
        resumed(composed, copied, "trainer.max_epochs=5", "data.allow_changes=true")
    assert contents(copied) == before


def test_two_processes_do_not_train_in_one_folder(composed, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOCK_SECONDS", 0)
    with FileLock(tmp_path / ".lock"), pytest.raises(UserError, match="is in use: another process trains there"):
        fit.train(composed(*TRAINED))
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("folder", ["0_seed=1", r"a\b", "it's", r"a\'b", "a\\", r"\\'", "a b,c", '"', "a\\\\b"])
def test_a_folder_on_the_command_line_is_itself_to_hydra_and_back(folder):
    (override,) = OverridesParser.create().parse_overrides([f"hydra.run.dir={quoted(folder)}"])
    assert override.value() == folder
    assert unquoted(quoted(folder)) == folder


def test_another_launcher_takes_none_of_the_options_of_the_one_before(tmp_path):
    begun = ["hydra/launcher=slurm", "hydra.launcher.timeout_min=5", "+hydra.launcher.slurm_constraint=a100"]
    record = {"hydra": {"overrides": {"task": ["seed=1,2"], "hydra": [*begun, "hydra.mode=MULTIRUN"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(record))
    place = [f"hydra.sweep.dir='{tmp_path}'"]
    own = ["hydra.mode=MULTIRUN", "seed=1,2", *place]
    assert resumed_command_line([f"resume={tmp_path}"]) == [*begun, *own]
    other = ["hydra/launcher=parallel", "hydra.launcher.n_jobs=3"]
    assert resumed_command_line([f"resume={tmp_path}", *other]) == [other[0], *own, other[1]]
    more = "+hydra.launcher.slurm_account=me"
    assert resumed_command_line([f"resume={tmp_path}", begun[0], more]) == [*begun, *own, more]
    flags = ["--config-dir=mine", "-cd", "mine"]
    assert resumed_command_line([f"resume={tmp_path}", *flags]) == [*begun, *own, *flags]


@pytest.mark.parametrize("torn", ["", "hydra:", "hydra: {overrides: [", "hydra: {overrides: {}}"])
def test_a_sweep_whose_settings_were_cut_off_tells_how_to_go_on(tmp_path, torn):
    (tmp_path / "multirun.yaml").write_text(torn)
    with pytest.raises(UserError, match=rf"multirun\.yaml is incomplete: remove it and .*hydra\.sweep\.dir={tmp_path}"):
        resumed_command_line([f"resume={tmp_path}"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["optimizer.lr=1e30"], r"^the loss became (nan|inf) by step 6, at learning rate \S+: lower optimizer.lr; "),
        (["optimizer.lr=1e39", "scheduler=constant", "trainer.max_steps=1"], r"\S+ is no longer finite after step 1, "),
    ],
)
def test_weights_that_are_lost_are_not_written(composed, tmp_path, overrides, told):
    with pytest.raises(RunError, match=told + ".*no checkpoint was written yet$"):
        fit.train(composed(*TRAINED, *overrides))
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.slow
def test_a_run_that_diverges_later_keeps_its_last_good_checkpoint(composed, tmp_path):
    fit.train(composed(*TRAINED, "scheduler=constant", "trainer.max_epochs=1", "test=false"))
    path = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] = 1e30
    checkpoint["lr_schedulers"][0]["base_lrs"] = [1e30, 1e30]
    torch.save(checkpoint, path)
    before = path.read_bytes()
    with pytest.raises(RunError, match=rf"the loss became (nan|inf) by step 26, .*; {path} is of step 20$"):
        resumed(composed, tmp_path, "scheduler=constant", "test=false")
    assert path.read_bytes() == before


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_whole(tmp_path):
    whole, parts = folders(tmp_path)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", parts], check=False).returncode:
        pytest.skip("only root mounts a disk of its own")
    try:
        arguments = (*TINY, "model.widths=[16,32,64]", "trainer.max_epochs=4")
        run(whole, *arguments)
        process = start(parts, *arguments)  # 630 kB a checkpoint: there is place for three, but not for the fourth
        assert process.wait() == 1
        output = (parts / "output.txt").read_text()
        assert re.search(
            r"error: the disk is full: free some space; this continues the run: \S+ \S*train\.py resume=", output
        )
        assert "Traceback" not in output
        shutil.copytree(parts / "outputs", tmp_path / "larger" / "outputs")
        (run_folder,) = (tmp_path / "larger").glob("outputs/*/*")
        assert json.loads((run_folder / "result.json").read_text())["status"] == "failed"
        run(tmp_path / "larger", f"resume={run_folder}")
        assert_same(outcome(whole), outcome(tmp_path / "larger"))
    finally:
        subprocess.run(["umount", parts], check=True)


# the command line


def make_run(folder, overrides, status=None, config_dir=None):
    """Write the settings of a run as Hydra writes them."""
    settings = Run(folder)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        own = [f"hydra.searchpath=['file://{config_dir}']"] if config_dir else []
        settings.write_settings(OmegaConf.to_yaml(compose("config", [*overrides, *own])), overrides)
    if status:
        (folder / "result.json").write_text(json.dumps({"status": status}))
    return folder


@pytest.mark.slow
def test_resume_stands_for_the_runs_own_arguments(tmp_path):
    folder = make_run(tmp_path / "0_seed=3", ["model=resnet8", "seed=3", "trainer.max_epochs=2"])
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    asked = resumed_command_line([f"resume={folder}", "trainer.max_epochs=4"])
    assert asked == ["model=resnet8", "seed=3", "trainer.max_epochs=4", *place]
    assert resumed_command_line(asked) == asked  # as a further process of the run asks
    assert resumed_command_line(["seed=1"]) == ["seed=1"]
    with pytest.raises(UserError, match="does not exist; resume=latest takes"):
        resumed_command_line([f"resume={tmp_path}/.hydra"])
    with pytest.raises(UserError, match="is not the folder of a sweep"):
        resumed_command_line([f"resume={folder}", "-m"])


def test_a_checkpoint_stands_for_its_run(tmp_path):
    folder = make_run(tmp_path, ["seed=3"])
    best = folder / "checkpoints" / "best.ckpt"
    best.parent.mkdir()
    best.touch()
    place = [f"resume='{best}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    assert resumed_command_line([f"resume={best}"]) == ["seed=3", *place]


@pytest.mark.slow
def test_a_run_of_an_older_version_keeps_its_network(tmp_path):
    """The configuration of an older run lacks the options that model=resnet9 sets since."""
    folder = make_run(tmp_path, ["model=resnet9", "seed=3"])
    config = Run(folder).config
    former = {"model.relu_before_addition": False, "model.classifier_bias": True, "model.logit_scale": 1.0}
    for name in former:
        del config["model"][name.removeprefix("model.")]
    Run(folder).write_settings(yaml.safe_dump(config), Run(folder).overrides)
    asked = resumed_command_line([f"resume={folder}", "model.pooling=max"])
    older = [f"{name}={str(value).lower()}" for name, value in former.items()]
    assert asked[:6] == [*older, "model=resnet9", "seed=3", "model.pooling=max"]


@pytest.mark.slow
def test_an_older_run_keeps_what_it_said_of_its_logger(tmp_path):
    """Its options had no `tensorboard.` in their names when there was one logger only."""
    now = composed("config", ["logger.tensorboard.group_by=split"], [])
    then = now | {"logger": now["logger"]["tensorboard"]}
    Run(tmp_path).write_settings(yaml.safe_dump(then), ["logger.group_by=split", "+logger.flush_secs=9", "seed=42"])
    for option in ("resume", "from"):
        assert resumed_command_line([f"{option}={tmp_path}", "seed=1"])[:3] == [
            "logger.tensorboard.group_by=split", "+logger.tensorboard.flush_secs=9", "seed=1",
        ]  # fmt: skip
    then["logger"]["group_by"] = "metric"  # as in a run that said nothing of it
    Run(tmp_path).write_settings(yaml.safe_dump(then), ["seed=42"])
    assert not [each for each in resumed_command_line([f"resume={tmp_path}"]) if each.startswith("logger")]


def test_an_older_sweep_keeps_what_it_said_of_its_logger(tmp_path):
    overrides = {"hydra": ["hydra.mode=MULTIRUN"], "task": ["logger.group_by=split", "seed=1,2"]}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": overrides}}))
    assert "logger.tensorboard.group_by=split" in resumed_command_line([f"resume={tmp_path}"])


def test_an_older_run_keeps_what_it_said_of_its_pictures(tmp_path):
    """The callback had the name of TensorBoard when there was one logger only."""
    now = composed("config", [], [])
    made = now["callbacks"].pop("texts_and_pictures")
    former = "reslab.training.tensorboard.TensorBoardReport"
    now["callbacks"]["tensorboard_report"] = made | {"_target_": former, "num_images": 8}
    said = ["callbacks.tensorboard_report.num_images=8", "~callbacks.tensorboard_report"]
    Run(tmp_path).write_settings(yaml.safe_dump(now), said)
    assert resumed_command_line([f"resume={tmp_path}"])[:2] == [
        "callbacks.texts_and_pictures.num_images=8", "~callbacks.texts_and_pictures"
    ]  # fmt: skip
    today = composed("config", ["callbacks.texts_and_pictures.num_images=8"], [])
    assert identity(now) == identity(today)


@pytest.mark.slow
def test_an_option_that_an_older_version_did_not_list_needs_its_plus_no_longer(tmp_path, monkeypatch):
    now = composed("config", ["optimizer=adam", "optimizer.eps=1e-5", "callbacks=early_stopping"], [])
    folder = tmp_path / "outputs" / "a" / "1"
    then = ["optimizer=adam", "+optimizer.eps=1e-5", "callbacks=early_stopping"]
    Run(folder).write_settings(yaml.safe_dump(now), then)
    for option in ("resume", "from"):
        arguments = resumed_command_line([f"{option}={folder}", "+optimizer.amsgrad=true"])
        assert [each for each in arguments if "optimizer." in each] == [
            "optimizer.eps=1e-5", "+optimizer.amsgrad=true"
        ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert "optimizer.eps=1e-5" in resumed_command_line(["resume=auto", *without_plus("config", then)])
    assert without_plus("config", ["seed=1", "++seed=2", "+seed=3", "+a.b=4"]) == [
        "seed=1",
        "++seed=2",
        "seed=3",
        "+a.b=4",
    ]


@pytest.mark.slow
def test_a_run_of_ones_own_model_asks_for_its_folder_of_configuration(tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "tiny.yaml").write_text("defaults: [resnet8]\nname: tiny\n")
    folder = make_run(tmp_path / "run", ["model=tiny"], config_dir=tmp_path / "mine")
    for option in ("resume", "from"):
        with pytest.raises(UserError, match=rf"^{option}={folder} needs model/tiny.yaml, which conf/ .*--config-dir="):
            resumed_command_line([f"{option}={folder}"])
        assert "model=tiny" in resumed_command_line([f"{option}={folder}", f"--config-dir={tmp_path}/mine"])


@pytest.mark.slow
def test_auto_is_the_newest_unfinished_run_of_the_same_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["model=resnet8", "seed=3", "resume=auto"]
    assert resumed_command_line(asked) == asked[:2]
    assert capsys.readouterr().out == (
        "resume=auto: there is no unfinished run or sweep of this very command, so a new one begins\n"
    )
    runs = {
        "finished": (asked[:2], "finished"), "other": (["seed=3"], "failed"), "older": (asked[1::-1], None),
        "newer": (asked[:2], "interrupted"), "newest": (asked[:2], "finished"),
    }  # fmt: skip
    for age, (name, (overrides, status)) in enumerate(runs.items()):
        folder = make_run(Path("outputs") / "resnet8-digits" / name, overrides, status)
        os.utime(folder / ".hydra" / "config.yaml", (age, age))
    folder = Path("outputs/resnet8-digits/newer")
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    assert resumed_command_line(asked) == [*asked[1::-1][::-1], *place]
    (folder / ".hydra" / "overrides.yaml").write_text("[seed='3")  # killed while Hydra wrote it
    assert "resume='outputs/resnet8-digits/older'" in resumed_command_line(asked)
    assert resumed_command_line([*asked, "hydra.run.dir=new"]) == [*asked[:2], "hydra.run.dir=new"]


@pytest.mark.parametrize(("status", "says"), [("finished", "has finished"), ("pruned", "was pruned")])
def test_auto_has_nothing_left_to_do_in_the_folder_of_a_run_that_has_ended(tmp_path, capsys, status, says):
    """A cluster gives the same command again and again."""
    folder = make_run(tmp_path / "run", ["seed=3"], status)
    before = contents(folder)
    asked = ["resume=auto", f"hydra.run.dir={folder}"]
    with pytest.raises(NothingLeftToDo) as ended:
        resumed_command_line(["seed=3", *asked])
    assert ended.value.folder == folder
    assert capsys.readouterr().out == f"resume=auto: {folder} {says}, so nothing is left to do\n"
    with pytest.raises(UserError, match=r"holds a run: resume=.* continues it"):  # another command
        resumed_command_line(["seed=4", *asked])
    assert capsys.readouterr().out == ""
    assert contents(folder) == before


def test_a_command_with_nothing_left_to_do_has_succeeded(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run", ["seed=3"], "finished")
    arguments = ["seed=3", "resume=auto", f"hydra.run.dir={folder}"]
    assert reslab.train(*arguments).folder == folder
    monkeypatch.setattr(sys, "argv", [TRAIN, *arguments])
    with pytest.raises(SystemExit) as ended, errors_as_one_line("config"):
        run_hydra(TRAINING_SCHEMA, lambda config: pytest.fail("it trains"))
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("rows", "status", "says"),
    [
        ("epoch,step\n1,20\n", "finished", "has finished at step 80"),
        ("epoch,step\n1,20\n", "pruned", "was pruned at step 80"),
        ("epoch,step\n1,20\n2,40\n", "interrupted", "had reached epoch 2"),
        ("epoch,step\n1,20\n2,40\n", None, "had reached epoch 2"),
    ],
)
def test_a_run_whose_checkpoints_are_missing_does_not_start_again(composed, tmp_path, rows, status, says):
    folder = tmp_path / "run"
    Run(folder).write_settings(OmegaConf.to_yaml(composed(*TRAINED)), TRAINED)
    (folder / "metrics.csv").write_text(rows)
    if status:
        (folder / "result.json").write_text(json.dumps({"status": status, "steps": 80}))
    before = contents(folder)
    line = f"{folder} {says}, and its checkpoints are missing"
    with pytest.raises(UserError) as refused:
        resumed(composed, folder)
    assert str(refused.value) == f"{line}: from={folder} repeats the run in a new folder"
    with pytest.raises(UserError, match=line):
        reslab.load(folder).classifier()
    with pytest.raises(UserError, match=f"^checkpoint={folder}: {line}$"):
        require_checkpoint(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("rows", ["", "epoch,step\n1,20\n"])
def test_a_run_that_may_not_have_written_a_checkpoint_starts_again(composed, tmp_path, rows, caplog):
    """metrics.csv is written shortly before the checkpoint of an epoch."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.csv").write_text(rows)
    assert checkpoints.resumed_checkpoint(folder, composed(f"folder={folder}")) is None
    assert caplog.messages == [f"resume={folder}: the run has no checkpoint, so it starts again"]


def test_auto_is_the_newest_unfinished_sweep_of_the_same_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["seed=1,2", "hydra.sweeper.trials=3", "resume=auto"]
    sweeps = {
        "killed": (["hydra.mode=MULTIRUN", "hydra.sweep.dir='x'", "hydra/launcher=ray", *asked[:2]], None),
        "finished": (["hydra.mode=MULTIRUN", *asked[:2]], "finished"),
        "of_an_experiment": (asked[:2], "interrupted"),
        "of_more_trials": (["hydra.mode=MULTIRUN", "seed=1,2", "hydra.sweeper.trials=4"], None),
    }
    for age, (name, (arguments, status)) in enumerate(sweeps.items()):
        folder = tmp_path / "outputs" / "multirun" / name
        folder.mkdir(parents=True)
        overrides = {"hydra": {"overrides": {"hydra": arguments, "task": []}}}
        (folder / "multirun.yaml").write_text(yaml.safe_dump(overrides))
        os.utime(folder / "multirun.yaml", (age, age))
        if status:
            (folder / "result.json").write_text(json.dumps({"status": status}))
    assert resumed_command_line(asked)[-1] == "hydra.sweep.dir='outputs/multirun/of_an_experiment'"
    a_run = make_run(Path("outputs") / "resnet20-digits" / "a_run", [], "failed")
    Run(a_run).write_settings("seed: 42\n", ["seed=1,2"])
    assert resumed_command_line(["-m", *asked])[1] == "hydra.sweep.dir='outputs/multirun/killed'"
    (tmp_path / "outputs" / "multirun" / "killed" / "multirun.yaml").write_text("hydra:\n")  # while Hydra wrote it
    assert resumed_command_line(["-m", *asked]) == ["-m", *asked[:2]]


def test_a_new_run_does_not_take_anothers_folder(tmp_path):
    folder = make_run(tmp_path / "run", ["seed=3"], "finished")
    with pytest.raises(UserError, match=f"{folder} holds a run: resume={folder} continues it"):
        resumed_command_line(["seed=4", f"hydra.run.dir={folder}"])


def test_what_may_differ():
    assert differences({"a": 1, "test": True}, {"a": 1, "test": False}) == []
    assert differences({"a": {"b": 1}}, {"a": {"b": 2, "c": None}}) == ["a.b was 1 and is 2"]
    assert may_differ("callbacks.default.patience")
    assert not may_differ("callbacks.ema.decay")
    assert not may_differ("trainer.max_epochs_")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        known = flatten(OmegaConf.to_container(compose("config", ["data=imagefolder"])))
    assert [name for name in MAY_DIFFER if not any(key == name or key.startswith(f"{name}.") for key in known)] == []


def sweep_folder(folder, task, hydra=(), **options):
    folder.mkdir(parents=True)
    overrides = {"hydra": {"overrides": {"task": list(task), "hydra": list(hydra)}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(options | overrides))
    return folder


def test_resume_stands_for_a_sweeps_own_arguments(tmp_path):
    folder = sweep_folder(
        tmp_path / "a",
        ["seed=1,2"],
        ["hydra/sweeper=optuna", "hydra.sweeper.trials=5", "hydra.sweep.dir=x", "hydra.mode=MULTIRUN"],
    )
    place = [f"hydra.sweep.dir='{folder}'"]
    own = ["hydra/sweeper=optuna", "hydra.sweeper.trials=5", *place, "hydra.mode=MULTIRUN", "seed=1,2"]
    assert resumed_command_line([f"resume={folder}"]) == own
    assert resumed_command_line(["-m", "seed=1,2", "hydra/sweeper=optuna", f"resume={folder}"]) == own
    more = resumed_command_line([f"resume={folder}", "hydra.sweeper.trials=9", "hydra/launcher=parallel"])
    assert more == [own[0], "hydra.sweeper.trials=9", *own[2:], "hydra/launcher=parallel"]


def test_the_folder_of_a_sweep_is_refused_for_another_sweep(tmp_path):
    folder = sweep_folder(tmp_path / "a", ["seed=1,2"])
    for given, started_with in (
        ("seed=1,2,3", "seed=1,2"),
        ("mixup=0.1", "no mixup"),
        ("hydra.sweeper.seed=1", "no hydra"),
    ):
        line = rf"^resume={folder} is a sweep that was started with {started_with}.*, not {given}: start"
        with pytest.raises(UserError, match=line):
            resumed_command_line([f"resume={folder}", given])
    with pytest.raises(UserError, match=f"{folder} holds a sweep: resume={folder} continues it"):
        resumed_command_line(["-m", "seed=1,2", f"hydra.sweep.dir={folder}"])


def test_a_sweep_of_the_users_own_configuration_asks_for_its_folder(tmp_path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "z.yaml").write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    needs = "which conf/ does not have: give your own folder of configuration, --config-dir=<folder>$"
    own = f"--config-dir={tmp_path}/mine"
    for name, choice, file in (("a", "experiment=z", "experiment/z"), ("b", "model=resnet8,tiny", "model/tiny")):
        folder = sweep_folder(tmp_path / name, [choice, "optimizer.lr=0.1,0.2", "z.knob=3"])
        with pytest.raises(UserError, match=rf"^resume={folder} needs {file}\.yaml, {needs}"):
            resumed_command_line([f"resume={folder}"])
    assert resumed_command_line([f"resume={tmp_path}/a", "trust=true", own])[-1] == own


def test_the_job_of_a_sweep_that_an_experiment_asks_for_is_resumed_as_a_single_run(tmp_path):
    folder = make_run(tmp_path / "0", ["model=plain20", "experiment=degradation"])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for option in ("resume", "from"):
            arguments = resumed_command_line([f"{option}={folder}"])
            assert not asks_for_sweep("config", [each for each in arguments if not each.startswith("resume=")])
        assert asks_for_sweep("config", resumed_command_line([f"from={folder}", "hydra.mode=MULTIRUN"]))


def test_the_flags_of_a_resumed_run_stay_together_at_the_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "mine.yaml").write_text("defaults: [resnet8]\nname: mine\n")
    folder = make_run(tmp_path / "run", ["model=mine", "seed=3"], config_dir=tmp_path / "mine")
    asked = ["--config-dir", "mine", f"resume={folder}", "seed=4"]
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    assert resumed_command_line(asked) == ["model=mine", "seed=4", *place, "--config-dir", "mine"]


# a run's folder may come from a stranger


@pytest.mark.slow
def test_what_the_user_gives_or_trusts_is_taken(tmp_path):
    mine = ["+callbacks.mine._target_=my.Callback", "+callbacks.mine.path=/x"]
    folder = make_run(tmp_path / "run", ["seed=3", *mine])
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    with pytest.raises(UserError, match=r"would set \+callbacks\.mine\._target_=my\.Callback, which is refused"):
        resumed_command_line([f"resume={folder}"])
    assert resumed_command_line([f"resume={folder}", "trust=true"]) == ["seed=3", *mine, *place]
    assert trust_of(folder) == ["trust=true"]
    again = resumed_command_line([f"resume={folder}", *mine])
    assert again == ["seed=3", *mine, *place]
    assert resumed_command_line(again) == again  # a further process of the run needs no trust=true
    assert resumed_command_line([f"from={folder}", "trust=true", "seed=4"]) == [*mine, "seed=4", "hydra.mode=RUN"]


@pytest.mark.slow
def test_the_run_of_a_search_is_resumed_and_repeated_outside_of_it(tmp_path):
    folder = make_run(tmp_path / "run", ["seed=3", PRUNING_OVERRIDE])
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    assert resumed_command_line([f"from={folder}"]) == ["seed=3", "hydra.mode=RUN"]
    assert resumed_command_line([f"resume={folder}"]) == ["seed=3", *place]
    assert trust_of(folder) == []
    assert resumed_command_line([f"resume={folder}", PRUNING_OVERRIDE]) == ["seed=3", PRUNING_OVERRIDE, *place]


def test_the_printed_command_has_what_the_outputs_of_a_run_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = make_run(Path("run"), ["seed=3", "outputs='${oc.env:SCRATCH}/x'"])
    assert trust_of(folder) == ["trust=true"]
    with pytest.raises(UserError, match=r"^resume=run would set outputs="):
        resumed_command_line(["resume=run"])
    assert "outputs='${oc.env:SCRATCH}/x'" in resumed_command_line(["resume=run", *trust_of(folder)])
    assert resumed_command_line(["from=run"]) == ["seed=3", "hydra.mode=RUN"]  # a repeated run has its own place


def test_a_run_and_a_sweep_are_not_resumed_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_run(Path("run"), ["seed=3", "outputs=began_with"])
    sweep_folder(Path("sweep"), ["seed=1,2", "outputs=began_with"], ["hydra.mode=MULTIRUN"], outputs="began_with")
    for folder, option in (("run", "hydra.run.dir"), ("sweep", "hydra.sweep.dir")):
        with pytest.raises(UserError, match=rf"^resume= continues in {folder}: leave out {option}=, or repeat"):
            resumed_command_line([f"resume={folder}", f"{option}=other"])
        Path("link").unlink(missing_ok=True)
        Path("link").symlink_to(folder)
        for same in (tmp_path / folder, f"run/../{folder}", "link"):
            assert f"{option}='{folder}'" in resumed_command_line([f"resume={folder}", f"{option}='{same}'"])
        with pytest.raises(
            UserError, match=rf"^resume= continues in {folder}, which is not in {tmp_path}/other: leave"
        ):
            resumed_command_line([f"resume={folder}", "outputs=other"])
        assert "outputs=began_with" in resumed_command_line([f"resume={folder}"])  # where MLflow's database is
        for outputs in (".", "began_with"):
            assert f"{option}='{folder}'" in resumed_command_line([f"resume={folder}", f"outputs={outputs}"])
    with pytest.raises(UserError, match="from=sweep is a sweep: from= repeats one run, give the folder of a job"):
        resumed_command_line(["from=sweep"])


def test_runs_are_looked_for_where_an_experiment_puts_them(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "elsewhere.yaml").write_text("# @package _global_\noutputs: runs\n")
    own = ["--config-dir", str(tmp_path)]
    assert outputs_of(["experiment=elsewhere", *own]) == "runs"
    assert outputs_of(["seed=1", *own]) == outputs_of(["experiment=missing", *own]) == "outputs"
    assert outputs_of(["experiment=missing", "outputs='it\\'s here'"]) == "it's here"


def test_runs_are_looked_for_where_an_interpolation_puts_them(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    (tmp_path / "experiment").mkdir()
    for name, outputs in {"home": "~/runs", "computed": "${oc.env:SCRATCH}/${model.name}/${seed}"}.items():
        (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\noutputs: {outputs}\n")
    own = ["--config-dir", str(tmp_path)]
    assert outputs_of(["experiment=home", *own]) == "/home/me/runs"
    computed = ["experiment=computed", "model=resnet8", "seed=3", *own]
    assert outputs_of(computed) == outputs_of([*computed, "-m", "mixup=0,1", "hydra.run.dir=x"]) == "/scratch/resnet8/3"
    assert outputs_of(["outputs=${oc.env:SCRATCH}/x", *own]) == "/scratch/x"
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(
        UserError, match=r"^outputs=\$\{oc\.env:SCRATCH\}/.* is not known before .*SCRATCH.*: give outputs="
    ):
        outputs_of(computed)


def test_the_flags_of_a_repeated_run_stay_together_at_the_end(tmp_path):
    folder = make_run(tmp_path / "run", ["model=resnet8", "seed=3"])
    asked = ["-m", "--config-dir", str(tmp_path), f"from={folder}", "seed=4,5"]
    assert resumed_command_line(asked) == ["model=resnet8", "seed=4,5", "-m", "--config-dir", str(tmp_path)]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trust=true"], "^trust= says that .*: it needs one of them$"),
        (["trust=1", "resume=x"], "^trust=1 must be true or false$"),
        (["from=x", "resume=x"], "^resume= continues a run in its folder, from= repeats it in a new one: choose one$"),
        (
            ["from=x"],
            "^from=x does not exist; from=latest takes the newest run below outputs$",
        ),
    ],
)
def test_trust_and_from_are_checked(arguments, line):
    with pytest.raises(UserError, match=line):
        resumed_command_line(arguments)


@pytest.mark.slow
def test_the_folder_that_is_named_decides_where_a_resumed_run_is(tmp_path):
    """No saved override moves a run or a sweep to another folder; `outputs` says only where MLflow's database is."""
    other = make_run(tmp_path / "other", ["seed=1"], "finished")
    places = [
        f"folder={other}",
        f"outputs={other}",
        f"hydra.run.dir={other}",
        f"resume={other}",
        "hydra.output_subdir=x",
    ]
    folder = make_run(tmp_path / "run", ["seed=3"])
    Run(folder).write_settings(Run(folder).config_file.read_text(), ["seed=3", *places])
    place = [f"resume='{folder}'", f"hydra.run.dir='{folder}'", "hydra.output_subdir=null", "hydra.mode=RUN"]
    for trust in ([], ["trust=true"]):
        assert resumed_command_line([f"resume={folder}", *trust]) == ["seed=3", f"outputs={other}", *place]
        assert resumed_command_line([f"from={folder}", *trust]) == ["seed=3", "hydra.mode=RUN"]
    sweep = sweep_folder(tmp_path / "sweep", ["seed=1,2", *places[:2]], [f"hydra.sweep.dir={other}", places[2]])
    assert resumed_command_line([f"resume={sweep}"]) == [f"hydra.sweep.dir='{sweep}'", "seed=1,2", f"outputs={other}"]


@pytest.mark.slow
@pytest.mark.parametrize("torn", ["", "\0" * 99, "[seed=3", "{}", "- 3\n"])
@pytest.mark.parametrize("name", ["overrides.yaml", "config.yaml"])
def test_settings_that_were_cut_off_are_refused(tmp_path, name, torn):
    folder = make_run(tmp_path / "run", ["model=resnet8", "seed=3"])
    (folder / ".hydra" / name).write_text(torn)
    with pytest.raises(
        UserError, match=rf"^resume={folder} has incomplete settings in {folder}/.hydra: start a new run$"
    ):
        resumed_command_line([f"resume={folder}"])


def test_settings_of_which_a_part_was_lost_are_refused(tmp_path):
    folder = make_run(tmp_path / "run", ["model=resnet8", "seed=3"])
    Run(folder).write_settings(Run(folder).config_file.read_text(), ["model=resnet8"])
    with pytest.raises(UserError, match=r"are of different runs: seed was 3 and is 42; start a new run$"):
        resumed_command_line([f"resume={folder}"])


@pytest.mark.slow
def test_a_run_is_repeated_in_a_new_folder(tmp_path):
    whole, parts = folders(tmp_path)
    run(whole, *TINY, *RECIPES["sgd"], "trainer.max_epochs=1")
    (folder,) = whole.glob("outputs/*/*")
    run(parts, f"from={folder}")
    assert_same(outcome(whole), outcome(parts))


# which folder is meant


def make_settings(folder, when):
    Run(folder).write_settings(yaml.safe_dump(composed("config", ["seed=7"], [])), ["seed=7"])
    os.utime(Run(folder).config_file, (when, when))


@pytest.mark.slow
@pytest.mark.parametrize("option", ["resume", "from"])
def test_a_folder_of_runs_names_its_newest_run(tmp_path, monkeypatch, capsys, option):
    monkeypatch.chdir(tmp_path)
    for when, name in enumerate(["a/1", "a/2", "b/3"]):
        make_settings(tmp_path / "outputs" / name, when)
    for asked, newest in {"outputs/a": "outputs/a/2", "outputs": "outputs/b/3", "latest": "outputs/b/3"}.items():
        arguments = resumed_command_line([f"{option}={asked}"])
        assert capsys.readouterr().out == f"{option}={asked}: the newest run or sweep there is {newest}\n"
        assert arguments == resumed_command_line([f"{option}={newest}"])
        assert "seed=7" in arguments
        assert capsys.readouterr().out == ""


def test_the_jobs_of_a_sweep_are_not_resumed_in_its_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_settings(tmp_path / "multirun" / "1" / "0_seed=7", when=9)
    (tmp_path / "multirun" / "1" / "multirun.yaml").write_text("[seed=7]")
    assert list(newest_first(Path("multirun"))) == [Path("multirun/1")]


@pytest.mark.parametrize("option", ["resume", "from"])
def test_latest_without_any_run_is_one_line(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    for outputs, lacking in (("outputs", "does not exist"), ("scratch", "holds none")):
        (tmp_path / "scratch").mkdir(exist_ok=True)
        line = f"^{option}=latest is the newest run below {outputs}, and {tmp_path}/{outputs} {lacking}: change to the"
        with pytest.raises(UserError, match=line):
            resumed_command_line([f"{option}=latest", f"outputs={outputs}"])


@pytest.mark.parametrize("option", ["resume", "from"])
def test_a_folder_that_does_not_exist_is_answered_with_the_nearest_one(tmp_path, monkeypatch, option):
    monkeypatch.chdir(tmp_path)
    make_settings(tmp_path / "outputs" / "2026-01-31_12-00-00", when=1)
    with pytest.raises(
        UserError, match=f"^{option}=nowhere does not exist; {option}=latest takes the newest run below"
    ):
        resumed_command_line([f"{option}=nowhere"])
    with pytest.raises(UserError, match=r"does not exist: did you mean outputs/2026-01-31_12-00-00\?$"):
        resumed_command_line([f"{option}=outputs/2026-01-31_12-00-01"])


# a network that is shared


@pytest.mark.parametrize("name", ["zoo/digits_resnet8", "zoo:digits_resnet8"])
def test_weights_without_an_optimizer_are_not_resumed(name):
    with pytest.raises(UserError) as raised:
        resumed_command_line([f"resume={name}"])
    assert str(raised.value).startswith(f"resume={name} holds weights without the state of the optimizer")
    assert f"from={name} repeats the run, model.weights={name} begins" in str(raised.value)
    with pytest.raises(UserError, match="without the state of the optimizer"):
        resumed_command_line([f"resume={ZOO / 'digits_resnet8' / 'weights.safetensors'}"])


def test_a_network_of_the_zoo_is_trained_again_by_its_own_command():
    again = ["model=resnet8", "seed=3", "hydra.mode=RUN"]
    assert resumed_command_line(["from=zoo/digits_resnet8", "seed=3"]) == again
