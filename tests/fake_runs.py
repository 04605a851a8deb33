"""Folders of runs and sweeps as training leaves them, made without any training."""

import json
from copy import deepcopy

import yaml

CONFIG = {
    "model": {"_target_": "reslab.models.resnet.ResNet", "name": "resnet8", "layers": [1, 1, 1], "stem_width": None},
    "data": {"name": "digits", "root": "data", "batch_size": 64, "_target_": "reslab.data.datasets.Digits"},
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.9},
    "trainer": {"max_epochs": 2, "enable_progress_bar": True},
    "seed": 1,
    "folder": "${hydra:runtime.output_dir}",
}


def make_run(folder, *, accuracy=None, test=None, curve=(), result=(), **options):
    """Make the folder of a run.

    Args:
        folder: a folder that does not exist yet.
        accuracy: the validation accuracy of a finished run; without it and without `result` the run has no result.
        test: the test accuracy, by default 0.01 less.
        curve: the training accuracy and the validation accuracy (or "") of each epoch.
        result: further entries of the result.
        options: of the configuration, e.g. `model__name="resnet20"`.
    """
    config = deepcopy(CONFIG)
    for name, value in options.items():
        group, _, last = name.partition("__")
        (config[group] if last else config)[last or group] = value
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    result = dict(result)
    if accuracy is not None:
        test = accuracy - 0.01 if test is None else test
        result |= {"status": "finished", "val/accuracy": accuracy, "test/accuracy": test, "seed": config["seed"]}
        result |= {"train/seconds": 12.5, "versions": {"torch": "2.11"}, "git_commit": "abc"}
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    if curve:
        rows = [f"{epoch},{train},{val}" for epoch, (train, val) in enumerate(curve, start=1)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,train/accuracy,val/accuracy", *rows, ""]))
    return folder


def make_sweep(folder):
    """Make a sweep over two models with two seeds each, and a job that failed."""
    make_run(folder / "0_resnet8", accuracy=0.5, curve=[(0.25, 0.5), (0.75, 0.25)])
    make_run(folder / "1_resnet8", accuracy=0.7, seed=2, curve=[(0.5, 0.75)])
    make_run(folder / "2_resnet20", accuracy=0.9, model__name="resnet20", curve=[(0.5, "")])
    make_run(folder / "3_resnet20", accuracy=0.9, test=0.8, model__name="resnet20", seed=2)
    make_run(folder / "4_resnet<b>", model__name="resnet<b>", result={"status": "failed", "error": "a < b"})
    return folder


def cells(line):
    """Return the cells of a table's row as Rich prints it."""
    return [cell.strip() for cell in line.strip("│┃\n").replace("┃", "│").split("│")]
