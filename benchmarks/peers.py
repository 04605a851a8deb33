"""Train the same network on the same images with ResLab and with four other programs, and compare what that takes.

    python benchmarks/peers.py [--rounds 3] [--part cifar|folder|behaviour] [--again]
    python benchmarks/peers.py --table

The programs are run from checkouts of their own, which are no part of this repository; peers.md says which, and how
each is run. They are in the folder `--peers`, and the Python that has their packages is `--peers-python`.

cifar: ResNet-18 with the 3x3 stem on images of 32x32 in CIFAR-10's files, batches of 128.
folder: ResNet-18 on JPEG files in an image folder, cut to 224x224, batches of 32.
behaviour: what each does after a kill, a mistyped option, a GPU that does not exist, and without a terminal.

Each round runs the programs in turn. A call adds what is missing in benchmarks/results/peers.json, which is written
after each run; `--again` measures the parts anew. At the end, the tables of peers.md are written.
"""

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peers_behaviour import Place, behaviour
from peers_images import JOBS, Job, write_images
from peers_programs import ROOT, Program, ResLab, TimmChannelsLast, programs_of
from peers_run import run
from peers_tables import write_tables

from reslab.training.provenance import processor

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
PARTS = ("cifar", "folder", "behaviour")
PACKAGES = ("torch", "torchvision", "lightning", "hydra-core")
FIRST_STEPS = 2  # that the speed leaves out: memory is allocated and kernels are chosen in them
VERSIONS = f"from importlib.metadata import version; print(*map(version, {PACKAGES}))"


def main() -> None:
    options = parse_options()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if options.table:
        write_tables(results)
        return
    peers = options.peers.resolve()
    python = str((options.peers_python or peers / "venv/bin/python").absolute())
    refuse_other_versions(python)
    for part in [options.part] if options.part else PARTS:
        if options.again or part not in results:
            results[part] = {"origin": origin(), "programs": {}}
        with tempfile.TemporaryDirectory(prefix="peers-") as folder:
            place = Place(peers, python, Path(folder))
            rows = results[part]["programs"]
            measured = behaviours(rows, place) if part == "behaviour" else speeds(part, rows, place, options.rounds)
            for row in measured:
                print(part, *row, flush=True)
                RESULTS.write_text(without_paths(json.dumps(results, indent=2), place) + "\n")
                write_tables(results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--again", action="store_true", help="measure anew what has been measured")
    parser.add_argument("--peers", type=Path, default=Path(os.environ.get("RESLAB_PEERS", ROOT / "outputs" / "peers")))
    parser.add_argument("--peers-python", type=Path, help="default: venv/bin/python in the folder --peers")
    parser.add_argument("--table", action="store_true", help="write the tables only")
    return parser.parse_args()


def without_paths(text: str, place: Place) -> str:
    """Replace the folders of this machine, which messages name."""
    folders = {str(place.work): "<work>", sysconfig.get_path("purelib"): "<packages>", str(place.peers): "<peers>"}
    for folder, name in folders.items():
        text = text.replace(folder, name)
    return text


def refuse_other_versions(python: str) -> None:
    versions = {subprocess.check_output([each, "-c", VERSIONS], text=True) for each in (sys.executable, python)}
    if len(versions) > 1:
        sys.exit(f"the two Pythons have different packages: {versions}")


def origin() -> dict[str, Any]:
    commit = subprocess.check_output(["git", "-C", ROOT, "rev-parse", "HEAD"], text=True).strip()
    versions = subprocess.check_output([sys.executable, "-c", VERSIONS], text=True).split()
    return {"processor": processor(), "versions": dict(zip(PACKAGES, versions, strict=True)), "commit": commit}


def speeds(part: str, rows: dict[str, Any], place: Place, rounds: int) -> Iterator[tuple[str, Any]]:
    """Add the rounds that are missing, and return each program's name and numbers when they are added."""
    job = JOBS[part](place.work / "images")
    write_images(job)
    programs = programs_of(job, place.peers, place.python, place.work)
    for program in programs:
        program.prepare()
    for number in range(rounds):
        for program in programs:
            if len(rows.setdefault(program.name, [])) <= number:
                rows[program.name].append(one_run(program, job, place.work / "runs" / f"{number}-{program.slug}"))
                yield program.name, rows[program.name][-1]


def one_run(program: Program, job: Job, folder: Path) -> dict[str, float]:
    outcome = run(program.command(folder), program.place, {**job.environment, **program.environment})
    if outcome.status or len(outcome.step_ends) != job.steps:
        raise RuntimeError(f"{program.name}: {len(outcome.step_ends)} steps of {job.steps}\n{outcome.output}")
    first, last = outcome.step_ends[FIRST_STEPS - 1], outcome.step_ends[-1]
    return {
        "first_step_s": round(outcome.step_ends[0], 2),
        "images_per_second": round((job.steps - FIRST_STEPS) * job.batch / (last - first), 2),
        "command_s": round(outcome.seconds, 1),
        "peak_mb": round(outcome.peak_mb),
    }


def behaviours(rows: dict[str, Any], place: Place) -> Iterator[tuple[str, Any]]:
    """Add the programs that are missing, and return each one's name and what it did when that is added."""
    cifar = Job("cifar", place.work / "cifar", training=4 * 32, test=50, batch=32, size=32, epochs=2)
    folder = Job("folder", place.work / "folder", training=6 * 16, test=20, batch=16, size=64, epochs=2)
    for job in (cifar, folder):
        write_images(job)
        for program in programs_of(job, place.peers, place.python, place.work):
            name = f"ResLab, {job.part}" if isinstance(program, ResLab) else program.name
            if name not in rows and not isinstance(program, TimmChannelsLast):
                program.prepare()
                rows[name] = behaviour(program, job, place)
                yield name, rows[name]


if __name__ == "__main__":
    main()
