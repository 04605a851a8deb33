"""hydra/launcher=parallel, slurm and ray: jobs of a sweep side by side, each a command in a process of its own.

A job that the system kills, for want of memory say, takes no other with it, and one on several devices starts
its processes as any command does; joblib's launcher has one pool of workers for all.
"""

import ctypes
import logging
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from reslab.errors import RunError, UserError
from reslab.interruption import signals
from reslab.resuming import quoted, read_result
from reslab.sweep import SweepStopped
from reslab.sweep_jobs import job_config, job_folder

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1
ASKED_TO_END = (128 + signal.SIGTERM, 128 + signal.SIGUSR2)


@dataclass
class Job:
    number: int
    overrides: list[str]
    folder: Path
    objectives: list[str]  # the names of what it returns, in its result.json
    returned: JobReturn = field(default_factory=JobReturn)

    @property
    def command(self) -> list[str]:
        return [sys.executable, sys.argv[0], *self.overrides, f"hydra.run.dir={quoted(self.folder)}"]

    def start(self, place: int, places: int) -> "subprocess.Popen[bytes]":
        """In a session of its own, so that Ctrl-C reaches the sweep alone, which passes it on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // places)), **os.environ}
        environment.pop("HYDRA_FULL_ERROR", None)  # which the sweep sets for itself; the job's log has the traceback
        if devices := gpus():
            environment["CUDA_VISIBLE_DEVICES"] = devices[place % len(devices)]
        with (self.folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                self.command, env=environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=follow
            )

    def end(self, status: int) -> str:
        """Keeps what it returns; a line that tells it."""
        result = read_result(self.folder)
        if status == 0:
            values = {name: result.get(name, math.nan) for name in self.objectives}
            self.returned.status, self.returned.return_value = JobStatus.COMPLETED, list(values.values())
            shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            return f"#{self.number} {result.get('status', 'finished')}: {shown}"
        line = result.get("error") or f"exit status {status}, see {self.folder / 'output.txt'}"
        self.returned.status, self.returned.return_value = JobStatus.FAILED, RunError(line)
        return f"#{self.number} failed: {line}"


def follow() -> None:
    """A job ends, and saves, when the process of its sweep is killed; other systems than Linux have no such request."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


class CommandLauncher(Launcher):
    """Each job is a command of its own, in the folder that Hydra gives it."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        jobs = [self.job(number, list(overrides)) for number, overrides in enumerate(job_overrides, initial_job_idx)]
        self.run(jobs)
        if self.stopped(jobs):
            raise SweepStopped
        return [job.returned for job in jobs]

    def job(self, number: int, overrides: list[str]) -> Job:
        config = job_config(self.hydra_context.config_loader, self.config, number, overrides)
        task = [override for override in filter_overrides(overrides) if not override.startswith("hydra/")]
        objective = config.objective
        return Job(number, task, job_folder(config), [objective] if isinstance(objective, str) else list(objective))

    def tell(self, job: Job, status: int, jobs: list[Job]) -> None:
        """That a job has ended, and how many have."""
        line = job.end(status)
        ended = sum(each.returned.status != JobStatus.UNKNOWN for each in jobs)
        log.info("%s (%d of %d)", line, ended, len(jobs))

    def stopped(self, jobs: list[Job]) -> bool:
        return bool(self.config.sweep.stop_on_failure) and any(job.returned.status == JobStatus.FAILED for job in jobs)

    def run(self, jobs: list[Job]) -> None:
        raise NotImplementedError


class ParallelLauncher(CommandLauncher):
    def __init__(self, n_jobs: int) -> None:
        if n_jobs < 1:
            raise UserError(f"hydra.launcher.n_jobs={n_jobs} must be at least 1")
        self.n_jobs = n_jobs

    def run(self, jobs: list[Job]) -> None:
        log.info("Launching %d jobs, %d at a time", len(jobs), self.n_jobs)
        waiting = list(jobs)
        running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}  # by their places
        with signals.wait():
            while (waiting or running) and signals.caught is None and not self.stopped(jobs):
                for place in set(range(self.n_jobs)) - running.keys():
                    if waiting:
                        job = waiting.pop(0)
                        running[place] = (job, job.start(place, self.n_jobs))
                        log.info("#%d began: %s", job.number, " ".join(job.overrides))
                time.sleep(POLL_SECONDS)
                for place, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[place]
                        self.tell(job, process.returncode, jobs)
            for _, process in running.values():  # each saves its step and ends
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()


class SlurmLauncher(CommandLauncher):
    """Through submitit, whose parameters it takes. A job that is preempted or out of time is requeued and goes on."""

    def __init__(self, max_requeues: int, **parameters: Any) -> None:
        self.max_requeues, self.parameters = max_requeues, parameters

    def run(self, jobs: list[Job]) -> None:
        try:
            import submitit  # an extra
        except ImportError as error:
            raise UserError("hydra/launcher=slurm needs submitit: pip install -e '.[slurm]'") from error
        if shutil.which("sbatch") is None:
            raise UserError("hydra/launcher=slurm: there is no sbatch here; start it where jobs are submitted")
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns each time that a cluster keeps no accounts
        logs = Path(self.config.hydra.sweep.dir, ".submitit", "%j")
        executor = submitit.AutoExecutor(logs, cluster="slurm", slurm_max_num_timeout=self.max_requeues)
        source = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parents[1]))}:$PYTHONPATH"
        threads = "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"
        executor.update_parameters(**self.parameters, slurm_setup=[source, threads])
        with executor.batch():
            submitted = [(job, executor.submit(SlurmJob(job.command))) for job in jobs]
        log.info("Submitted %d jobs, %s to %s", len(jobs), submitted[0][1].job_id, submitted[-1][1].job_id)
        while submitted and not self.stopped(jobs):  # Ctrl-C leaves the jobs to SLURM
            time.sleep(POLL_SECONDS)
            for job, slurm_job in list(submitted):
                if slurm_job.done():
                    submitted.remove((job, slurm_job))
                    self.tell(job, 0 if slurm_job.exception() is None else 1, jobs)
        for _, slurm_job in submitted:
            slurm_job.cancel()


class RayLauncher(CommandLauncher):
    """Each job a task of a Ray cluster, which gives it processors and GPUs and starts it again if its node is lost."""

    def __init__(self, address: str | None, num_cpus: float, num_gpus: float) -> None:
        self.address, self.resources = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def run(self, jobs: list[Job]) -> None:
        try:
            import ray  # an extra
        except ImportError as error:
            raise UserError("hydra/launcher=ray needs Ray: pip install -e '.[ray]'") from error

        def run_command(command: list[str], output: str) -> int:  # by value, so a node need not find this module
            with Path(output).open("wb") as file:
                process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
                try:
                    while process.poll() is None:  # a wait would not notice that it is cancelled
                        time.sleep(POLL_SECONDS)
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGTERM)
                return process.wait()

        ray.init(address=self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        signals.listen()  # again: Ray has put its own handler in front
        remote: Any = ray.remote
        task = remote(**self.resources, max_retries=-1)(run_command)
        log.info("Submitted %d jobs", len(jobs))
        running = {}
        for job in jobs:
            job.folder.mkdir(parents=True, exist_ok=True)
            running[task.remote([*job.command, "resume=auto"], str(job.folder.absolute() / "output.txt"))] = job
        with signals.wait():
            while running and signals.caught is None and not self.stopped(jobs):
                for ref in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                    self.tell(running.pop(ref), ray.get(ref), jobs)
            for ref in running:
                ray.cancel(ref)
            if running:
                ray.wait(list(running), num_returns=len(running))  # each saves its step and ends
        ray.shutdown()


class SlurmJob:
    """What submitit runs on a node, again after each time that SLURM has put the job back into the queue."""

    def __init__(self, command: list[str]) -> None:
        self.command = [*command, "resume=auto"]

    def __call__(self) -> None:
        status = subprocess.call(self.command)
        while status in ASKED_TO_END:  # saved; SLURM, which asked, ends the job and requeues it if it was preempted
            signal.pause()
        if status:
            raise RunError(f"exit status {status}")

    def checkpoint(self) -> Any:
        """For submitit, which requeues it when its time is up."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
