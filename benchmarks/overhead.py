"""What training costs beside the network: src/train.py against three other ways, in one run.

    python benchmarks/overhead.py [--models resnet20 resnet18] [--rounds 3]

Each way trains two epochs in a process of its own, on a pseudo-terminal so that progress bars are drawn; the second
epoch counts. All are fp32 but `reslab auto`, whose precision is ResLab's default for the machine. Rounds go through all
ways in turn. `plain + malloc` is the plain loop with the allocator's settings that
ResLab makes (training.keep_freed_memory). Peak memory is the main process's. Writes benchmarks/results/overhead.json.
"""

import argparse
import csv
import json
import os
import pty
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from subprocess import Popen
from typing import Any

from recording import ratios, record

ROOT = Path(__file__).parents[1]
BATCH, EPOCHS = 128, 2
STEPS = {"resnet18": 6, "resnet20": 40}  # an epoch's
GIBIBYTE = str(2**30)
MALLOC = {"MALLOC_MMAP_THRESHOLD_": GIBIBYTE, "MALLOC_TRIM_THRESHOLD_": GIBIBYTE}
WAYS = ("reslab", "reslab auto", "plain", "plain + malloc", "template", "pytorch_cifar")


def on_a_terminal(command: list[str], environment: dict[str, str]) -> int:
    """Run it to its end; its peak memory in bytes. Raises RuntimeError with what it wrote if it fails."""
    ours, its = pty.openpty()
    process = Popen(command, stdin=its, stdout=its, stderr=its, env=os.environ | environment, cwd=ROOT)
    os.close(its)
    written: list[bytes] = []

    def drain() -> None:
        try:
            while part := os.read(ours, 65536):
                written.append(part)
        except OSError:  # Linux's way to say that the other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    os.close(ours)
    if status:
        raise RuntimeError(b"".join(written).decode())
    return usage.ru_maxrss * 1024


def measure(way: str, model: str, folder: Path) -> dict[str, float]:
    steps = STEPS[model]
    if way.startswith("reslab"):
        precision = "auto" if way.endswith("auto") else "32-true"
        command = [
            sys.executable, "src/train.py", f"model={model}", "data=synthetic", f"data.batch_size={BATCH}",
            f"data.num_images={(steps + 1) * BATCH}", f"data.val_fraction={1 / (steps + 1)}", "data.augment.crop=4",
            "data.augment.flip=true", f"trainer.max_epochs={EPOCHS}", "test=false",
            f"trainer.precision={precision}", f"hydra.run.dir={folder}/run",
        ]  # fmt: skip
        peak = on_a_terminal(command, {})
        with (folder / "run" / "metrics.csv").open() as file:
            speed = float(list(csv.DictReader(file))[-1]["train/images_per_second"])
    else:
        baseline = way.partition(" ")[0]
        result = folder / "result.json"
        script = [sys.executable, "benchmarks/baselines.py", baseline, model, str(steps), str(EPOCHS), str(result)]
        peak = on_a_terminal(script, MALLOC if way.endswith("malloc") else {})
        speed = json.loads(result.read_text())["images_per_second"]
    return {"images_per_second": speed, "peak_mb": peak / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for model in options.models:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.rounds):
            for way in WAYS:
                with tempfile.TemporaryDirectory() as folder:
                    runs[way].append(measure(way, model, Path(folder)))
        results[model] = summarize(runs)
        print_table(model, results[model])
    figures = {"models": results, "rounds": options.rounds}
    record(__file__, figures, ("torch", "torchvision", "lightning"))


def summarize(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Of each way its figures by round, and how many times its images/s ours are (by round too)."""
    ours = [run["images_per_second"] for run in runs["reslab"]]
    summary: dict[str, Any] = {}
    for way, rounds in runs.items():
        speeds = [run["images_per_second"] for run in rounds]
        summary[way] = {
            "images_per_second": [round(speed, 1) for speed in speeds],
            "peak_mb": [round(run["peak_mb"]) for run in rounds],
            "ours_to_this": ratios(ours, speeds),
        }
    return summary


def print_table(model: str, summary: dict[str, Any]) -> None:
    print(f"{model:16}{'images/s':>10}{'peak MB':>10}{'ours to this':>14}")
    for way, row in summary.items():
        ratio = row["ours_to_this"]
        speed, peak = statistics.median(row["images_per_second"]), statistics.median(row["peak_mb"])
        print(f"{way:16}{speed:10,.1f}{peak:10,.0f}{ratio['median']:8.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")


if __name__ == "__main__":
    main()
