"""`resume=` and `from=` on the command line: which run or sweep is meant, and the command line that they stand for."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from reslab.configuration import (
    A_RUN,
    CHOICE,
    CONF,
    chosen,
    composed,
    defaults,
    flatten,
    has_prefix,
    is_group,
    name_of,
    nodes,
    own_folders,
    parsed,
    quoted,
    unquoted,
    without_plus,
)
from reslab.errors import NothingLeftToDo, UserError
from reslab.machine import is_first_process
from reslab.newest import folder_of_runs, is_latest, meant_run, newest_first, not_found
from reslab.run import ENDINGS, SETTINGS_ERRORS, Run, differences, older_options, resume_argument
from reslab.sweeps.folder import Sweep
from reslab.sweeps.trust import PLACES, refuse_untrusted, saved_overrides, scalars
from reslab.text import for_shell, printable

LAUNCHER, SWEEP_FOLDER = "hydra/launcher", "hydra.sweep.dir"
# What a resumed sweep may change. Any other difference makes it another sweep.
MAY_DIFFER_IN_A_SWEEP = (
    "hydra.sweeper.trials", "hydra.sweeper.n_jobs", "hydra.sweeper.max_batch_size", LAUNCHER, "hydra.launcher", "sweep",
)  # fmt: skip
MAIN_FILE = {"--config-path", "-cp", "--config-name", "-cn"}
MULTIRUN = {"-m": "hydra.mode=MULTIRUN", "--multirun": "hydra.mode=MULTIRUN"}  # the form that Hydra records
# Arguments that say nothing about what a sweep computes.
SWEEP_ARGUMENTS_TO_IGNORE = (*MULTIRUN, "hydra.mode", "hydra.sweep.dir", "outputs")
# Arguments that say only where a run or the jobs of a sweep take place.
PLACES_OF_A_RUN = ("resume", "hydra")
PLACES_OF_A_SWEEP = ("resume", "hydra.run", "hydra.sweep", LAUNCHER, "hydra.launcher")


def resumed_command_line(arguments: list[str]) -> list[str]:
    """Return the command line that `resume=` or `from=` asks for.

    Args:
        arguments: a command line. In it, `resume=` is a run's folder, a checkpoint in it, a sweep's folder, a folder of
            these, which stands for the newest, `latest`, or `auto`: the newest unfinished run or sweep with the same
            arguments. `from=` is the folder of a run that is repeated in a new folder. `trust=true` takes all that the
            folder says.

    Returns:
        The run's own arguments, changed and completed by the given ones, with its folder. Where `auto` finds nothing,
        and without `resume=` and `from=`, the arguments of a new run.

    Raises:
        NothingLeftToDo: `resume=auto` names a folder in which the same command has ended.
        UserError: `resume=` names nothing that can be resumed, the folder could run code, the sweep was started with
            other arguments, or a new run or sweep would use the folder of an old one.
    """
    given = {name: unquoted(value) for name, _, value in (argument.partition("=") for argument in arguments)}
    others = [argument for argument in arguments if name_of(argument) not in ("resume", "from", "trust")]
    trusted = is_trusted(given)
    asked = given.get("resume", given.get("from", ""))
    if finds_newest := asked == "auto" or is_latest(asked):
        given["outputs"] = outputs_of(others)
    if "from" in given:
        refuse_used_folder(given)
        run = Run(named_folder("from", given))
        if Sweep(run.folder).exists:
            raise UserError(f"from={given['from']} is a sweep: from= repeats one run, give the folder of a job")
        kept = saved_arguments(run, f"from={given['from']}", others, trusted, left_out=("outputs",))
        mode = [] if given.keys() & {*MULTIRUN, "hydra.mode"} else [A_RUN]
        return [*kept, *sorted([*others, *mode], key=lambda argument: is_flag(argument) or argument in MULTIRUN)]
    folder = folder_to_resume(given, others)
    if folder is None:
        refuse_used_folder(given)
        if given.get("resume") == "auto" and is_first_process():
            print("resume=auto: there is no unfinished run or sweep of this very command, so a new one begins")
        return others
    run, sweep = Run(folder), Sweep(folder)
    if run.is_shared:
        asked = given["resume"]
        raise UserError(
            f"resume={asked} holds weights without the state of the optimizer, from which no run resumes: "
            f"{for_shell(f'from={asked}')} repeats the run, {for_shell(f'model.weights={asked}')} begins a new one "
            "from its weights"
        )
    if sweep.exists:
        refuse_other_place(SWEEP_FOLDER, given, folder)
        if not finds_newest:
            refuse_other_outputs(others, folder, Sweep(folder).outputs)
        return resumed_sweep_command_line(sweep, others, trusted)
    if MULTIRUN.keys() & given.keys():
        missing = sweep.record_file.name
        raise UserError(f"resume={folder} is not the folder of a sweep, it has no {missing}; resume a run without -m")
    kept = saved_arguments(run, f"resume={given['resume']}", others, trusted)
    refuse_other_place("hydra.run.dir", given, folder)
    if not finds_newest:
        refuse_other_outputs(others, folder, run.config.get("outputs"))
    checkpoint = Path(given["resume"]) if Path(given["resume"]).is_file() else folder
    # Hydra leaves the run's settings as they are; training replaces them once it knows that the run is the same.
    place = [f"resume={quoted(checkpoint)}", f"hydra.run.dir={quoted(folder)}", "hydra.output_subdir=null", A_RUN]
    flags = [argument for argument in others if is_flag(argument)]  # Hydra's parser takes them before or after the rest
    placed = [*map(name_of, place)]
    added = [argument for argument in others if name_of(argument) not in placed and argument not in flags]
    return [*kept, *added, *place, *flags]


def outputs_of(arguments: Sequence[str]) -> str:
    """Return the folder of all runs: the option `outputs`, which a file that the command line chooses may set too.

    Raises:
        UserError: it refers to something that is not known yet.
    """
    typed = [unquoted(each.partition("=")[2]) for each in arguments if name_of(each).lstrip("+") == "outputs"]
    try:
        outputs = typed[-1] if typed else str(defaults("config", arguments)["outputs"])
        if "$" in outputs:
            options = [each for each in arguments if is_composed(each)]
            outputs = str(OmegaConf.create(composed("config", options, arguments))["outputs"])
    except HydraException:  # a mistake in another option is reported with the others
        return "outputs"
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"outputs={outputs} is not known before a run begins ({reason}): give outputs=<folder>"
        ) from error
    return os.path.expanduser(outputs)


def is_composed(argument: str) -> bool:
    """Return whether an argument sets one value of the configuration of a run."""
    override = None if is_flag(argument) else parsed(argument)
    is_of_run = not re.match(r"[+~]*(hydra[./]|(resume|from|trust)=)", argument)
    return override is not None and is_of_run and not override.is_sweep_override()


def refuse_other_place(option: str, given: Mapping[str, str], folder: Path) -> None:
    """Raise UserError if an option asks that what is resumed goes on in another folder than its own."""
    if option in given and Path(given[option]).resolve() != folder.resolve():
        raise UserError(f"resume= continues in {folder}: leave out {option}=, or repeat a run elsewhere with from=")


def refuse_other_outputs(arguments: Sequence[str], folder: Path, recorded: object) -> None:
    """Raise UserError if `outputs=` asks for another folder of all runs than that of the run or sweep to resume.

    Args:
        arguments: the given ones.
        folder: that of the run or sweep.
        recorded: the `outputs` that it has recorded, which need not contain the folder.
    """
    if "outputs" not in map(name_of, arguments):
        return
    asked = Path(outputs_of(arguments)).resolve()
    if asked != Path(str(recorded)).resolve() and not folder.resolve().is_relative_to(asked):
        raise UserError(
            f"resume= continues in {folder}, which is not in {asked}: leave out outputs=, or repeat a run there with "
            "from="
        )


def is_trusted(given: Mapping[str, str]) -> bool:
    if "trust" in given and not {"resume", "from"} & given.keys():
        raise UserError("trust= says that the folder of resume= or from= is trusted: it needs one of them")
    if "resume" in given and "from" in given:
        raise UserError("resume= continues a run in its folder, from= repeats it in a new one: choose one")
    if given.get("trust", "false") not in ("true", "false"):
        raise UserError(f"trust={given['trust']} must be true or false")
    return given.get("trust") == "true"


def saved_arguments(
    run: Run, source: str, others: list[str], trusted: bool, left_out: tuple[str, ...] = ()
) -> list[str]:
    """Return the arguments that a run was started with, as far as they are not given, with the options that are newer.

    Args:
        run: the run.
        source: the argument that names it, for messages.
        others: the given arguments.
        trusted: whether its saved overrides may be of any kind.
        left_out: the names of options that are not kept.

    Raises:
        UserError: the folder has no complete settings, or they could run code.
    """
    if not run.overrides_file.is_file():
        missing = f"{run.overrides_file.relative_to(run.folder)} or {Sweep(run.folder).record_file.name}"
        raise UserError(f"{source} is not the folder of a run or a sweep: it has no {missing}")
    if not run.has_settings:
        raise UserError(f"{source} has incomplete settings in {run.hydra_folder}: start a new run")
    config = run.config
    overrides = saved_overrides(run)
    given = {*map(name_of, others), *left_out}
    own = [override for override in overrides if name_of(override) not in given]
    require_choices(source, own, others)
    if not trusted:
        refuse_untrusted(own, source, others)
    overrides, own = without_plus("config", overrides), without_plus("config", own)
    older = [] if given & MAIN_FILE else options_of_an_older_run(source, config, overrides, others)
    if given & MAIN_FILE or chosen([*overrides, *others]) != chosen(overrides):
        older = older_options(flatten(config), defaults("config", [*overrides, *others]))
    return [*(override for override in older if name_of(override) not in given), *own]


def options_of_an_older_run(source: str, saved: dict[str, Any], overrides: list[str], others: list[str]) -> list[str]:
    """Return the overrides that the saved ones lack because the run is older than some options.

    Raises:
        UserError: together they do not give the saved configuration. A full disk or a power cut may have left a part
            of the overrides, and conf/ may have changed since.
    """
    folders = [argument for argument in others if is_flag(argument) or name_of(argument) == "hydra.searchpath"]
    try:
        now = composed("config", overrides, folders)
    except MissingConfigException as error:
        raise UserError(needs_line(source, str(error.missing_cfg_file))) from error
    if older := older_options(flatten(saved), dict(nodes(now))):
        now = composed("config", [*older, *overrides], folders)
    if different := differences(saved, now):
        more = f"; and {len(different) - 3} more" if len(different) > 3 else ""
        raise UserError(
            f"{source}: its config.yaml and its overrides.yaml, with conf/ as it is now, are of different runs: "
            f"{'; '.join(different[:3])}{more}; start a new run"
        )
    return older


def needs_line(source: str, file: str) -> str:
    """Say that a run or a sweep needs a file of configuration, given without its ending."""
    return (
        f"{source} needs {file}.yaml, which conf/ does not have: give your own folder of configuration, "
        "--config-dir=<folder>"
    )


def require_choices(source: str, overrides: Sequence[str], arguments: Sequence[str]) -> None:
    """Raise UserError for a saved choice whose file is neither in conf/ nor in a given folder.

    Args:
        source: the argument that names the run or the sweep, for messages.
        overrides: its saved ones. Other packages may have choices for the groups of Hydra.
        arguments: the given ones, which may name the user's own folders.
    """
    folders = [CONF, *own_folders([*sys.argv[1:], *arguments])]
    for override in filter(None, map(parsed, overrides)):
        group, value = override.key_or_group, override.value()
        if group.startswith("hydra/") or not is_group(group, folders):
            continue
        for choice in () if isinstance(value, dict) else scalars(value):
            file = f"{group}/{choice}".removesuffix(".yaml")
            is_name = isinstance(choice, str) and re.fullmatch(CHOICE, choice)
            if is_name and not any(os.path.isfile(folder / f"{file}.yaml") for folder in folders):
                raise UserError(needs_line(source, file))


def resumed_sweep_command_line(sweep: Sweep, others: list[str], trusted: bool) -> list[str]:
    """Return the command line that continues a sweep. Raise UserError for what would make it another one."""
    try:
        own = {name_of(argument): argument for argument in sweep.arguments}
    except SETTINGS_ERRORS as error:
        place = for_shell(f"hydra.sweep.dir={sweep.folder}")
        again = f"remove it and give the sweep's command with {place}, which continues its jobs"
        raise UserError(f"{sweep.record_file} is incomplete: {again}") from error
    own = {name: argument for name, argument in own.items() if not has_prefix(name, PLACES) or name == SWEEP_FOLDER}
    saved = [argument for name, argument in own.items() if argument not in others and name != SWEEP_FOLDER]
    require_choices(f"resume={sweep.folder}", saved, others)
    if not trusted:
        refuse_untrusted(saved, f"resume={sweep.folder}", others, in_sweep=True)
    own[SWEEP_FOLDER] = f"{SWEEP_FOLDER}={quoted(sweep.folder)}"
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
    return [*without_plus("config", [*own.values()]), *flags]


def is_flag(argument: str) -> bool:
    """Return whether an argument is a flag of Hydra, e.g. `--config-dir=mine`, or the value of one."""
    return argument not in MULTIRUN and (argument.startswith("-") or not re.search("[=~]", argument))


def folder_to_resume(given: dict[str, str], others: list[str]) -> Path | None:
    """Return the folder of the run or sweep that is meant; None for a new one."""
    asked = given.get("resume", "null")
    if asked == "null":
        return None
    if asked != "auto":
        return named_folder("resume", given)
    own_folder = given.get("hydra.run.dir") or given.get("hydra.sweep.dir")
    if own_folder:
        return begun_before(Path(own_folder), others)
    folders = newest_first(Path(given.get("outputs", "outputs")))
    unfinished = (folder for folder in folders if not Run(folder).has_ended)
    return next((folder for folder in unfinished if was_started_with(folder, others)), None)


def begun_before(folder: Path, others: list[str]) -> Path | None:
    """Return the folder if the same command has begun there; None if it has not.

    Raises:
        NothingLeftToDo: it has also ended there. A cluster may start one command again and again.
    """
    if not was_started_with(folder, others):
        return None
    if (status := Run(folder).status) not in ENDINGS:
        return folder
    if is_first_process():
        print(f"resume=auto: {printable(folder)} {ENDINGS[status]}, so nothing is left to do")
    raise NothingLeftToDo(folder)


def named_folder(option: str, given: Mapping[str, str]) -> Path:
    """Return the folder of the run or sweep that an option names, of a folder of runs the newest, which is printed.

    Raises:
        UserError: nothing has that name.
    """
    asked = given[option]
    path = folder_of_runs(asked, given.get("outputs", "outputs"))
    if os.path.isfile(path):
        return Run.of_checkpoint(path).folder
    if is_latest(asked) and not newest_first(path):
        raise UserError(f"{option}={not_found(asked, str(path))}")
    if not os.path.isdir(path):
        otherwise = f"; {option}=latest takes the newest run below outputs"
        meant = meant_run(str(path), given.get("outputs", "outputs"), otherwise)
        raise UserError(f"{option}={asked} does not exist{meant}")
    if Run(path).hydra_folder.is_dir() or Sweep(path).exists:
        return path
    newest = next(iter(newest_first(path)), path)
    if newest != path and is_first_process():
        print(f"{option}={printable(asked)}: the newest run or sweep there is {printable(newest)}")
    return newest


def was_started_with(folder: Path, arguments: list[str]) -> bool:
    """Compare the arguments in any order, except those that say where the run or the jobs take place."""
    sweep = Sweep(folder)
    places = PLACES_OF_A_SWEEP if sweep.exists else PLACES_OF_A_RUN
    try:
        recorded = sweep.arguments if sweep.exists else Run(folder).overrides
    except SETTINGS_ERRORS:
        return False
    then, now = (
        sorted(MULTIRUN.get(each, each).lstrip("+") for each in side if not has_prefix(name_of(each), places))
        for side in (recorded, [argument for argument in arguments if not is_flag(argument)])
    )
    return then == now


def refuse_used_folder(given: dict[str, str]) -> None:
    if "hydra.sweep.dir" in given and (sweep := Sweep(given["hydra.sweep.dir"])).record_file.exists():
        raise UserError(f"{sweep.folder} holds a sweep: {resume_argument(sweep.folder)} continues it")
    if "hydra.run.dir" in given and is_first_process():
        refuse_begun_run(Run(given["hydra.run.dir"]))


def refuse_begun_run(run: Run) -> None:
    """Raise UserError if a folder in which a run is to begin has a result or a checkpoint."""
    if run.has_begun:
        again = resume_argument(run.folder)
        raise UserError(f"{run.folder} holds a run: {again} continues it, another hydra.run.dir begins a new one")
