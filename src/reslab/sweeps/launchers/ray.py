"""hydra/launcher=ray: each job of a sweep is a task of a Ray cluster."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from reslab import processes
from reslab.errors import FULL_ERROR, UserError
from reslab.interruption import signals
from reslab.machine import asked_threads
from reslab.options import MAX_PROCESSORS, NAME, between, check_option, require_package
from reslab.processes import Guard
from reslab.sweeps.composition import Job
from reslab.sweeps.launchers import commands
from reslab.sweeps.launchers.commands import POLL_SECONDS, SAVING_SECONDS, CommandJob, CommandLauncher, log


class RayLauncher(CommandLauncher):
    """A launcher that runs each job as a task of a Ray cluster, which starts it again if its node is lost.

    Args:
        address: "local" for a cluster of this machine that ends with the sweep, "auto" for the one that is running
            here, or the address of another one, e.g. "ray://host:10001".
        num_cpus: the processors of each job.
        num_gpus: the GPUs of each job; a fraction lets jobs share one.
    """

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        check_option("hydra.launcher.address", address, NAME)
        for name, value in (("num_cpus", num_cpus), ("num_gpus", num_gpus)):
            check_option(f"hydra.launcher.{name}", value, between(0, MAX_PROCESSORS))
        self.cluster: Any = None
        self.address, self.resources = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def threads(self, processes: int = 1) -> int:
        share = max(1, int(self.resources["num_cpus"] / processes))  # Ray sets OMP_NUM_THREADS so for a task
        return asked_threads() or share

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Raise UserError if Ray is missing or its cluster cannot run the jobs."""
        self.connect()

    def connect(self) -> Any:
        """Return the connection to the cluster, which `check_jobs` may have made. Raise UserError as it does."""
        require_package("ray", "hydra/launcher=ray", "ray")
        import ray

        if self.cluster is None:
            self.cluster = ray.init(
                address=self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
            )
            signals.listen()  # Ray has installed a handler of its own
            try:
                self.check_resources(ray.cluster_resources())
            except UserError:
                with self.cluster:  # it ends the connection
                    self.cluster = None
                raise
        return self.cluster

    def run_commands(self, jobs: list[CommandJob]) -> None:
        cluster = self.connect()
        import ray

        self.cluster = None  # the next batch of jobs connects again
        with cluster:
            for name in (
                __name__,
                commands.__name__,
                processes.__name__,
            ):  # a node need not be able to import the task's code
                ray.cloudpickle.register_pickle_by_value(sys.modules[name])
            remote: Any = ray.remote
            self.run_tasks(jobs, remote(**self.resources, max_retries=-1)(run_command))

    def check_resources(self, available: dict[str, float]) -> None:
        """Raise UserError for jobs that would wait forever. A cluster other than the local one may grow."""
        for option, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            requested, most = self.resources[option], available.get(resource, 0)
            if self.address == "local" and requested > most:
                raise UserError(f"hydra.launcher.{option}={requested} is more than the {most:g} of this machine")

    def run_tasks(self, jobs: list[CommandJob], task: Any) -> None:
        import ray

        log.info("Submitted %d jobs", len(jobs))
        running = {}
        for job in jobs:
            if not self.is_prepared(job, jobs):
                continue
            running[task.remote(job.restartable_command, str(job.output.absolute()))] = job
        with signals.deferred():
            while running and signals.caught is None and not self.must_stop(jobs):
                for ended in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                    outcome, job = ray.get(ended), running.pop(ended)
                    error = outcome if isinstance(outcome, str) else job.error_of(outcome)
                    self.report_end(job, error, jobs)
            for unfinished in running:
                ray.cancel(unfinished)
            if running:
                ray.wait(list(running), num_returns=len(running))  # each job saves and ends


def run_command(command: list[str], output: str) -> int | str:
    """Run a command as a task of Ray and return its exit status, or why it cannot be started.

    If the task's process is killed, the command saves and ends, and Ray starts the task again, which resumes the run.
    """
    environment = {name: value for name, value in os.environ.items() if name != FULL_ERROR}  # the sweep's own choice
    with ExitStack() as resources:
        try:
            file, guard = resources.enter_context(Path(output).open("ab")), resources.enter_context(Guard())
            process = guard.start(command, env=environment, stdout=file, stderr=file)
        except OSError as error:  # the folder may have disappeared
            return f"its command cannot be started: {error}"
        try:
            while process.poll() is None:  # process.wait() would not notice that the task is cancelled
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAVING_SECONDS)
        return guard.end(process)
