"""hydra/launcher=parallel: some jobs of a sweep at the same time on this machine."""

import signal
import subprocess
import time

from reslab.interruption import signals
from reslab.options import check_option, integer
from reslab.sweeps.launchers.commands import POLL_SECONDS, CommandJob, CommandLauncher, log

Running = dict[int, tuple[CommandJob, "subprocess.Popen[bytes]"]]  # by the slot that the job occupies


class ParallelLauncher(CommandLauncher):
    """A launcher that runs some jobs at the same time, each in a process of its own.

    Args:
        n_jobs: how many. They divide the processors' threads and the GPUs among themselves.
    """

    def __init__(self, n_jobs: int) -> None:
        check_option("hydra.launcher.n_jobs", n_jobs, integer(1))
        self.n_jobs = n_jobs

    def run_commands(self, jobs: list[CommandJob]) -> None:
        log.info("Launching %d jobs, %d at a time", len(jobs), self.n_jobs)
        waiting = list(jobs)
        running: Running = {}
        with signals.deferred():
            while (waiting or running) and signals.caught is None and not self.must_stop(jobs):
                self.fill_slots(waiting, running)
                time.sleep(POLL_SECONDS)
                for slot, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        self.report_end(job, job.error_of(process.returncode), jobs)
            for _, process in running.values():  # each job saves and ends
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()

    def fill_slots(self, waiting: list[CommandJob], running: Running) -> None:
        """Start a waiting job in each free slot."""
        for slot in range(self.n_jobs):
            if waiting and slot not in running:
                job = waiting.pop(0)
                running[slot] = (job, job.start(slot, self.n_jobs))
                log.info("#%d began: %s", job.number, " ".join(job.overrides))
