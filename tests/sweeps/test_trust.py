"""A run's folder may come from a stranger: its saved options set what conf/ has, and nothing else."""

import sys

import pytest
import yaml

from reslab.commands.resume import resumed_command_line
from reslab.configuration import composed
from reslab.errors import UserError
from reslab.machine import command
from reslab.run import Run
from reslab.sweeps.trust import refuse_untrusted, resuming_command, trust_of

REFUSED = [
    "+hydra.callbacks.x._target_=malicious.recorder", "+callbacks.x._target_=malicious.recorder",
    "+callbacks.x={_target_: malicious.recorder}", "callbacks={x: {_target_: malicious.recorder}}",
    "model._target_=malicious.recorder", "optimizer={_target_: malicious.recorder}", "+optimizer._args_=[1]",
    "++trainer.callbacks=[{_target_: malicious.recorder}]", "hydra.searchpath=[file:///tmp]", "--config-dir=/x",
    "-cd", "--multirun", "data.root=${oc.env:HOME}", "model.name='${recorder:x}'",
    "data.root=choice('${oc.env:HOME}',b)", "model=../../tmp/evil", "model=/tmp/evil", "model@callbacks.x=resnet8",
    "hydra.job.env_set.LD_PRELOAD=/tmp/x.so", "hydra/launcher=slurm", "hydra/job_logging=evil", "hydra.mode=MULTIRUN",
    "+trainer.plugins=evil", "+a.b=1", "nothing", "logger.csv.save_dir=/tmp", "logger.csv.name=../x",
    "logger.mlflow.tracking_uri=http://there",
    "model=null",
]  # fmt: skip
REFUSED_IN_A_SWEEP = [
    "hydra.launcher.address=ray://there:10001", "+hydra.launcher.slurm_setup=[reboot]",
    "hydra.launcher.slurm_partition='a\nreboot'", "hydra.sweeper.storage=sqlite:////tmp/all.db",
    "hydra.sweep.subdir='${hydra.job.num}${oc.env:HOME}'", "hydra.sweeper.params={model._target_: 'a,b'}",
    "hydra.sweeper.params.model._target_=a,b", "hydra.job.chdir=true", "+hydra.callbacks.x._target_=y",
    "hydra.sweeper._target_=malicious.recorder", "model=resnet8,../evil", "data.root='${oc.env:HOME}',b",
]  # fmt: skip
KEPT = [
    "model=resnet8", "seed=3", "data=digits", "callbacks=ema", "logger=none", "logger=[tensorboard,csv]",
    "model.widths=[8,8,16]", "+trainer.val_check_interval=0.25", "data.augment={crop: 2}",
    "~callbacks.texts_and_pictures", "+optimizer.eps=1e-6", "objective=[val/accuracy,test/loss]",
    "data.root='/a b/c'", "trainer.max_time='00:01:00:00'", "callbacks.ema.decay=0.9", "data.root=${outputs}",
    "+callbacks.ema.start=3", "+trainer.fast_dev_run=true",
]  # fmt: skip
KEPT_IN_A_SWEEP = [
    "hydra/sweeper=optuna", "hydra.sweeper.trials=5", "hydra.mode=MULTIRUN", "hydra/launcher=ray",
    "hydra.launcher.address=auto", "+hydra.launcher.slurm_constraint=a100", "seed=range(1,4)",
    "model=resnet8,resnet14", "model=glob(resnet1*)", "optimizer.lr=tag(log,interval(0.01,1))",
    "hydra.sweeper.params.seed='1,2'", "hydra.sweeper.max_batch_size=2", "hydra.sweep.subdir='${hydra.job.num}_x'",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("override", REFUSED)
@pytest.mark.parametrize("source", ["resume", "from"])
def test_a_saved_override_that_could_run_code_is_refused(tmp_path, source, override):
    Run(tmp_path).write_settings(yaml.safe_dump(composed("config", ["seed=3"], [])), ["seed=3", override])
    with pytest.raises(UserError) as refused:
        resumed_command_line([f"{source}={tmp_path}"])
    assert str(refused.value) == (
        f"{source}={tmp_path} would set {override}, which is refused because whoever wrote the folder could run code "
        "with it: if you trust the folder, give that option too, or trust=true"
    )


@pytest.mark.parametrize("override", [*REFUSED_IN_A_SWEEP, *REFUSED[:16]])
def test_a_saved_override_of_a_sweep_that_could_run_code_is_refused(tmp_path, override):
    record = {"hydra": {"overrides": {"task": ["seed=1,2", override], "hydra": ["hydra.mode=MULTIRUN"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(record))
    with pytest.raises(UserError, match=f"(?s)^resume={tmp_path} would set .* is refused because "):
        resumed_command_line([f"resume={tmp_path}"])
    assert override in resumed_command_line([f"resume={tmp_path}", "trust=true"])


@pytest.mark.parametrize("override", KEPT)
def test_a_saved_override_that_sets_an_option_is_kept(override):
    refuse_untrusted([override], "resume=run")


@pytest.mark.parametrize("override", KEPT_IN_A_SWEEP)
def test_a_saved_override_of_a_sweep_that_sets_an_option_is_kept(override):
    refuse_untrusted([override], "resume=run", in_sweep=True)


def test_the_users_own_options_are_known_by_the_folder_of_configuration(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("_target_: my.Data\nknob: a\n")
    with pytest.raises(UserError, match=r"would set data\.knob=b"):
        refuse_untrusted(["data=mine", "data.knob=b"], "resume=run")
    refuse_untrusted(["data=mine", "data.knob=b"], "resume=run", ["--config-dir", str(tmp_path)])


def test_the_command_that_continues_a_sweep_has_all_that_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-name=small", "-m", f"hydra.searchpath=[file://{tmp_path}]"])
    record = {"hydra": {"overrides": {"hydra": [sys.argv[-1], "hydra.mode=MULTIRUN"], "task": ["seed=1,2"]}}}
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(record))
    own = ["--config-name=small", sys.argv[-1]]
    assert resuming_command(tmp_path) == command("train", *own, f"resume={tmp_path}")
    record["hydra"]["overrides"]["task"].append("+callbacks.x._target_=my.Callback")
    (tmp_path / "multirun.yaml").write_text(yaml.safe_dump(record))
    trusting = command("train", *own, f"resume={tmp_path}", "hydra.sweeper.trials=9", "trust=true")
    assert resuming_command(tmp_path, "hydra.sweeper.trials=9") == trusting
    (tmp_path / "multirun.yaml").write_text("hydra: [")
    assert trust_of(tmp_path) == []
