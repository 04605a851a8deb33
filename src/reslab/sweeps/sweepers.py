"""The sweepers: a grid (hydra/sweeper=basic) and a search by Optuna (hydra/sweeper=optuna)."""

import logging
import sys
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reslab.configuration import as_list, shown
from reslab.errors import Failed, Interrupted, UserError
from reslab.files import FolderInUseError, relative, sole_user, write_bytes
from reslab.options import NULL, TRUE_OR_FALSE, check_option, integer, require_package
from reslab.run import resume_argument
from reslab.sweeps.benchmarks import print_failed_benchmarks
from reslab.sweeps.jobs import SweepJobs
from reslab.sweeps.options import SEARCH
from reslab.sweeps.summary import SweepFailed, print_summary
from reslab.sweeps.trust import resuming_command

if TYPE_CHECKING:
    from reslab.sweeps.search import Search

log = logging.getLogger(__name__)


class ResumableSweeper(Sweeper):
    """A sweeper that continues in a folder which already has jobs, and ends with a report.

    Args:
        params: overrides in addition to those of the command line, by name.
        options: what the sweeper itself takes, from conf/hydra/sweeper.
    """

    def __init__(self, params: dict[str, Any], **options: Any) -> None:
        self.params, self.options = params, options
        self.planned = 0  # jobs, once their number is known
        self.has_result = True  # not if a search ends without a best trial
        if nested := [name for name, value in params.items() if isinstance(value, Mapping)]:
            raise UserError(f"hydra.sweeper.params takes {nested[0]}.<option> as one name, not {nested[0]}: {{…}}")

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config_loader = hydra_context.config_loader
        self.jobs = SweepJobs(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs and print their report. Raise SweepFailed if a job failed."""
        lines = [*(f"{name}={shown(value)}" for name, value in self.params.items()), *arguments]
        sweep = self.jobs.sweep
        earlier_record = sweep.record_file.read_bytes() if sweep.exists else None
        try:
            check_option("sweep.stop_on_failure", self.jobs.config.sweep.stop_on_failure, TRUE_OR_FALSE)
            with sole_user(sweep.folder):
                if earlier_record != (sweep.record_file.read_bytes() if sweep.exists else None):
                    again = resume_argument(sweep.folder)
                    raise FolderInUseError(f"{sweep.folder} holds a sweep by now: {again} continues it")
                self.run(lines)
        except FolderInUseError:
            raise
        except (Interrupted, SweepFailed) as error:
            what = "interrupted" if isinstance(error, Interrupted) else "failed"
            self.summarize(what)
            print(f"{what} ({error}){self.continuation}", file=sys.stderr)
            raise
        except Exception as error:
            if self.jobs.launched:
                self.summarize("failed")
                raise Failed(error) from error
            if earlier_record is None:
                sweep.remove_unused(Path(str(self.jobs.config.outputs)))
            elif earlier_record != sweep.record_file.read_bytes():
                write_bytes(sweep.record_file, earlier_record)
            raise
        if failed := self.summarize():
            raise SweepFailed(f"{failed} jobs failed")
        if not self.has_result:
            raise SweepFailed("no trial has a result")

    @property
    def continuation(self) -> str:
        """What continues the sweep, as the end of a message; no command does that for benchmarks."""
        folder = relative(self.jobs.sweep.folder)
        return "" if self.jobs.are_benchmarks else f"; this continues the sweep:\n{resuming_command(folder)}"

    def summarize(self, status: str = "finished") -> int:
        """Print the report of the jobs and return how many failed; a benchmark has no accuracies to report."""
        if self.jobs.are_benchmarks:
            return print_failed_benchmarks(self.jobs.sweep, self.planned, self.jobs.unrecorded)
        return print_summary(self.jobs.sweep, self.planned, status, self.jobs.unrecorded, self.lost)

    @property
    def lost(self) -> int:
        """How many jobs have ended whose folders were removed, where that is known."""
        return 0

    def run(self, lines: list[str]) -> None:
        """Run the jobs. Each line is an override in Hydra's grammar, which may have several values: `seed=1,2`."""
        raise NotImplementedError


class GridSweeper(ResumableSweeper):
    """All combinations of values, as Hydra's own sweeper; the launcher receives `max_batch_size` jobs at once."""

    def run(self, lines: list[str]) -> None:
        """Run all combinations of the values in the lines, each of which is an override such as `seed=1,2`."""
        check_option("hydra.sweeper.max_batch_size", size := self.options["max_batch_size"], integer(1) | NULL)
        jobs = combinations(OverridesParser.create(config_loader=self.config_loader).parse_overrides(lines))
        self.planned = len(jobs)
        self.jobs.write_record()
        numbered = list(enumerate(jobs))
        size = size or len(numbered)
        if size < len(numbered):  # otherwise the only batch has all values
            self.jobs.check_values([self.jobs.compose(*each) for each in numbered])
        self.jobs.check_combinations(self.jobs.compose(*each) for each in numbered)  # up to the first without a mistake
        for start in range(0, len(numbered), size):
            self.jobs.run(dict(numbered[start : start + size]))


def combinations(overrides: list[Override]) -> list[list[str]]:
    """Return the overrides of each job; of two overrides with one name the later one counts."""
    values: dict[str, list[str]] = {}
    for override in overrides:
        if override.is_interval_sweep():
            raise UserError(
                f"{override.input_line} has infinitely many values: hydra/sweeper=optuna searches intervals"
            )
        swept = override.is_sweep_override()
        found = list(override.sweep_string_iterator()) if swept else [override.get_value_element_as_str()]
        if not found:
            raise UserError(f"{override.input_line} has no values")
        name = override.get_key_element()
        values[name] = [f"{name}={value}" for value in found]
    return [list(job) for job in product(*values.values())]


class OptunaSweeper(ResumableSweeper):
    """A search; conf/hydra/sweeper/optuna.yaml explains its options."""

    search: "Search | None" = None  # once it has begun

    def run(self, lines: list[str]) -> None:
        require_package("optuna", "hydra/sweeper=optuna", "search")
        from reslab.sweeps.search import Search
        from reslab.sweeps.space import check_space, read_space

        if unknown := sorted(self.options.keys() - SEARCH.keys()):
            raise UserError(f"there is no option hydra.sweeper.{unknown[0]}: {', '.join(SEARCH)}")
        fixed, space = read_space(lines, self.config_loader)
        objectives = as_list(self.jobs.config.objective)
        check_space(self.jobs, fixed, space, objectives)
        self.jobs.write_record()
        if of_chance := [name for name in space if name in ("seed", "data.fold")]:
            log.warning(
                "%s is searched like any other option, so best: names the luckiest one: a trial is one run, no mean",
                " and ".join(of_chance),
            )
        self.search = Search(self.jobs.sweep.folder, fixed, space, objectives, **self.options)
        self.planned = self.search.trials
        self.search.run(self.jobs)
        self.has_result = self.search.has_best

    @property
    def lost(self) -> int:
        return 0 if self.search is None else self.search.lost(self.jobs.sweep.jobs_by_number())
