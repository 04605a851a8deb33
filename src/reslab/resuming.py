"""`resume=` on the command line: which run is meant, its own settings, and what may differ from them."""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from reslab.errors import UserError, nodes
from reslab.files import write_json

# whatever else differs makes it another run
MAY_DIFFER = (
    "resume", "folder", "outputs", "test", "objective", "compile", "logger", "checkpoint", "sweep", "callbacks",
    "data.root", "data.num_workers", "data.on_error", "trainer.max_epochs", "trainer.max_steps", "trainer.accelerator",
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.log_every_n_steps",
    "trainer.limit_test_batches", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler",
    "trainer.detect_anomaly",
)  # fmt: skip
BUT_NOT = ("callbacks.ema",)
ENDED = ("finished", "pruned")  # in result.json: such a run never goes on
OVERRIDES = Path(".hydra", "overrides.yaml")  # in a run's folder, the last file that Hydra writes of its settings
LAUNCHER = "hydra/launcher"
SWEEP_FILE = "multirun.yaml"  # in the folder of each sweep, as Hydra has it
MAY_DIFFER_IN_A_SWEEP = (
    "hydra.sweeper.trials", "hydra.sweeper.n_jobs", "hydra.sweeper.max_batch_size", LAUNCHER, "hydra.launcher", "sweep",
)  # fmt: skip
MULTIRUN = {"-m": "hydra.mode=MULTIRUN", "--multirun": "hydra.mode=MULTIRUN"}  # as Hydra records it
OF_THE_COMMAND = (*MULTIRUN, "hydra.mode", "hydra.sweep.dir", "outputs")
BROKEN = (OSError, yaml.YAMLError, KeyError, TypeError)  # a file of settings: killed while it was written
PLACES_OF_A_RUN = ("resume", "hydra")
PLACES_OF_A_SWEEP = ("resume", "hydra.run", "hydra.sweep", LAUNCHER, "hydra.launcher")


def with_resumed_settings(arguments: list[str]) -> list[str]:
    """The command line of a run that goes on: its own arguments, those given now instead or beside, its folder.

    `resume=` takes a run's folder, a checkpoint in it, a sweep's folder, or `auto`: the newest unfinished run or sweep
    of the same arguments; where there is none a new one begins. Raises UserError for what is none of them, and for
    hydra.run.dir and hydra.sweep.dir of one that is there.
    """
    given = {name: unquoted(value) for name, _, value in (argument.partition("=") for argument in arguments)}
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    folder = run_folder(given, others)
    if folder is None:
        refuse_used_folder(given)
        return others
    if (folder / SWEEP_FILE).is_file():
        return with_sweep_settings(folder, others)
    if MULTIRUN.keys() & given.keys():
        raise UserError(f"resume={folder} is not a sweep's folder, it has no {SWEEP_FILE}; a run goes on without -m")
    if not (folder / OVERRIDES).is_file():
        raise UserError(
            f"resume={given['resume']} is no run's or sweep's folder: it has no {OVERRIDES} or {SWEEP_FILE}"
        )
    kept = [argument for argument in read_overrides(folder) if name_of(argument) not in given]
    checkpoint = folder if given["resume"] == "auto" else Path(given["resume"])
    # its .hydra is left as it is until the run is known to be the same one
    place = {"resume": quoted(checkpoint), "hydra.run.dir": quoted(folder), "hydra.output_subdir": "null"}
    added = [argument for argument in others if name_of(argument) not in place]
    return [*kept, *added, *(f"{name}={value}" for name, value in place.items())]


def with_sweep_settings(folder: Path, others: list[str]) -> list[str]:
    """The same for a sweep. Raises UserError for an argument that the sweep was not begun with."""
    try:
        own = {name_of(argument): argument for argument in sweep_arguments(folder)}
    except BROKEN as error:
        again = f"remove it and give the sweep's command with hydra.sweep.dir={folder}, which goes on with its jobs"
        raise UserError(f"{folder / SWEEP_FILE} is not whole: {again}") from error
    own["hydra.sweep.dir"] = f"hydra.sweep.dir={quoted(folder)}"
    launcher = next((argument for argument in others if name_of(argument) == LAUNCHER), None)
    if launcher is not None and own.get(LAUNCHER) != launcher:  # whose options those of the other are not
        own = {name: argument for name, argument in own.items() if not starts(name, ("hydra.launcher",))}
    flags = [argument for argument in others if is_flag(argument)]
    for argument in others:
        name = name_of(argument)
        if argument in flags or starts(name, OF_THE_COMMAND) or own.get(name) == argument:
            continue
        if not starts(name, MAY_DIFFER_IN_A_SWEEP):
            begun = own.get(name, f"no {name}")
            raise UserError(f"resume={folder} is a sweep with {begun}, not {argument}: start a new one")
        own[name] = argument
    return [*own.values(), *flags]


def is_flag(argument: str) -> bool:
    """Of Hydra's, `--config-dir=mine`, or the value of one."""
    return argument not in MULTIRUN and (argument.startswith("-") or not re.search("[=~]", argument))


def name_of(argument: str) -> str:
    return argument.partition("=")[0]


def run_folder(given: dict[str, str], others: list[str]) -> Path | None:
    """The folder of the run or sweep that is meant; None for a new one."""
    asked = given.get("resume", "null")
    if asked == "null":
        return None
    if asked != "auto":
        path = Path(asked)
        return path.parent.parent if path.is_file() else path
    own_folder = given.get("hydra.run.dir") or given.get("hydra.sweep.dir")
    folders = [Path(own_folder)] if own_folder else newest_first(Path(given.get("outputs", "outputs")))
    unfinished = (folder for folder in folders if read_result(folder)["status"] not in ENDED)
    return next((folder for folder in unfinished if began_with(folder, others)), None)


def newest_first(outputs: Path) -> list[Path]:
    runs = ((file.stat().st_mtime, file.parents[1]) for file in outputs.glob("*/*/.hydra/config.yaml"))
    sweeps = ((file.stat().st_mtime, file.parent) for file in outputs.glob(f"*/*/{SWEEP_FILE}"))
    return [folder for _, folder in sorted((*runs, *sweeps), reverse=True)]


def began_with(folder: Path, arguments: list[str]) -> bool:
    """The same arguments in any order, wherever they place the run or the jobs of the sweep."""
    is_sweep = (folder / SWEEP_FILE).is_file()
    places = PLACES_OF_A_SWEEP if is_sweep else PLACES_OF_A_RUN
    try:
        begun = sweep_arguments(folder) if is_sweep else read_overrides(folder)
    except BROKEN:
        return False
    then, now = (
        sorted(MULTIRUN.get(each, each) for each in side if not starts(name_of(each), places))
        for side in (begun, [argument for argument in arguments if not is_flag(argument)])
    )
    return then == now


def sweep_arguments(folder: Path) -> list[str]:
    saved = yaml.safe_load((folder / SWEEP_FILE).read_text())["hydra"]["overrides"]
    return [*saved["hydra"], *saved["task"]]


def read_overrides(folder: Path) -> list[str]:
    return yaml.safe_load((folder / OVERRIDES).read_text()) or []


def refuse_used_folder(given: dict[str, str]) -> None:
    if "hydra.sweep.dir" in given and (sweep := Path(given["hydra.sweep.dir"]) / SWEEP_FILE).exists():
        raise UserError(f"{sweep.parent} holds a sweep: resume={sweep.parent} goes on with it")
    if "hydra.run.dir" not in given or not is_first_process():
        return
    folder = Path(given["hydra.run.dir"])
    if (folder / "checkpoints").exists() or (folder / "result.json").exists():
        raise UserError(f"{folder} holds a run: resume={folder} continues it, another hydra.run.dir begins a new one")


def is_first_process() -> bool:
    """Of the processes of a run, which Lightning, torchrun or SLURM has started."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def quoted(value: object) -> str:
    """For Hydra's grammar, in which a job's folder (0_seed=1) would be no plain value.

    There a backslash is one, but before a quote.
    """
    return "'" + re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + found[2].replace("'", "\\'"), str(value)) + "'"


def unquoted(value: str) -> str:
    """As this very command line is given to the further processes of a run."""
    if not re.fullmatch("'.*'|\".*\"", value):
        return value
    quote = value[0]
    return re.sub(rf"(\\*)({quote}|\Z)", lambda found: found[1][: len(found[1]) // 2] + found[2], value[1:-1])


def differences(saved: Any, now: Any) -> list[str]:
    """What of a run's configuration differs and must not: `model.name was resnet20 and is resnet32`."""
    before, after = flatten(saved), flatten(now)
    return [
        f"{name} was {before.get(name)} and is {after.get(name)}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name) and not may_differ(name)
    ]


def may_differ(name: str) -> bool:
    return starts(name, MAY_DIFFER) and not starts(name, BUT_NOT)


def starts(name: str, options: tuple[str, ...]) -> bool:
    name = name.lstrip("+")
    return any(name == option or name.startswith(f"{option}.") for option in options)


def flatten(config: Any) -> dict[str, Any]:
    """Every option by its dotted name."""
    return {name: value for name, value in nodes(config) if not isinstance(value, dict)}


def read_result(folder: Path) -> dict[str, Any]:
    """What a run left in its result.json; only a status where it left none, or a broken one."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        result = None
    return result if isinstance(result, dict) and "status" in result else {"status": "unfinished"}


def write_failure(folder: Path, error: str, status: str = "failed") -> None:
    """The result.json of a run that has no results."""
    write_json(folder / "result.json", {"status": status, "error": error, "folder": str(folder)})
