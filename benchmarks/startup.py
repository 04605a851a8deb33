"""Seconds until a command answers, and until training's first step, against importing the libraries alone, in one run.

    python benchmarks/startup.py [--rounds 5]

`first step` ends with the first step of a ResNet-20, of src/train.py when TensorBoard was told its loss. Writes
benchmarks/results/startup.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, run

from recording import ratios, record, spread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
IMPORTS = "import torch, lightning, torchvision"
ONE_STEP = ("model=resnet20", "data=synthetic", "trainer.max_steps=1", "trainer.limit_val_batches=0", "test=false")
COMMANDS: dict[str, tuple[list[str], int]] = {  # arguments, exit status
    "python -c pass": (["-c", "pass"], 0),
    "import hydra": (["-c", "import hydra"], 0),
    IMPORTS: (["-c", IMPORTS], 0),
    "train.py --help": (["src/train.py", "--help"], 0),
    "train.py --cfg job": (["src/train.py", "--cfg", "job"], 0),
    "train.py model=resnet5": (["src/train.py", "model=resnet5"], 2),
    "train.py data=cifra10": (["src/train.py", "data=cifra10"], 2),
    "train.py optimizer.lrr=0.1": (["src/train.py", "optimizer.lrr=0.1"], 2),
    "train.py trainer.max_epoch=3": (["src/train.py", "trainer.max_epoch=3"], 2),
    "evaluate.py --help": (["src/evaluate.py", "--help"], 0),
}
BASELINES = ("plain", "template")


def seconds(arguments: list[str], status: int) -> float:
    command = [sys.executable, *arguments]
    start = time.perf_counter()
    ended = run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
    spent = time.perf_counter() - start
    assert ended.returncode == status, command
    return spent


def our_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "src/train.py", *ONE_STEP, "trainer.log_every_n_steps=1", f"hydra.run.dir={folder}"]
        start = time.time()
        run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL, check=True)
        return EventAccumulator(folder).Reload().Scalars("step/loss")[0].wall_time - start


def first_step(baseline: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "benchmarks/baselines.py", baseline, "resnet20", "1", "1", str(result)]
        run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL, check=True)
        return json.loads(result.read_text())["first_step_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    spent: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # the first only warms the disk's cache
        round_ = {name: seconds(*command) for name, command in COMMANDS.items()}
        round_["train.py, first step"] = our_first_step()
        round_ |= {f"{name}, first step": first_step(name) for name in BASELINES}
        for name, value in round_.items():
            spent.setdefault(name, []).extend([value] if number else [])
    ratio = ratios(spent["train.py, first step"], spent[IMPORTS])
    figures = {
        "seconds": {name: [round(value, 3) for value in values] for name, values in spent.items()},
        "first_step_to_imports": ratio,
    }
    record(__file__, figures, ("torch", "torchvision", "lightning", "hydra-core"))
    for name, values in spent.items():
        print("{:40}{median:7.2f} s ({min:.2f} to {max:.2f})".format(name, **spread(values)))
    print("first step to imports: {median:.2f} ({min:.2f} to {max:.2f}), n={}".format(rounds, **ratio))


if __name__ == "__main__":
    main()
