"""What every command shares: Hydra's entry point, one line for each error, a folder of its own for each run.

Nothing here imports torch, so that `--help` and a mistyped option are answered at once.
"""

import functools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from reslab.errors import CONF, USER_ERRORS, UserError, one_line, visible
from reslab.sweep import Summary, jobs, print_summary

log = logging.getLogger(__name__)


def command(config_name: str, task: Callable[[DictConfig], Any]) -> None:
    """Run `task` on the composed configuration; exit 2 on what the user got wrong, 1 on what failed."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them

    @functools.wraps(task)
    def job(config: DictConfig) -> Any:
        try:
            check_complete(config)
            return task(config)
        except Exception as error:
            hydra_config = HydraConfig.get()
            record_failure(error, config_name, Path(hydra_config.runtime.output_dir))
            if hydra_config.mode == RunMode.MULTIRUN or show_traceback:
                raise  # Hydra notes it and goes on with the next job
            fail(error, config_name)

    try:
        if config_name == "config":
            sys.argv[1:] = with_resumed_settings(sys.argv[1:])
        hydra.main(config_path=str(CONF), config_name=config_name, version_base="1.3")(job)()
    except Exception as error:
        if show_traceback:
            raise
        if Summary.folder is None or not jobs(Summary.folder):  # the error is not one of a job's own
            fail(error, config_name)
    if Summary.folder is not None and print_summary(Summary.folder):
        sys.exit(1)


def with_resumed_settings(arguments: list[str]) -> list[str]:
    """`resume=<a run's folder>` stands for that run's own arguments, its folder, and what is added to them."""
    resumed = [argument.removeprefix("resume=") for argument in arguments if argument.startswith("resume=")]
    if not resumed or resumed[0] == "null":
        return arguments
    saved_file = Path(resumed[0]) / ".hydra" / "overrides.yaml"
    if not saved_file.is_file():
        raise UserError(f"resume={resumed[0]} is not a run's folder: it has no .hydra/overrides.yaml")
    given = {argument.split("=")[0] for argument in arguments}
    saved: list[str] = yaml.safe_load(saved_file.read_text())
    kept = [argument for argument in saved if argument.split("=")[0] not in given]
    return [*kept, *arguments, f"hydra.run.dir={resumed[0]}"]


def fail(error: Exception, config_name: str) -> NoReturn:
    print(f"error: {one_line(error, config_name)}", file=sys.stderr)
    if isinstance(error, USER_ERRORS):
        sys.exit(2)
    print("HYDRA_FULL_ERROR=1 shows the traceback; the run's log has it too", file=sys.stderr)
    sys.exit(1)


def record_failure(error: Exception, config_name: str, folder: Path) -> None:
    """The traceback into the job's log, one line into its result.json."""
    log.debug("the run failed", exc_info=error)  # the log file's level; the terminal gets the line
    if not (folder / ".hydra").is_dir():  # the command makes no folder of its own
        return
    result = {"status": "failed", "error": one_line(error, config_name), "folder": str(folder)}
    (folder / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def check_complete(config: DictConfig) -> None:
    if missing := sorted(OmegaConf.missing_keys(config)):
        raise UserError(f"{', '.join(missing)} must be given, e.g. {missing[0]}=…")


@functools.lru_cache
def new_folder(parent: str) -> str:
    """A fresh outputs/…/<date>_<time>, made here and now so that no two runs ever share one."""
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{number}" for number in range(2, 1000))):
        folder = Path(parent) / (stamp + suffix)
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
    raise UserError(f"{parent} holds a thousand runs of this second")


def job_folder(number: Any, overrides: str) -> str:
    """`3_model=resnet20_seed=2`: readable, one path component, at most 120 characters."""
    return re.sub(r"[^\w=.+-]+", "_", f"{number}_{overrides}", flags=re.ASCII)[:120].rstrip("_")


def choices() -> str:
    """What --help lists: every group of conf/ with its files."""
    groups = sorted(folder for folder in CONF.iterdir() if folder.is_dir() and folder.name != "hydra")
    return "\n".join(f"{g.name}: {', '.join(visible([file.stem for file in g.glob('*.yaml')]))}" for g in groups)


OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("new_folder", new_folder, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
