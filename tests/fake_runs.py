"""Folders as training leaves them, without the training."""

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
    """options: `model__name="resnet20"`; without accuracy and result the run never ended.

    curve: (training accuracy, validation accuracy or "") of each epoch.
    """
    config = deepcopy(CONFIG)
    for name, value in options.items():
        group, _, last = name.rpartition("__")
        (config[group] if group else config)[last] = value
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
        rows = [f"{epoch},{train},{val}" for epoch, (train, val) in enumerate(curve)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,train/accuracy,val/accuracy", *rows]))
    return folder


def cells(line):
    """Of a row that Rich has drawn."""
    return [cell.strip() for cell in line.strip("│┃\n").replace("┃", "│").split("│")]
