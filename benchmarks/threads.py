"""Measure how fast a network trains with one thread, with all, and as ResLab sets them, also beside busy processes.

    python benchmarks/threads.py [--rounds 3] [--seconds 2] [--busy 0 1 2] [--precision 32-true]

A training step is that of a plain loop. Two threads compute each operation together, and the one that is ready first
waits for the other: by default it spins, which takes the processor from the other one where the machine is busy. ResLab
limits the spinning (`all, brief spins`), and tries at the start whether fewer threads are faster (`ResLab`). Every
round measures all settings in turn, each in a process of its own. The script writes benchmarks/results/threads.json.
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
CASES = (  # network, pixels, batch size
    ("resnet8", 8, 64), ("resnet20", 8, 128), ("resnet20", 32, 128), ("resnet18", 32, 128), ("resnet18", 96, 32),
)  # fmt: skip
ONE, ALL, BRIEF, RESLAB = "one thread", "all threads", "all, brief spins", "ResLab"
SETTINGS = (ONE, ALL, BRIEF, RESLAB)
# It ends with the process that has started it, however that ends.
BUSY = [sys.executable, "-c", "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"]


def environment(setting: str) -> dict[str, str]:
    from reslab.machine import spin_variables

    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    threads = {ONE: {"OMP_NUM_THREADS": "1"}, RESLAB: {}}.get(setting, {"OMP_NUM_THREADS": str(os.cpu_count())})
    return inherited | threads | (spin_variables() if setting in (BRIEF, RESLAB) else {})


def train(model: str, size: int, batch: int, precision: str, seconds: float, setting: str) -> float:
    """Return the images per second of a plain training loop on random images."""
    import torch
    from hydra import compose, initialize_config_dir

    from reslab.configuration import CONF
    from reslab.models.build import build_network
    from reslab.training.threads import chosen_threads

    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", [f"model={model}", "trainer=cpu"])
    if setting == RESLAB:
        torch.set_num_threads(chosen_threads(config.trainer))
    network = build_network(config.model, 3, 10, size).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, fused=True)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = torch.nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    step()  # the first step also allocates memory and chooses algorithms
    start, steps = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        step()
        steps += 1
    return steps * batch / (time.perf_counter() - start)


def measured(setting: str, case: tuple[str, int, int], precision: str, seconds: float) -> float:
    options = ["--precision", precision, "--seconds", str(seconds)]
    command = [sys.executable, __file__, "--child", *map(str, case), setting, *options]
    return float(run(command, env=environment(setting), stdout=PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--precision", choices=["32-true", "bf16-mixed"], default="32-true")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model, size, batch, setting = arguments.child
        print(train(model, int(size), int(batch), arguments.precision, arguments.seconds, setting))
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
                        speeds[name].append(measured(name, case, arguments.precision, arguments.seconds))
            best = [max(pair) for pair in zip(speeds[ONE], speeds[ALL], strict=True)]
            ratio = ratios(speeds[RESLAB], best)
            name = "{} at {} pixels, batch {}, {}, beside {} busy processes".format(*case, arguments.precision, busy)
            results[name] = {"images_per_second": speeds, "reslab_to_better": ratio}
            shown = ", ".join(f"{key} {median_and_range(values)['median']:,.0f}" for key, values in speeds.items())
            print(f"{name}: {shown} images/s; ratio {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    write_results(__file__, results, ("torch",))


if __name__ == "__main__":
    sys.path.insert(0, str(SRC))
    main()
