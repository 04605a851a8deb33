"""`resume=` on the command line: which run is meant, its own settings, and what may differ from them."""

import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from reslab.errors import UserError, nodes

OUTPUTS = Path("outputs")
# whatever else differs makes it another run
MAY_DIFFER = (
    "resume", "folder", "test", "objective", "compile", "logger", "checkpoint", "sweep", "callbacks", "data.root",
    "data.num_workers", "data.on_error", "trainer.max_epochs", "trainer.max_steps", "trainer.accelerator",
    "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.log_every_n_steps",
    "trainer.limit_test_batches", "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.profiler",
    "trainer.detect_anomaly",
)  # fmt: skip
BUT_NOT = ("callbacks.ema",)
SWEEP_FILE = "multirun.yaml"  # in the folder of each sweep, by Hydra
MAY_DIFFER_IN_A_SWEEP = (
    "hydra.sweeper.trials", "hydra.sweeper.n_jobs", "hydra.sweeper.max_batch_size", "hydra/launcher", "hydra.launcher",
)  # fmt: skip
OF_THE_COMMAND = ("-m", "--multirun", "hydra.sweep.dir", "hydra.mode")


def with_resumed_settings(arguments: list[str]) -> list[str]:
    """The command line of a run that goes on: its own arguments, those given now instead or beside, its folder.

    `resume=` takes a run's folder, a checkpoint in it, or `auto`: the newest unfinished run of the same arguments;
    where there is none a new one begins. Raises UserError for what is no run, and for hydra.run.dir of one that is.
    """
    given = {name: unquoted(value) for name, _, value in (argument.partition("=") for argument in arguments)}
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    folder = run_folder(given, others)
    if folder is None:
        refuse_used_folder(given)
        return others
    if (folder / SWEEP_FILE).is_file():
        return with_sweep_settings(folder, others)
    if {"-m", "--multirun"} & given.keys():
        raise UserError(f"resume={folder} is not a sweep's folder, it has no {SWEEP_FILE}; a run goes on without -m")
    saved_file = folder / ".hydra" / "overrides.yaml"
    if not saved_file.is_file():
        raise UserError(f"resume={given['resume']} is not a run's folder: {folder} has no .hydra/overrides.yaml")
    kept = [argument for argument in read_overrides(saved_file) if name_of(argument) not in given]
    checkpoint = folder if given["resume"] == "auto" else Path(given["resume"])
    # its .hydra is left as it is until the run is known to be the same one
    place = {"resume": quoted(checkpoint), "hydra.run.dir": quoted(folder), "hydra.output_subdir": "null"}
    added = [argument for argument in others if name_of(argument) not in place]
    return [*kept, *added, *(f"{name}={value}" for name, value in place.items())]


def with_sweep_settings(folder: Path, others: list[str]) -> list[str]:
    """The same for a sweep. Raises UserError for an argument that the sweep was not begun with."""
    saved = yaml.safe_load((folder / SWEEP_FILE).read_text())["hydra"]["overrides"]
    own = {name_of(argument): argument for argument in (*saved["hydra"], *saved["task"])}
    own |= {"hydra.sweep.dir": f"hydra.sweep.dir={quoted(folder)}", "hydra.mode": "hydra.mode=MULTIRUN"}
    for argument in others:
        name = name_of(argument)
        if starts(name, OF_THE_COMMAND) or own.get(name) == argument:
            continue
        if not starts(name, MAY_DIFFER_IN_A_SWEEP):
            begun = own.get(name, f"no {name}")
            raise UserError(f"resume={folder} is a sweep with {begun}, not {argument}: start a new one")
        own[name] = argument
    return list(own.values())


def name_of(argument: str) -> str:
    return argument.partition("=")[0]


def run_folder(given: dict[str, str], others: list[str]) -> Path | None:
    """The folder of the run that is meant; None for a new run."""
    asked = given.get("resume", "null")
    if asked == "null":
        return None
    if asked == "auto" and {"-m", "--multirun"} & given.keys():
        raise UserError("resume=auto goes on with a run; for a sweep give its folder: resume=<folder>")
    if asked != "auto":
        path = Path(asked)
        return path.parent.parent if path.is_file() else path
    folders = [Path(given["hydra.run.dir"])] if "hydra.run.dir" in given else newest_first(OUTPUTS)
    same = (folder for folder in folders if is_unfinished(folder) and overrides(folder) == sorted_overrides(others))
    return next(same, None)


def newest_first(outputs: Path) -> list[Path]:
    return sorted((path.parents[1] for path in outputs.glob("*/*/.hydra/overrides.yaml")), key=began, reverse=True)


def began(folder: Path) -> float:
    return (folder / ".hydra" / "config.yaml").stat().st_mtime


def is_unfinished(folder: Path) -> bool:
    return (folder / ".hydra" / "overrides.yaml").is_file() and read_result(folder)["status"] != "finished"


def overrides(folder: Path) -> list[str] | None:
    try:
        return sorted_overrides(read_overrides(folder / ".hydra" / "overrides.yaml"))
    except yaml.YAMLError:  # killed while Hydra wrote it
        return None


def sorted_overrides(arguments: list[str]) -> list[str]:
    return sorted(argument for argument in arguments if not argument.startswith(("hydra.", "resume=")))


def read_overrides(path: Path) -> list[str]:
    return yaml.safe_load(path.read_text()) or []


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
    """For Hydra's grammar, in which a job's folder (0_seed=1) would be no plain value."""
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unquoted(value: str) -> str:
    """As this very command line is given to the further processes of a run."""
    return value[1:-1].replace("\\'", "'").replace("\\\\", "\\") if re.fullmatch("'.*'|\".*\"", value) else value


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
    return any(name == option or name.startswith(f"{option}.") for option in options)


def flatten(config: Any) -> dict[str, Any]:
    """Every option by its dotted name."""
    return {name: value for name, value in nodes(config) if not isinstance(value, dict)}


def read_result(folder: Path) -> dict[str, Any]:
    """What a run left in its result.json; only a status where it left none."""
    file = folder / "result.json"
    return json.loads(file.read_text()) if file.is_file() else {"status": "unfinished"}
