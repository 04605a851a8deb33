"""hydra/launcher=parallel and ray: jobs of a sweep side by side, each a command in a process of its own.

A job that the system kills, for want of memory say, takes no other with it, and one on several devices starts
its processes as any command does; joblib's launcher has one pool of workers for all.
"""

import ctypes
import logging
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import OmegaConf

from reslab.errors import RunError, UserError
from reslab.files import write_text
from reslab.interruption import signals
from reslab.options import as_list, check_option, whole
from reslab.resuming import ENDED, OVERRIDES, quoted, read_result, write_failure
from reslab.sweeps.jobs import Job, JobLauncher
from reslab.sweeps.summary import SweepStopped

log = logging.getLogger(__name__)

POLL_SECONDS = 0.1


@dataclass
class CommandJob(Job):
    returned: JobReturn = field(default_factory=JobReturn)

    @property
    def command(self) -> list[str]:
        task = [override for override in filter_overrides(self.overrides) if not override.startswith("hydra/")]
        return [sys.executable, sys.argv[0], *config_flags(), *task, f"hydra.run.dir={quoted(self.folder)}"]

    def reopen(self) -> None:
        """An earlier failure is not told for one of this start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if read_result(self.folder)["status"] == "failed":
            (self.folder / "result.json").unlink()

    def start(self, place: int, places: int) -> "subprocess.Popen[bytes]":
        """In a session of its own, so that Ctrl-C reaches the sweep alone, which passes it on."""
        self.reopen()
        environment = {"OMP_NUM_THREADS": str(max(1, processors() // places)), **os.environ}
        environment.pop("HYDRA_FULL_ERROR", None)  # which the sweep sets for itself; the job's log has the traceback
        if devices := gpus():
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(share(devices, place, places))
        with (self.folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                self.command, env=environment, stdout=output, stderr=output, start_new_session=True, preexec_fn=follow
            )

    def end(self, failure: str | None) -> str:
        """Keeps what it returns; a line that tells it: `failure` if it failed and left no line of its own.

        What befell its process after its result was written takes nothing from that.
        """
        result = read_result(self.folder)
        if failure is None or result["status"] in ENDED:
            values = {name: result.get(name, math.nan) for name in as_list(self.config.objective)}
            self.returned.status, self.returned.return_value = JobStatus.COMPLETED, list(values.values())
            shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            return f"#{self.number} {result['status']}: {shown}"
        if result["status"] != "failed":
            self.record(failure)
        line = result["error"] if result["status"] == "failed" else failure
        self.returned.status, self.returned.return_value = JobStatus.FAILED, RunError(line)
        return f"#{self.number} failed: {line}"

    def record(self, failure: str) -> None:
        """For the sweep's report, which knows a run by its .hydra, and for resume=."""
        if not (self.folder / OVERRIDES).is_file():  # it never began
            task = [override for override in filter_overrides(self.overrides) if not override.startswith("resume=")]
            write_text(self.folder / ".hydra" / "config.yaml", OmegaConf.to_yaml(self.config))
            write_text(self.folder / OVERRIDES, OmegaConf.to_yaml(task))
        write_failure(self.folder, failure)


def follow() -> None:
    """A job saves and ends when the process that started it is killed; only Linux has such a request."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def gpus() -> list[str]:
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def share(devices: list[str], place: int, places: int) -> list[str]:
    """The GPUs of a job; more jobs at a time than GPUs share them."""
    return devices[place::places] or [devices[place % len(devices)]]


def processors() -> int:
    """That this process may use: SLURM and taskset leave it some of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def config_flags() -> list[str]:
    """Of the sweep's command: where a user's own configuration lies."""
    given = vars(get_args_parser().parse_args())
    names = ("config_path", "config_name", "config_dir")
    return [f"--{name.replace('_', '-')}={given[name]}" for name in names if given[name]]


class CommandLauncher(JobLauncher):
    """Each job is a command of its own, in the folder that Hydra gives it."""

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        command_jobs = [CommandJob(**vars(job)) for job in jobs]
        self.run(command_jobs)
        if self.stopped(command_jobs):
            raise SweepStopped
        return [job.returned for job in command_jobs]

    def tell(self, job: CommandJob, failure: str | None, jobs: list[CommandJob]) -> None:
        """That a job has ended, and how many have."""
        line = job.end(failure)
        ended = sum(each.returned.status != JobStatus.UNKNOWN for each in jobs)
        log.info("%s (%d of %d)", line, ended, len(jobs))

    def stopped(self, jobs: list[CommandJob]) -> bool:
        return bool(self.config.sweep.stop_on_failure) and any(job.returned.status == JobStatus.FAILED for job in jobs)

    def run(self, jobs: list[CommandJob]) -> None:
        raise NotImplementedError


def failure(status: int, job: CommandJob) -> str | None:
    """How a command died that left no line in its result.json; one that was refused has it on the terminal."""
    if status == 0:
        return None
    output = job.folder / "output.txt"
    lines = output.read_text(errors="replace").splitlines()
    return lines[-1].removeprefix("error: ") if status == 2 and lines else f"exit status {status}, see {output}"


class ParallelLauncher(CommandLauncher):
    def __init__(self, n_jobs: int) -> None:
        check_option("hydra.launcher.n_jobs", n_jobs, whole(1))
        self.n_jobs = n_jobs

    def run(self, jobs: list[CommandJob]) -> None:
        log.info("Launching %d jobs, %d at a time", len(jobs), self.n_jobs)
        waiting = list(jobs)
        running: dict[int, tuple[CommandJob, subprocess.Popen[bytes]]] = {}  # by their places
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
                        self.tell(job, failure(process.returncode, job), jobs)
            for _, process in running.values():  # each saves its step and ends
                process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()


class RayLauncher(CommandLauncher):
    """Each job a task of a Ray cluster, which gives it processors and GPUs and starts it again if its node is lost."""

    def __init__(self, address: str, num_cpus: float, num_gpus: float) -> None:
        self.address, self.resources = address, {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def run(self, jobs: list[CommandJob]) -> None:
        try:
            import ray  # an extra
        except ImportError as error:
            raise UserError("hydra/launcher=ray needs Ray: pip install -e '.[ray]'") from error

        with ray.init(address=self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR):
            signals.listen()  # again: Ray has put its own handler in front
            for name, there in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
                asked, available = self.resources[name], ray.cluster_resources().get(there, 0)
                if self.address == "local" and asked > available:  # another cluster may grow
                    raise UserError(f"hydra.launcher.{name}={asked} is more than the {available:g} of this machine")
            ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # so a node need not find this module
            remote: Any = ray.remote
            self.run_tasks(jobs, remote(**self.resources, max_retries=-1)(run_command))

    def run_tasks(self, jobs: list[CommandJob], task: Any) -> None:
        import ray

        log.info("Submitted %d jobs", len(jobs))
        running = {}
        for job in jobs:
            job.reopen()
            running[task.remote([*job.command, "resume=auto"], str(job.folder.absolute() / "output.txt"))] = job
        with signals.wait():
            while running and signals.caught is None and not self.stopped(jobs):
                for ref in ray.wait(list(running), timeout=POLL_SECONDS)[0]:
                    status, job = ray.get(ref), running.pop(ref)
                    self.tell(job, failure(status, job), jobs)
            for ref in running:
                ray.cancel(ref)
            if running:
                ray.wait(list(running), num_returns=len(running))  # each saves its step and ends


def run_command(command: list[str], output: str) -> int:
    """A task of Ray; if its process is killed the command saves and ends, and the next one goes on."""
    with Path(output).open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, preexec_fn=follow)
        try:
            while process.poll() is None:  # a wait would not notice that it is cancelled
                time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            process.send_signal(signal.SIGTERM)
        return process.wait()
