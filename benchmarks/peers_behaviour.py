"""What a program does after a kill, a mistyped option, a GPU that does not exist, and without a terminal."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peers_images import JOBS, Job, write_images
from peers_programs import NO_WEIGHTS_ONLY, Program, PytorchCifar, ResLab
from peers_run import Outcome, run

Record = dict[str, Any]
MISTAKE = re.compile(r"ephocs|resnet81|--lrr|cuda|gpu|Unsupported global", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where the programs are, the Python that has their packages, and a folder for their copies and runs."""

    peers: Path
    python: str
    work: Path


def behaviour(program: Program, job: Job, place: Place) -> Record:
    """Try a program and return what it did."""
    folder = place.work / "behaviour" / f"{program.slug}-{job.part}"
    environment = {**job.environment, **program.environment, "OMP_NUM_THREADS": "1"}

    def answer(*options: str, terminal: bool = True) -> Record:
        command = program.command(folder / re.sub(r"\W+", "-", f"answer {options} {terminal}"), *options)
        return described(run(command, program.place, environment, terminal))

    record: Record = {f"mistyped {what}": answer(*options) for what, options in program.mistyped.items()}
    if program.gpu is not None:
        record["missing gpu"] = answer(*program.gpu)
    record |= {"no terminal": answer(terminal=False), "kill": kill(program, job, folder, environment)}
    record |= {"job": lines(variant(program, place, JOBS[job.part](place.work))), "own": own(program, place)}
    return record


def described(outcome: Outcome) -> Record:
    """Return what a command did. If it has not trained, its message is the last line that names the mistake."""
    named = [
        line for line in outcome.lines if MISTAKE.search(line) and not line.startswith("full_key:")
    ] or outcome.lines
    return {
        "seconds": round(outcome.seconds, 2),
        "status": outcome.status,
        "lines": len(outcome.lines),
        "message": named[-1] if named and not outcome.step_ends else "",
        "steps": len(outcome.step_ends),
    }


def kill(program: Program, job: Job, folder: Path, environment: dict[str, str]) -> Record:
    """Kill a run in the middle of its second epoch, resume it, and compare its weights with those of a whole run."""
    whole = [folder / "whole", folder / "again"]
    for each in whole:
        outcome = run(program.command(each, *program.seed), program.place, environment)
        if outcome.status:
            return {"failed": described(outcome)}
    killed_at = job.steps + job.steps // 2
    command = program.command(folder / "killed", *program.seed)
    killed = run(command, program.place, environment, kill_after=killed_at)
    command = program.resume(folder / "killed")
    plain = {name: value for name, value in environment.items() if name not in NO_WEIGHTS_ONLY}
    first = resumed = run(command, program.place, plain)
    if first.status and not first.step_ends:
        resumed = run(command, program.place, plain | NO_WEIGHTS_ONLY)
    record = {
        "seeded": bool(program.seed),
        "repeatable": same_weights(program, whole[0], whole[1]),
        "killed_after_steps": len(killed.step_ends),
        "steps_of_the_run": job.steps * job.epochs,
        "resume": described(first),
        "resume_with_variable": described(resumed),
    }
    if not resumed.status:
        record["steps_after_resume"] = len(resumed.step_ends)
        record["equal"] = same_weights(program, whole[0], folder / "killed")
    return record


def same_weights(program: Program, one: Path, other: Path) -> bool:
    """Return whether two runs end with the same weights, bit for bit."""

    def read(folder: Path) -> dict[str, torch.Tensor]:
        path, name = program.weights(folder)
        # These files were written by the programs a moment ago; some of them hold more than tensors.
        weights: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=False)[name]
        return weights

    first, second = read(one), read(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def variant(program: Program, place: Place, job: Job, own: bool = False) -> Program:
    """Return the same program, prepared for another job."""
    if isinstance(program, ResLab):
        return ResLab(job, own=own)
    copy = place.work / f"{program.slug}-{'own' if own else job.part}"
    other = type(program)(place.peers, place.python, copy, job, own=own)
    other.prepare()
    return other


def lines(program: Program) -> Record:
    """Return what a user writes: lines in files, and the options of the command."""
    words = program.options()
    named = [word for word in words if word.startswith("-")]
    return {"lines": program.lines_written, "options": len(named) if named else len(words)}


def own(program: Program, place: Place) -> Record:
    """Train on an image folder with a network of half the width, and return what a user writes for that."""
    batch = program.batch if isinstance(program, PytorchCifar) else 16
    images = Job("folder", place.work / "own", training=32, test=20, batch=batch, size=224)
    write_images(images)
    other = variant(program, place, images, own=True)
    command = other.command(place.work / "own-runs" / f"{program.slug}-{program.job.part}")
    outcome = run(command, other.place, {**program.environment, "OMP_NUM_THREADS": "1"})
    return lines(other) | {"answer": described(outcome)}
