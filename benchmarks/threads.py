"""Measure how fast a network trains with one thread and with all, on a quiet machine and beside busy processes.

    python benchmarks/threads.py [--rounds 3] [--seconds 4] [--busy 0 1 2]

A training step is that of a plain loop. Two threads compute each operation together, and the one that is ready first
waits for the other: by default it spins, which takes the processor from the other one where the machine is busy.
`asleep` lets it sleep instead (OMP_WAIT_POLICY=passive). Every round measures all settings in turn, each in a process
of its own. The script writes benchmarks/results/threads.json.
"""

import argparse
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from subprocess import PIPE, Popen, run

from recording import median_and_range, ratios, write_results

SRC = Path(__file__).parents[1] / "src"
CASES = (("resnet8", 8, 64), ("resnet20", 32, 128), ("resnet18", 32, 128), ("resnet18", 96, 32))  # pixels, batch
ALL = str(os.cpu_count())
ASLEEP = "all threads, asleep"
SETTINGS: dict[str, dict[str, str]] = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all threads": {"OMP_NUM_THREADS": ALL},
    ASLEEP: {"OMP_NUM_THREADS": ALL, "OMP_WAIT_POLICY": "passive"},
}
BUSY = [sys.executable, "-c", "while True: pass"]


def train(model: str, size: int, batch: int, seconds: float) -> float:
    """Return the images per second of a plain training loop on random images."""
    import torch
    from hydra import compose, initialize_config_dir

    sys.path.insert(0, str(SRC))
    from reslab.configuration import CONF
    from reslab.models.build import build_network

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"model={model}"])
    network = build_network(config.model, 3, 10, size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()

    step()  # the first step also allocates memory and chooses algorithms
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - start)


def measured(setting: str, case: tuple[str, int, int], seconds: float) -> float:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, __file__, "--child", *map(str, case), "--seconds", str(seconds)]
    return float(run(command, env=inherited | SETTINGS[setting], stdout=PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model, size, batch = arguments.child
        print(train(model, int(size), int(batch), arguments.seconds))
        return
    results = {}
    for busy in arguments.busy:
        for case in CASES:
            speeds: dict[str, list[float]] = {name: [] for name in SETTINGS}
            with ExitStack() as stack:
                for process in [Popen(BUSY) for _ in range(busy)]:
                    stack.callback(process.wait)
                    stack.callback(process.kill)
                for _ in range(arguments.rounds):
                    for name in SETTINGS:
                        speeds[name].append(measured(name, case, arguments.seconds))
            best = [max(pair) for pair in zip(speeds["one thread"], speeds["all threads"], strict=True)]
            ratio = ratios(speeds[ASLEEP], best)
            name = "{} at {} pixels, batch {}, beside {} busy processes".format(*case, busy)
            results[name] = {"images_per_second": speeds, "asleep_to_better": ratio}
            shown = ", ".join(f"{key} {median_and_range(values)['median']:,.0f}" for key, values in speeds.items())
            print(f"{name}: {shown} images/s; ratio {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    write_results(__file__, results, ("torch",))


if __name__ == "__main__":
    main()
