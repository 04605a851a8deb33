"""Measure the CPU time of a report of many runs, and the size of its page.

    python benchmarks/report_time.py [--runs 500 5000] [--configurations 45] [--rounds 3]

The runs have the configuration of `python src/train.py` and results and curves of 20 epochs that are drawn at random.
With as many configurations as runs, every run has its own, as in a search. The script measures the user and system
time of `python src/report.py <folder>`, its start included, and writes benchmarks/results/report_time.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hydra import compose
from omegaconf import OmegaConf
from recording import median_and_range, write_results

import reslab.commands.entry  # noqa: F401  # registers the resolvers that conf/config.yaml uses
from reslab.configuration import initialized_hydra
from reslab.run import Run

REPORT = Path(__file__).parents[1] / "src" / "report.py"
EPOCHS = 20


def write_run(folder: Path, config: dict[str, Any], random: np.random.Generator) -> None:
    """Write the three files that a report reads. Run's own methods would wait for the disk after each of them."""
    run = Run(folder)
    run.hydra_folder.mkdir(parents=True)
    run.config_file.write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
    errors = [1 / (epoch + 2) + float(random.uniform(0, 0.1)) for epoch in range(EPOCHS)]
    lines = ["epoch,step,train/loss,train/accuracy,val/loss,val/accuracy"]
    lines += [f"{epoch},{20 * epoch + 20},{x},{1 - x},{x},{1 - x}" for epoch, x in enumerate(errors)]
    run.metrics_file.write_text("\n".join(lines))
    accuracy = 1 - errors[-1]
    result = {"status": "finished", "val/accuracy": accuracy, "test/accuracy": accuracy - 0.01, "train/seconds": 12.5}
    run.result_file.write_text(json.dumps(result | {"seed": config["seed"]}))


def write_runs(folder: Path, runs: int, configurations: int) -> None:
    """Write runs that differ in the learning rate, the weight decay, the batch size and the seed."""
    with initialized_hydra():
        config: Any = OmegaConf.to_container(compose("config"))
    random = np.random.default_rng(0)
    if configurations < runs:
        rates, decays, sizes = np.geomspace(0.01, 1, 5), (1e-4, 5e-4, 1e-3), (32, 64, 128)
        options = [tuple(map(float, values)) for values in product(rates, decays, sizes)][:configurations]
    else:
        options = [tuple(map(float, 10 ** random.uniform(-4, 0, 3))) for _ in range(configurations)]
    for number in range(runs):
        rate, decay, size = options[number % len(options)]
        config["optimizer"] |= {"lr": rate, "weight_decay": decay}
        config["data"]["batch_size"] = max(1, int(size))
        config["label_smoothing"] = 0.0 if configurations < runs else size
        config["seed"] = number // len(options)
        write_run(folder / f"{number}_lr={rate:.4g},weight_decay={decay:.4g},seed={config['seed']}", config, random)


def cpu_seconds(folder: Path) -> float:
    before = os.times()
    subprocess.run([sys.executable, REPORT, folder], check=True, capture_output=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, nargs="+", default=[500, 5000])
    for name, default in (("configurations", 45), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "sweep"
            write_runs(folder, runs, min(runs, options.configurations))
            seconds = [round(cpu_seconds(folder), 2) for _ in range(options.rounds)]
            megabytes = round((folder / "report.html").stat().st_size / 1e6, 2)
        results[str(runs)] = {"cpu_seconds": seconds, "page_megabytes": megabytes}
        text = "{median:.1f} s of CPU ({min:.1f} to {max:.1f})".format(**median_and_range(seconds))
        print(f"{runs} runs: {text}, a page of {megabytes} MB, n={options.rounds}")
    write_results(__file__, {"configurations": options.configurations, **results}, ("matplotlib", "rich", "pyyaml"))


if __name__ == "__main__":
    main()
