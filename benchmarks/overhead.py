"""Compare the speed and the memory of src/train.py with those of three other programs that train the same network.

    python benchmarks/overhead.py [--models resnet20 resnet18] [--rounds 3]

Each program trains two epochs in a process of its own, on a pseudo-terminal so that progress bars are drawn. The
second epoch is measured. All compute in fp32 except `reslab auto`, which has ResLab's default precision for the
machine. `plain + malloc` is the plain loop with the allocator's settings that ResLab makes
(reslab.memory.keep_freed_memory). Each round measures all programs in turn. Peak memory is that of the main
process. The script writes benchmarks/results/overhead.json.
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

from recording import ratios, write_results

ROOT = Path(__file__).parents[1]
BATCH, EPOCHS = 128, 2
STEPS = {"resnet18": 6, "resnet20": 40}  # steps per epoch
GIBIBYTE = str(2**30)
MALLOC = {"MALLOC_MMAP_THRESHOLD_": GIBIBYTE, "MALLOC_TRIM_THRESHOLD_": GIBIBYTE}
PROGRAMS = ("reslab", "reslab auto", "plain", "plain + malloc", "template", "pytorch_cifar")


def run_on_terminal(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end and return its peak memory in bytes. Raises RuntimeError with its output if it fails."""
    controller, terminal = pty.openpty()
    process = Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=os.environ | environment, cwd=ROOT)
    os.close(terminal)
    written: list[bytes] = []

    def drain() -> None:
        try:
            while part := os.read(controller, 65536):
                written.append(part)
        except OSError:  # Linux raises it when the other end is closed.
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    _, status, usage = os.wait4(process.pid, 0)
    reader.join()
    os.close(controller)
    if status:
        raise RuntimeError(b"".join(written).decode())
    return usage.ru_maxrss * 1024


def measure(program: str, model: str, folder: Path) -> dict[str, float]:
    steps = STEPS[model]
    if program.startswith("reslab"):
        precision = "auto" if program.endswith("auto") else "32-true"
        command = [
            sys.executable, "src/train.py", f"model={model}", "data=synthetic", f"data.batch_size={BATCH}",
            f"data.num_images={(steps + 1) * BATCH}", f"data.val_fraction={1 / (steps + 1)}", "data.augment.crop=4",
            "data.augment.flip=true", f"trainer.max_epochs={EPOCHS}", "test=false",
            f"trainer.precision={precision}", f"hydra.run.dir={folder}/run",
        ]  # fmt: skip
        peak = run_on_terminal(command, {})
        with (folder / "run" / "metrics.csv").open() as file:
            speed = float(list(csv.DictReader(file))[-1]["train/images_per_second"])
    else:
        baseline = program.partition(" ")[0]
        result = folder / "result.json"
        script = [sys.executable, "benchmarks/baselines.py", baseline, model, str(steps), str(EPOCHS), str(result)]
        peak = run_on_terminal(script, MALLOC if program.endswith("malloc") else {})
        speed = json.loads(result.read_text())["images_per_second"]
    return {"images_per_second": speed, "peak_mb": peak / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for model in options.models:
        runs: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
        for _ in range(options.rounds):
            for program in PROGRAMS:
                with tempfile.TemporaryDirectory() as folder:
                    runs[program].append(measure(program, model, Path(folder)))
        results[model] = summarize(runs)
        print_table(model, results[model])
    write_results(__file__, {"models": results, "rounds": options.rounds}, ("torch", "torchvision", "lightning"))


def summarize(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return each program's speed and memory by round, and the ratio of ResLab's speed to its speed."""
    ours = [run["images_per_second"] for run in runs["reslab"]]
    summary: dict[str, Any] = {}
    for program, rounds in runs.items():
        speeds = [run["images_per_second"] for run in rounds]
        summary[program] = {
            "images_per_second": [round(speed, 1) for speed in speeds],
            "peak_mb": [round(run["peak_mb"]) for run in rounds],
            "ours_to_this": ratios(ours, speeds),
        }
    return summary


def print_table(model: str, summary: dict[str, Any]) -> None:
    print(f"{model:16}{'images/s':>10}{'peak MB':>10}{'ResLab/this':>14}")
    for program, row in summary.items():
        ratio = row["ours_to_this"]
        speed, peak = statistics.median(row["images_per_second"]), statistics.median(row["peak_mb"])
        print(
            f"{program:16}{speed:10,.1f}{peak:10,.0f}{ratio['median']:8.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"
        )


if __name__ == "__main__":
    main()
