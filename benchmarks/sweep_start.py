"""Measure the processor time until a finished sweep has ended again, and until the first job of a sweep begins.

    python benchmarks/sweep_start.py [--rounds 3] [--jobs 100 2000]

The jobs are copies of one trained ResNet-8 with other seeds. `recognised` is the time in which the sweeper finds that
all jobs have their results; `all finished` is that of the whole command, the report included. `first epoch` ends when
the command has printed the first epoch: of a single run, of a new sweep, and of one whose jobs but the last have
finished. The script writes benchmarks/results/sweep_start.json.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run

import yaml
from recording import median_and_range, write_results

ROOT = Path(__file__).parents[1]
TRAIN = [sys.executable, str(ROOT / "src" / "train.py")]
OPTIONS = ("model=resnet8", "trainer=cpu", "logger=none", "test=false", "trainer.precision=32-true")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
FIRST_EPOCH = "1"  # the first word of its line
TIMED = """
import sys, time
from reslab.sweeps.jobs import SweepJobs
run = SweepJobs.run
def timed(*arguments):
    start = time.process_time()
    try:
        return run(*arguments)
    finally:
        print("recognised:", time.process_time() - start)
SweepJobs.run = timed
from reslab.commands.train import main
main()
"""


def sweep_arguments(jobs: int) -> list[str]:
    return ["-m", *OPTIONS, "trainer.max_epochs=1", f"seed=range({jobs})", "hydra.sweep.dir=sweep"]


def finished_sweep(folder: Path, jobs: int) -> None:
    """Make a sweep of finished jobs: one that is trained, and copies of it."""
    run([*TRAIN, *sweep_arguments(1)], cwd=folder, env=ENVIRONMENT, stdout=DEVNULL, check=True)
    record, (first,) = folder / "sweep" / "multirun.yaml", folder.glob("sweep/0_*")
    record.write_text(record.read_text().replace("seed=range(1)", f"seed=range({jobs})"))
    shutil.rmtree(first / "checkpoints")  # nothing reads those of a finished job
    for number in range(1, jobs):
        copy = first.with_name(first.name.replace("0_", f"{number}_", 1).replace("seed=0", f"seed={number}"))
        shutil.copytree(first, copy)
        for name, before, after in (
            (".hydra/config.yaml", "\nseed: 0\n", f"\nseed: {number}\n"),
            (".hydra/overrides.yaml", "seed=0", f"seed={number}"),
            ("result.json", '"seed": 0', f'"seed": {number}'),
        ):
            text = (copy / name).read_text()
            assert text.count(before) == 1, name
            (copy / name).write_text(text.replace(before, after))
    assert yaml.safe_load(record.read_bytes())["hydra"]["overrides"]["task"][-1] == f"seed=range({jobs})"


def seconds_until(first_word: str | None, arguments: list[str], folder: Path) -> float:
    """Return the processor time until a command has printed a line with this first word, or until its end for None."""
    start = child_seconds()
    with Popen([*TRAIN, *arguments], cwd=folder, env=ENVIRONMENT, text=True, stdout=PIPE) as process:
        assert process.stdout is not None
        found = any(first_word is not None and line.split()[:1] == [first_word] for line in process.stdout)
        if found:
            process.kill()
    assert found or (first_word is None and process.returncode == 0), arguments
    return child_seconds() - start


def child_seconds() -> float:
    """Return the processor time of all commands that have ended. Other work on the machine does not lengthen it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def recognition_seconds(folder: Path) -> float:
    command = [sys.executable, "-c", TIMED, "resume=sweep"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT / "src")}
    lines = run(command, cwd=folder, env=environment, text=True, stdout=PIPE, check=True).stdout.splitlines()
    return float(next(line for line in lines if line.startswith("recognised:")).split()[1])


def measure(jobs: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        new = seconds_until(FIRST_EPOCH, sweep_arguments(jobs), folder)
        shutil.rmtree(folder / "sweep")
        finished_sweep(folder, jobs)
        recognised = recognition_seconds(folder)
        all_finished = seconds_until(None, ["resume=sweep"], folder)
        shutil.rmtree(next(folder.glob(f"sweep/{jobs - 1}_*")))
        last = seconds_until(FIRST_EPOCH, ["resume=sweep"], folder)
    return {
        f"{jobs} finished jobs, recognised": recognised,
        f"{jobs} finished jobs, the whole command": all_finished,
        f"{jobs} new jobs, first epoch": new,
        f"{jobs} jobs of which the last is new, first epoch": last,
    }


def single_run() -> float:
    with tempfile.TemporaryDirectory() as folder:
        return seconds_until(FIRST_EPOCH, [*OPTIONS, "trainer.max_epochs=1", "hydra.run.dir=run"], Path(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[100, 2000])
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        round_ = {"a single run, first epoch": single_run()}
        for jobs in arguments.jobs:
            round_ |= measure(jobs)
        for name, value in round_.items():
            times.setdefault(name, []).append(value)
            print(f"{name}: {value:.2f} s", flush=True)
    results = {name: [round(value, 3) for value in values] for name, values in times.items()}
    for name, values in times.items():
        print("{:60}{median:7.2f} s ({min:.2f} to {max:.2f})".format(name, **median_and_range(values)))
    write_results(__file__, {"cpu_seconds": results}, ("torch", "hydra-core", "omegaconf", "PyYAML"))


if __name__ == "__main__":
    main()
