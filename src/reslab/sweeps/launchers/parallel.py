"""hydra/launcher=parallel: some jobs of a sweep at the same time on this machine."""

import math
import signal
import subprocess
import time
from dataclasses import dataclass

from reslab.interruption import signals
from reslab.machine import share_of_processors
from reslab.options import MINUTES, NULL, check_option
from reslab.processes import Guard
from reslab.sweeps.launchers import commands
from reslab.sweeps.launchers.commands import POLL_SECONDS, CommandJob, CommandLauncher, log
from reslab.sweeps.options import CONTINUES, N_JOBS


@dataclass
class Running:
    """A job whose command runs.

    Args:
        job: the job.
        process: its command.
        deadline: when it is out of time, on the clock of `time.monotonic`.
        asked_to_end: whether it has been.
    """

    job: CommandJob
    process: "subprocess.Popen[bytes]"
    deadline: float
    asked_to_end: bool = False

    def ask_to_end(self) -> None:
        """Let the job save and end; at the new deadline it is killed."""
        self.process.send_signal(signal.SIGTERM)
        self.deadline, self.asked_to_end = time.monotonic() + commands.SAVING_SECONDS, True

    @property
    def is_out_of_time(self) -> bool:
        return time.monotonic() > self.deadline


class ParallelLauncher(CommandLauncher):
    """A launcher that runs some jobs at the same time, each in a process of its own.

    Args:
        n_jobs: how many. They divide the processors' threads and the GPUs among themselves.
        timeout_min: minutes after which a job has failed; None for no limit.
    """

    def __init__(self, n_jobs: int, timeout_min: float | None = None) -> None:
        check_option("hydra.launcher.n_jobs", n_jobs, N_JOBS)
        check_option("hydra.launcher.timeout_min", timeout_min, MINUTES | NULL)
        self.n_jobs, self.timeout_min = n_jobs, timeout_min

    def threads(self, processes: int = 1) -> int:
        return share_of_processors(self.n_jobs * processes)

    def run_commands(self, jobs: list[CommandJob]) -> None:
        log.info("Launching %d jobs, %d at a time", len(jobs), self.n_jobs)
        waiting = list(jobs)
        running: dict[int, Running] = {}  # by the slot that the job occupies
        with Guard() as guard, signals.deferred():
            try:
                while (waiting or running) and signals.caught is None and not self.must_stop(jobs):
                    self.fill_slots(waiting, running, guard, jobs)
                    time.sleep(POLL_SECONDS)
                    self.empty_slots(running, guard, jobs)
                wait_for_end(list(running.values()))
            finally:  # also after a second Ctrl-C
                for each in running.values():
                    guard.end(each.process)
                    each.job.record_interruption()

    def fill_slots(
        self, waiting: list[CommandJob], running: dict[int, Running], guard: Guard, jobs: list[CommandJob]
    ) -> None:
        """Start a waiting job in each free slot."""
        for slot in range(self.n_jobs):
            if waiting and slot not in running:
                job = waiting.pop(0)
                try:
                    process = job.start(guard, slot, self.n_jobs)
                except OSError as error:
                    self.report_end(job, f"its command cannot be started: {error}", jobs)
                    continue
                limit = math.inf if self.timeout_min is None else 60 * self.timeout_min
                running[slot] = Running(job, process, time.monotonic() + limit)
                log.info("#%d began: %s", job.number, " ".join(job.overrides))

    def empty_slots(self, running: dict[int, Running], guard: Guard, jobs: list[CommandJob]) -> None:
        """Report the jobs that have ended. A job that is out of time saves and ends, or else is killed."""
        for slot, each in list(running.items()):
            if each.process.poll() is None and each.is_out_of_time and not each.asked_to_end:
                each.ask_to_end()
            elif each.process.poll() is not None or each.is_out_of_time:
                del running[slot]
                status = guard.end(each.process)
                late = f"out of time after hydra.launcher.timeout_min={self.timeout_min}; {CONTINUES}"
                self.report_end(each.job, late if each.asked_to_end else each.job.error_of(status), jobs)


def wait_for_end(running: list[Running]) -> None:
    """Ask jobs to save and end, and wait until they have, for a minute at most."""
    if not running:
        return
    names = ", ".join(f"#{each.job.number}" for each in running)
    again = "; Ctrl-C again kills them" if signals.caught is not None else ""
    log.info(
        "Waiting up to %d s until %s %s saved%s",
        commands.SAVING_SECONDS,
        names,
        "has" if len(running) == 1 else "have",
        again,
    )
    for each in running:
        each.ask_to_end()
    while unfinished := [each for each in running if each.process.poll() is None]:
        time.sleep(POLL_SECONDS)
        if late := [each for each in unfinished if each.is_out_of_time]:
            log.info("%s did not end and %s killed", ", ".join(f"#{each.job.number}" for each in late),
                     "was" if len(late) == 1 else "were")  # fmt: skip
            return
