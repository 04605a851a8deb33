"""The database of a search: Optuna's study, its directions, and the trial that belongs to a job."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from reslab.errors import RunError, UserError
from reslab.internals import continued_trial
from reslab.sweeps.folder import Sweep
from reslab.text import printable

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # QMCSampler, set_metric_names

DATABASE = "search.db"  # in the sweep's folder
STUDY_NAME = "search"
DEFINITION = "search"  # the attribute of the study that says what is searched
IN_USE = "the database of the search is in use"  # so begins the error of a job that could not reach it
WAIT_SECONDS = 60  # for a process that holds the database or creates its tables
POLL_SECONDS = 0.2
DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
LESS_IS_BETTER = ("loss", "seconds", "error", "parameters")  # endings of names in result.json
PRUNERS: dict[str, type[optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
}


def open_study(folder: Path, storage: str | None = None) -> optuna.Study:
    return optuna.load_study(**location(folder, storage))


def create_study(
    folder: Path, storage: str | None, objectives: Sequence[str], definition: dict[str, Any]
) -> optuna.Study:
    """Create the study of a search, or open it if the search has begun.

    Args:
        folder: the sweep's folder.
        storage: the URL of a database that searches share; None for `search.db` in the folder.
        objectives: names of results.
        definition: what is searched. A search that is resumed must have the same.

    Raises:
        UserError: the database cannot be opened, or the folder holds another search.
    """
    if not storage and not (folder / DATABASE).exists() and any(run.has_begun for run in Sweep(folder).jobs):
        missing = printable(folder / DATABASE)
        print(f"{missing} is missing: it is made again from the jobs' results, without the pruner's reports")
    minimize, maximize = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    directions = [minimize if name.endswith(LESS_IS_BETTER) else maximize for name in objectives]
    try:
        with errors_of_use():
            study = optuna.create_study(**location(folder, storage), directions=directions, load_if_exists=True)
    except RunError as error:
        raise UserError(str(error)) from error
    except (ImportError, *DATABASE_ERRORS) as error:
        reason = str(error).partition("\n")[0]
        own = f"{folder / DATABASE} cannot be opened; if it is removed, it is made again from the jobs' results"
        raise UserError(f"{'hydra.sweeper.storage cannot be opened' if storage else own}: {reason}") from error
    if study.trials and in_order(study.user_attrs.get(DEFINITION, {})) != in_order(definition):
        raise UserError(f"{folder} holds a different search: start a new one instead")
    study.set_user_attr(DEFINITION, definition)
    study.set_metric_names(list(objectives))  # the labels of the axes in Optuna's dashboard
    return study


def in_order(definition: dict[str, Any]) -> dict[str, Any]:
    """Return the definition of a search so that the order of its overrides does not count."""
    return definition | {"fixed": sorted(definition.get("fixed", []))}


def location(folder: Path, storage: str | None) -> dict[str, Any]:
    """Return where the study is. In a database that searches share, each search is named after its folder."""
    if storage is None:
        return {"storage": open_storage(f"sqlite:///{quote(str(folder / DATABASE))}"), "study_name": STUDY_NAME}
    return {"storage": open_storage(storage), "study_name": str(folder.absolute())}


def open_storage(url: str) -> optuna.storages.RDBStorage:
    """Open a database. Its operations wait while another process holds it.

    Of two searches that begin at once in a new database, one may find its tables half made. It tries again.
    """
    waits = {"connect_args": {"timeout": WAIT_SECONDS}} if url.startswith("sqlite") else {}
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return optuna.storages.RDBStorage(url, engine_kwargs=waits)
        except DATABASE_ERRORS as error:
            is_made_now = "already exists" in str(error) or isinstance(error, IntegrityError)
            if not is_made_now or time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)


@contextmanager
def errors_of_use() -> Iterator[None]:
    """Raise RunError in one line if another process has held the database for too long."""
    try:
        yield
    except DATABASE_ERRORS as error:
        if "database is locked" not in f"{error} {error.__cause__}":
            raise
        advice = "end it, then resume= continues the search"
        raise RunError(f"{IN_USE}: another process has held it for {WAIT_SECONDS} s; {advice}") from error


def open_running_trial(sweep: Sweep, number: int) -> optuna.Trial | None:
    """Return a trial with the pruner of its search; None if it is not running."""
    with errors_of_use():
        study = open_study(sweep.folder, sweep.storage)
        study.pruner = PRUNERS[study.user_attrs[DEFINITION]["pruner"]]()
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return next((continued_trial(study, trial) for trial in running if trial.number == number), None)
