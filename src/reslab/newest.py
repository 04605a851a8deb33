"""The run that a path stands for.

A folder of runs stands for the newest of them, `latest` for the newest below outputs, and zoo/<name> for the run of a
network of the zoo.
"""

import logging
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from reslab.configuration import ZOO
from reslab.errors import UserError, nearest, suggest
from reslab.run import LAST, SWEEP_FILE, WEIGHTS, Run, require_text
from reslab.text import for_shell

log = logging.getLogger(__name__)

LATEST = "latest"  # in place of a folder: the newest run


def require_run(folder: str | Path) -> Path:
    """Return the folder of the run that a path stands for: its own, that of its checkpoint, or the newest run below it.

    A folder that has lost its settings is still that of a run if it has a checkpoint, which holds what a trained
    network needs.

    Raises:
        UserError: there is none.
    """
    require_text(folder, "the folder of a run")
    path = os.path.expanduser(folder)  # Path("") would be the current folder
    if not path:
        raise UserError("the path is empty: give a run's folder, or latest")
    path = located(path)
    is_file = os.path.isfile(path)
    run = Run.of_checkpoint(path) if is_file else Run(path)
    if (problem := run.settings_problem) is None or run.has_checkpoint:
        return run.folder
    if not is_file and (newest := newest_run(path)):
        return newest.folder
    if is_latest(path) or not os.path.lexists(path):
        raise UserError(not_found(path))
    what = "is not a run's checkpoint" if is_file else "holds no run"
    raise UserError(f"{path} {what}: {problem}{hidden_network(path)}")


def located(path: str | Path) -> str:
    """Return the folder of a network of the zoo for its name, zoo/<name> or zoo:<name>, and any other path as it is.

    A file or folder that has such a name itself is what it stands for.

    Raises:
        UserError: the zoo has no network of this name.
    """
    named = re.fullmatch("zoo[/:](.+?)/?", str(path), re.DOTALL)
    if named is None or os.path.lexists(path):
        return str(path)
    name, known = named[1], folders_in(str(ZOO))
    if name not in known:
        others = f"it has {', '.join(known)}" if known else "it is empty"
        raise UserError(f"{path}: the zoo has no such network{suggest(name, known, others)}")
    return str(ZOO / name)


def refuse_zoo(path: Path, advice: str) -> None:
    """Raise UserError for a place within the zoo, which is a part of ResLab and stays as it is."""
    if is_in_zoo(path):
        raise UserError(f"{path} is in the zoo, which stays as it is: {advice}")


def is_in_zoo(path: Path) -> bool:
    return path.resolve().is_relative_to(ZOO.resolve())


def hidden_network(path: str | Path) -> str:
    """Return, as the end of a message, that a path of the user's own hides a network of the zoo; "" if it does not."""
    name = str(path).removeprefix("zoo/").rstrip("/")
    is_hidden = name != str(path) and os.path.lexists(path) and name in folders_in(str(ZOO))
    return f"; this folder of yours comes before the network of the zoo, which is zoo:{name}" if is_hidden else ""


def require_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint that a path stands for: see `find_checkpoint`.

    Raises:
        UserError: there is no such file, and no run with a checkpoint.
    """
    if (found := find_checkpoint(path)) is None:
        require_path(path)
        folder = folder_of_runs(path)
        if Run(folder).hydra_folder.is_dir():
            raise UserError(f"checkpoint={path}: {Run(folder).lost_checkpoints or 'the run has no checkpoint yet'}")
        if runs := list(Run.below(folder)):
            are_lost = any(run.lost_checkpoints for run in runs)
            raise UserError(f"checkpoint={path}: its runs have no checkpoint{'s any more' if are_lost else ' yet'}")
        what = "neither a checkpoint nor the folder of a run that has one"
        raise UserError(f"checkpoint={path}: {what}{hidden_network(path)}")
    return found


def require_path(checkpoint: str | Path) -> None:
    """Raise UserError if `checkpoint=` names nothing at all. Commands ask before imports that take seconds."""
    folder = folder_of_runs(checkpoint)
    if not os.path.lexists(folder) or (is_latest(checkpoint) and next(Run.below(folder), None) is None):
        raise UserError(f"checkpoint={not_found(checkpoint)}")


def not_found(path: str | Path, outputs: str = "outputs") -> str:
    """Say that a file or folder does not exist; of `latest`, that there is no run in the folder of all runs."""
    if not is_latest(path):
        return f"{path} does not exist{meant_run(str(path), outputs)}"
    lacking = "holds none" if os.path.isdir(outputs) else "does not exist"
    return (
        f"{path} is the newest run below {outputs}, and {Path(outputs).absolute()} {lacking}: change to the folder in "
        "which you trained, or give the run's folder"
    )


def meant_run(path: str, outputs: str = "outputs", otherwise: str = "") -> str:
    """Return what a path may stand for, as a question: `latest`, or what is beside it; `otherwise` if none is near.

    A name alone may also stand for a folder in that of all runs.
    """
    if nearest(path, [LATEST]):
        return f": did you mean {LATEST}?"
    parent, name = os.path.split(path.rstrip(os.sep))
    near = [
        for_shell(os.path.join(place, known))  # noqa: PTH118
        for place in ([parent] if parent else ["", outputs])
        for known in nearest(name, folders_in(place or os.curdir, with_checkpoints=True))
    ]
    return f": did you mean {' or '.join(near)}?" if near else otherwise


def folders_in(folder: str, *, with_checkpoints: bool = False) -> list[str]:
    """Return the names of the folders in a folder, or also those of checkpoints, sorted; none if it is unreadable."""
    with suppress(OSError), os.scandir(folder) as entries:
        named = (entry.name for entry in entries if entry.is_dir() or (with_checkpoints and is_checkpoint(entry.name)))
        return sorted(named)
    return []


def is_checkpoint(name: str) -> bool:
    """Return whether the name of a file is that of a checkpoint."""
    return name.endswith((Path(LAST).suffix, Path(WEIGHTS).suffix))


def find_checkpoint(path: str | Path) -> Path | None:
    """Return the checkpoint that a path stands for; None where there is none.

    A file is one itself. The folder of a run stands for its best checkpoint, and a folder of runs for that of the
    newest run in it, which the log names.
    """
    path = located(path)
    if os.path.isfile(path):
        return Path(path)
    run = Run(path)
    if not run.has_checkpoint:
        newest = newest_run(path)
        if newest is None:
            return None
        log.info("%s: the newest run is %s", path, newest.folder)
        run = newest
    checkpoint, other = run.chosen_checkpoint()
    if other:
        log.warning("%s", other)
    return checkpoint


def newest_run(folder: str | Path) -> Run | None:
    """Return the newest run with a checkpoint below a folder, a sweep's jobs included; None where there is none.

    `latest` stands for the folder outputs.
    """
    folder = folder_of_runs(folder)
    if not os.path.isdir(folder):
        return None
    files = (file for depth in ("*", "*/*", "*/*/*") for file in folder.glob(f"{depth}/.hydra/config.yaml"))
    runs = (Run(file.parents[1]) for file in newest_files(files))
    return next((run for run in runs if run.has_checkpoint), None)


def folder_of_runs(folder: str | Path, outputs: str = "outputs") -> Path:
    """Return the folder of all runs for `latest`, unless there is a folder of this name, and otherwise the folder."""
    return Path(outputs) if is_latest(folder) else Path(located(folder))


def is_latest(folder: str | Path) -> bool:
    return str(folder) == LATEST and not os.path.lexists(LATEST)


def newest_first(outputs: Path) -> list[Path]:
    """Return the folders of the runs and sweeps in a folder or one level below, without the jobs of sweeps."""
    folders = (folder for depth in ("*", "*/*") for folder in outputs.glob(depth))
    own = (folder for folder in folders if not (folder.parent / SWEEP_FILE).is_file())
    files = newest_files(file for folder in own for file in (Run(folder).config_file, folder / SWEEP_FILE))
    return list(dict.fromkeys(file.parent if file.name == SWEEP_FILE else file.parents[1] for file in files))


def newest_files(files: Iterable[Path]) -> list[Path]:
    """Return those that exist, the newest first. Another command may remove its folder meanwhile."""
    times = {}
    for file in files:
        with suppress(FileNotFoundError, NotADirectoryError):
            times[file] = file.stat().st_mtime
    return sorted(times, key=times.__getitem__, reverse=True)
