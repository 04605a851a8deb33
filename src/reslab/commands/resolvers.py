"""What conf/ computes: the OmegaConf resolvers behind `${new_folder:…}`, `${folder_name:…}` and the like."""

import functools
import os
import re
import time
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from reslab.errors import UserError


@functools.lru_cache
def new_folder(parent: str, option: str = "outputs") -> str:
    """Make and return a new folder `<parent>/<date>_<time>`. Two runs never share one.

    Args:
        parent: the folder that holds it.
        option: the option that sets another place, for messages.
    """
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for suffix in ("", *(f"_{number}" for number in range(2, 1000))):
        folder = Path(os.path.expanduser(parent), stamp + suffix)
        try:
            folder.mkdir(parents=True)
            return str(folder)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{parent} cannot be made ({error.strerror}): {option}=<folder> is another place"
            ) from error
    raise UserError(f"{parent} holds a thousand runs of this second")


def run_folder(summary: Any, find_lr: Any, parent: str) -> str:
    """Return the new folder of a run; the current directory where only a summary or a learning rate is asked for."""
    return "." if summary is True or find_lr is True else new_folder(parent)


def job_folder(number: Any, overrides: str) -> str:
    """Return the folder's name of a job, e.g. `3_model=resnet20_seed=2`: one path component, up to 120 characters."""
    return re.sub(r"[^\w=.+-]+", "_", f"{number}_{overrides}", flags=re.ASCII)[:120].rstrip("_")


def folder_name(path: str) -> str:
    """Return the name of a folder; with `/..` behind it, of the one that it is in."""
    return Path(os.path.abspath(path)).name  # noqa: PTH100  # it removes `..` without a look at the disk


OmegaConf.register_new_resolver("new_folder", new_folder, replace=True)
OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
OmegaConf.register_new_resolver("folder_name", folder_name, replace=True)
