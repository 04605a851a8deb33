"""`resume=` on the command line: which run or sweep is meant, and the command line that continues it."""

import re
import shlex
from pathlib import Path

from reslab.configuration import defaults, flatten, has_prefix, name_of, quoted, unquoted
from reslab.errors import UserError
from reslab.machine import is_first_process
from reslab.run import ABSENT, SETTINGS_ERRORS, Run, older_options, resume_argument
from reslab.sweeps.folder import Sweep

LAUNCHER = "hydra/launcher"
# What a resumed sweep may change. Any other difference makes it another sweep.
MAY_DIFFER_IN_A_SWEEP = (
    "hydra.sweeper.trials", "hydra.sweeper.n_jobs", "hydra.sweeper.max_batch_size", LAUNCHER, "hydra.launcher", "sweep",
)  # fmt: skip
MULTIRUN = {"-m": "hydra.mode=MULTIRUN", "--multirun": "hydra.mode=MULTIRUN"}  # the form that Hydra records
# Arguments that say nothing about what a sweep computes.
SWEEP_ARGUMENTS_TO_IGNORE = (*MULTIRUN, "hydra.mode", "hydra.sweep.dir", "outputs")
# Arguments that say only where a run or the jobs of a sweep take place.
PLACES_OF_A_RUN = ("resume", "hydra")
PLACES_OF_A_SWEEP = ("resume", "hydra.run", "hydra.sweep", LAUNCHER, "hydra.launcher")


def resumed_command_line(arguments: list[str]) -> list[str]:
    """Return the command line that `resume=` asks for.

    Args:
        arguments: a command line. In it, `resume=` is a run's folder, a checkpoint in it, a sweep's folder, or `auto`:
            the newest unfinished run or sweep with the same arguments.

    Returns:
        The run's own arguments, changed and completed by the given ones, with its folder. Where `auto` finds nothing,
        and without `resume=`, the arguments of a new run.

    Raises:
        UserError: `resume=` names nothing that can be resumed, the sweep was started with other arguments, or a new run
            or sweep would use the folder of an old one.
    """
    given = {name: unquoted(value) for name, _, value in (argument.partition("=") for argument in arguments)}
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    folder = folder_to_resume(given, others)
    if folder is None:
        refuse_used_folder(given)
        return others
    run, sweep = Run(folder), Sweep(folder)
    if sweep.exists:
        return resumed_sweep_command_line(sweep, others)
    if MULTIRUN.keys() & given.keys():
        missing = sweep.record_file.name
        raise UserError(f"resume={folder} is not the folder of a sweep, it has no {missing}; resume a run without -m")
    if not run.has_settings:
        missing = f"{run.overrides_file.relative_to(folder)} or {sweep.record_file.name}"
        raise UserError(f"resume={given['resume']} is not the folder of a run or a sweep: it has no {missing}")
    kept = [
        argument
        for argument in [*options_of_an_older_run(run, others), *run.overrides]
        if name_of(argument) not in given
    ]
    checkpoint = folder if given["resume"] == "auto" else Path(given["resume"])
    # Hydra leaves the run's settings as they are; training replaces them once it knows that the run is the same.
    place = {"resume": quoted(checkpoint), "hydra.run.dir": quoted(folder), "hydra.output_subdir": "null"}
    flags = [argument for argument in others if is_flag(argument)]  # Hydra's parser takes them before or after the rest
    added = [argument for argument in others if name_of(argument) not in place and argument not in flags]
    return [*kept, *added, *(f"{name}={value}" for name, value in place.items()), *flags]


def options_of_an_older_run(run: Run, arguments: list[str]) -> list[str]:
    """Return `older_options` for the choices of a run, e.g. model=resnet9.

    The arguments may name the user's own folder of configuration, which the choices need.
    """
    try:
        saved, overrides = flatten(run.config or {}), run.overrides
    except SETTINGS_ERRORS:
        return []
    if not saved or saved.keys() >= ABSENT.keys():
        return []
    return older_options(saved, defaults("config", [*overrides, *arguments]))


def resumed_sweep_command_line(sweep: Sweep, others: list[str]) -> list[str]:
    """Return the command line that continues a sweep. Raise UserError for what would make it another one."""
    try:
        own = {name_of(argument): argument for argument in sweep.arguments}
    except SETTINGS_ERRORS as error:
        place = shlex.quote(f"hydra.sweep.dir={sweep.folder}")
        again = f"remove it and give the sweep's command with {place}, which continues its jobs"
        raise UserError(f"{sweep.record_file} is incomplete: {again}") from error
    own["hydra.sweep.dir"] = f"hydra.sweep.dir={quoted(sweep.folder)}"
    launcher = next((argument for argument in others if name_of(argument) == LAUNCHER), None)
    if launcher is not None and own.get(LAUNCHER) != launcher:  # it does not have the other launcher's options
        own = {name: argument for name, argument in own.items() if not has_prefix(name, ("hydra.launcher",))}
    flags = [argument for argument in others if is_flag(argument)]
    for argument in others:
        name = name_of(argument)
        if argument in flags or has_prefix(name, SWEEP_ARGUMENTS_TO_IGNORE) or own.get(name) == argument:
            continue
        if not has_prefix(name, MAY_DIFFER_IN_A_SWEEP):
            before = own.get(name, f"no {name}")
            raise UserError(
                f"resume={sweep.folder} is a sweep that was started with {before}, not {argument}: start a new one"
            )
        own[name] = argument
    return [*own.values(), *flags]


def is_flag(argument: str) -> bool:
    """Return whether an argument is a flag of Hydra, e.g. `--config-dir=mine`, or the value of one."""
    return argument not in MULTIRUN and (argument.startswith("-") or not re.search("[=~]", argument))


def folder_to_resume(given: dict[str, str], others: list[str]) -> Path | None:
    """Return the folder of the run or sweep that is meant; None for a new one."""
    asked = given.get("resume", "null")
    if asked == "null":
        return None
    if asked != "auto":
        path = Path(asked)
        return path.parent.parent if path.is_file() else path
    own_folder = given.get("hydra.run.dir") or given.get("hydra.sweep.dir")
    folders = [Path(own_folder)] if own_folder else newest_first(Path(given.get("outputs", "outputs")))
    unfinished = (folder for folder in folders if not Run(folder).has_ended)
    return next((folder for folder in unfinished if was_started_with(folder, others)), None)


def newest_first(outputs: Path) -> list[Path]:
    """Return the folders of the runs and sweeps in `outputs`."""
    started = {}
    for folder in outputs.glob("*/*"):
        for file in (Run(folder).config_file, Sweep(folder).record_file):
            if file.is_file():
                started[folder] = file.stat().st_mtime
    return sorted(started, key=lambda folder: started[folder], reverse=True)


def was_started_with(folder: Path, arguments: list[str]) -> bool:
    """Compare the arguments in any order, except those that say where the run or the jobs take place."""
    sweep = Sweep(folder)
    places = PLACES_OF_A_SWEEP if sweep.exists else PLACES_OF_A_RUN
    try:
        recorded = sweep.arguments if sweep.exists else Run(folder).overrides
    except SETTINGS_ERRORS:
        return False
    then, now = (
        sorted(MULTIRUN.get(each, each) for each in side if not has_prefix(name_of(each), places))
        for side in (recorded, [argument for argument in arguments if not is_flag(argument)])
    )
    return then == now


def refuse_used_folder(given: dict[str, str]) -> None:
    if "hydra.sweep.dir" in given and (sweep := Sweep(given["hydra.sweep.dir"])).record_file.exists():
        raise UserError(f"{sweep.folder} holds a sweep: {resume_argument(sweep.folder)} continues it")
    if "hydra.run.dir" in given and is_first_process() and (run := Run(given["hydra.run.dir"])).has_begun:
        again = resume_argument(run.folder)
        raise UserError(f"{run.folder} holds a run: {again} continues it, another hydra.run.dir begins a new one")
