"""Jobs of a sweep that run as commands, each in a process of its own. The launchers differ in where these run."""

import ctypes
import logging
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from omegaconf import OmegaConf

from reslab.configuration import as_list, quoted
from reslab.errors import FULL_ERROR, RunError
from reslab.internals import hydra_arguments
from reslab.machine import gpus, processors
from reslab.sweeps.composition import Job
from reslab.sweeps.jobs import JobLauncher
from reslab.sweeps.summary import SweepFailed

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1  # between two checks whether a job has ended
PR_SET_PDEATHSIG = 1  # from Linux's sys/prctl.h


@dataclass
class CommandJob(Job):
    """A job that runs the sweep's own command with the overrides of the job.

    Args:
        returned: what the launcher returns to Hydra. Its status is UNKNOWN until the job has ended.
    """

    returned: JobReturn = field(default_factory=JobReturn)

    @property
    def command(self) -> list[str]:
        task = [override for override in filter_overrides(self.overrides) if not override.startswith("hydra/")]
        return [sys.executable, sys.argv[0], *config_flags(), *task, f"hydra.run.dir={quoted(self.folder)}"]

    @property
    def restartable_command(self) -> list[str]:
        """The command for a scheduler that may start it more than once: each later start resumes the run."""
        resumes = any(override.startswith("resume=") for override in self.overrides)
        return self.command if resumes else [*self.command, "resume=auto"]

    @property
    def output(self) -> Path:
        """The file that receives what the command prints."""
        return self.folder / "output.txt"

    def prepare_folder(self) -> None:
        """Make the folder, and remove the failure of an earlier start, so that it is not reported again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.run.has_failed:
            self.run.reopen()

    def start(self, slot: int, slots: int) -> "subprocess.Popen[bytes]":
        """Start the command on this machine, with its part of the processors and the GPUs.

        It gets a session of its own, so that Ctrl-C reaches only the sweep. The sweep then sends SIGTERM to its jobs.

        Args:
            slot: the number of this job among those that run at the same time, from 0.
            slots: how many jobs may run at the same time.
        """
        self.prepare_folder()
        environment = {"OMP_NUM_THREADS": str(max(1, processors() // slots)), **os.environ}
        environment.pop(FULL_ERROR, None)  # the sweep sets it for itself; the job's log has the traceback
        if devices := gpus():
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own_share(devices, slot, slots))
        with self.output.open("ab") as output:
            return subprocess.Popen(
                self.command, env=environment, stdout=output, stderr=output, start_new_session=True,
                preexec_fn=end_with_parent,
            )  # fmt: skip

    def error_of(self, exit_status: int) -> str | None:
        """Describe the exit status of the command; None for success. A command that was refused has printed why."""
        if exit_status == 0:
            return None
        lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        refused = exit_status == 2 and lines
        return lines[-1].removeprefix("error: ") if refused else f"exit status {exit_status}, see {self.output}"

    def end(self, error: str | None) -> str:
        """Set what the job returns.

        Args:
            error: how the command failed, for a job that has not written why; None for success. It does not count if
                the command failed after the job had written its result.

        Returns:
            One line for the log.
        """
        result = self.run.result
        if error is None or self.run.has_ended:
            values = {name: result.get(name, math.nan) for name in as_list(self.config.objective)}
            self.returned.status, self.returned.return_value = JobStatus.COMPLETED, list(values.values())
            shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            return f"#{self.number} {result['status']}: {shown}"
        if self.run.has_failed:
            error = str(result["error"])
        else:
            self.write_failure(error)
        self.returned.status, self.returned.return_value = JobStatus.FAILED, RunError(error)
        return f"#{self.number} failed: {error}"

    def write_failure(self, error: str) -> None:
        """Write the error into the job's folder, with settings if it has none: reports and `resume=` need them."""
        if not self.run.has_settings:
            task = [override for override in filter_overrides(self.overrides) if not override.startswith("resume=")]
            self.run.write_settings(OmegaConf.to_yaml(self.config), task)
        self.run.fail(error)


def end_with_parent() -> None:
    """Send SIGTERM to this process when its parent ends, so that a job saves and ends. Only Linux can do so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def own_share(devices: list[str], slot: int, slots: int) -> list[str]:
    """Return the GPUs of a job. If more jobs run at the same time than there are GPUs, jobs share them."""
    return devices[slot::slots] or [devices[slot % len(devices)]]


def config_flags() -> list[str]:
    """Return the flags of the sweep's command that say where a user's own configuration is."""
    given = vars(hydra_arguments())
    names = ("config_path", "config_name", "config_dir")
    return [f"--{name.replace('_', '-')}={given[name]}" for name in names if given[name]]


class CommandLauncher(JobLauncher):
    """A launcher whose jobs are commands, each in the folder that Hydra gives it."""

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        """Run the jobs. Raise SweepFailed after the first failure if sweep.stop_on_failure=true."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        command_jobs = [CommandJob(**vars(job)) for job in jobs]
        self.run_commands(command_jobs)
        if self.must_stop(command_jobs):
            raise SweepFailed("sweep.stop_on_failure=true")
        return [job.returned for job in command_jobs]

    def run_commands(self, jobs: list[CommandJob]) -> None:
        """Run the jobs until all have ended or `must_stop` is true, and report the end of each."""
        raise NotImplementedError

    def report_end(self, job: CommandJob, error: str | None, jobs: list[CommandJob]) -> None:
        """Log how a job has ended, and how many have."""
        line = job.end(error)
        ended = sum(each.returned.status != JobStatus.UNKNOWN for each in jobs)
        log.info("%s (%d of %d)", line, ended, len(jobs))

    def must_stop(self, jobs: list[CommandJob]) -> bool:
        return bool(self.config.sweep.stop_on_failure) and any(job.returned.status == JobStatus.FAILED for job in jobs)
