"""Measure the seconds until a command answers and until the first training step, and those of the imports alone.

    python benchmarks/startup.py [--rounds 5]

`first step` is the time until the end of the first step of a ResNet-20. For src/train.py it ends when the step's loss
is logged to TensorBoard. Every round measures all of them. The script writes benchmarks/results/startup.json.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, run

from recording import median_and_range, ratios, write_results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[1]
IMPORTS = "import torch, lightning, torchvision"
ONE_STEP = ("model=resnet20", "data=synthetic", "trainer.max_steps=1", "trainer.limit_val_batches=0", "test=false")
COMMANDS: dict[str, tuple[list[str], int]] = {  # the arguments of Python and the expected exit status
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
    completed = run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL)
    elapsed = time.perf_counter() - start
    assert completed.returncode == status, command
    return elapsed


def train_first_step() -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "src/train.py", *ONE_STEP, "trainer.log_every_n_steps=1", f"hydra.run.dir={folder}"]
        start = time.time()
        run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL, check=True)
        return EventAccumulator(folder).Reload().Scalars("step/loss")[0].wall_time - start


def baseline_first_step(baseline: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "benchmarks/baselines.py", baseline, "resnet20", "1", "1", str(result)]
        run(command, cwd=ROOT, stdout=DEVNULL, stderr=DEVNULL, check=True)
        return json.loads(result.read_text())["first_step_seconds"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {}
    for number in range(rounds + 1):  # The first round only fills the disk's cache.
        round_ = {name: seconds(*command) for name, command in COMMANDS.items()}
        round_["train.py, first step"] = train_first_step()
        round_ |= {f"{name}, first step": baseline_first_step(name) for name in BASELINES}
        for name, value in round_.items():
            times.setdefault(name, []).extend([value] if number else [])
    ratio = ratios(times["train.py, first step"], times[IMPORTS])
    results = {
        "seconds": {name: [round(value, 3) for value in values] for name, values in times.items()},
        "first_step_to_imports": ratio,
    }
    write_results(__file__, results, ("torch", "torchvision", "lightning", "hydra-core"))
    for name, values in times.items():
        print("{:40}{median:7.2f} s ({min:.2f} to {max:.2f})".format(name, **median_and_range(values)))
    print("first step to imports: {median:.2f} ({min:.2f} to {max:.2f}), n={}".format(rounds, **ratio))


if __name__ == "__main__":
    main()
