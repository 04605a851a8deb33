"""Jobs of a sweep that run as commands, each in a process of its own. The launchers differ in where these run."""

import logging
import math
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals

from reslab.configuration import A_RUN, as_list, own_flags, quoted
from reslab.errors import FULL_ERROR, RunError
from reslab.files import IN_USE, FolderInUseError
from reslab.machine import OMP_NUM_THREADS, gpus, share_of_processors
from reslab.processes import Guard
from reslab.run import BENCHMARK_FILE
from reslab.sweeps.benchmarks import benchmark_error
from reslab.sweeps.composition import Job
from reslab.sweeps.jobs import JobLauncher
from reslab.sweeps.summary import SweepFailed

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1  # between two checks whether a job has ended
SAVING_SECONDS = 60  # that a job has to save and end, once it was asked to


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
        place = f"hydra.run.dir={quoted(self.folder)}"
        return [sys.executable, sys.argv[0], *own_flags(same_command=True), *task, A_RUN, place]

    @property
    def restartable_command(self) -> list[str]:
        """The command for a scheduler that may start it more than once: each later start resumes the run.

        A benchmark cannot be resumed, and begins anew.
        """
        resumes = any(override.startswith("resume=") for override in self.overrides)
        return self.command if resumes or "resume" not in self.options else [*self.command, "resume=auto"]

    @property
    def output(self) -> Path:
        """The file that receives what the command prints."""
        return self.folder / "output.txt"

    def prepare_folder(self) -> None:
        """Make the folder, and remove the failure of an earlier start, so that it is not reported again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.run.has_failed:
            self.run.reopen()

    def start(self, guard: Guard, slot: int, slots: int) -> "subprocess.Popen[bytes]":
        """Start the command on this machine, with its part of the processors and the GPUs.

        Args:
            guard: ends the command if the sweep ends first.
            slot: the number of this job among those that run at the same time, from 0.
            slots: how many jobs may run at the same time.
        """
        self.prepare_folder()
        environment = os.environ | {OMP_NUM_THREADS: str(share_of_processors(slots * self.processes))}
        environment.pop(FULL_ERROR, None)  # the sweep sets it for itself; the job's log has the traceback
        if devices := gpus():
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(own_share(devices, slot, slots))
        with self.output.open("ab") as output:
            return guard.start(self.command, env=environment, stdout=output, stderr=output)

    @property
    def has_ended(self) -> bool:
        """Whether the folder holds the result of a run, or of a benchmark."""
        return self.run.has_ended or (self.folder / BENCHMARK_FILE).exists()

    def error_of(self, exit_status: int) -> str | None:
        """Describe the exit status of the command; None for success. A command that was refused has printed why."""
        if exit_status == 0:
            return None
        refused = exit_status == 2 and self.last_line()
        return refused.removeprefix("error: ") if refused else f"exit status {exit_status}, see {self.output}"

    def last_line(self) -> str:
        """Return the last line that the command has printed; nothing if its folder has disappeared."""
        try:
            lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    def record_interruption(self) -> None:
        """Write that the sweep has ended the job, if it had begun but has left nothing, as before its first step."""
        if not self.run.hydra_folder.is_dir() and not self.has_ended:
            self.write_failure("it was ended with the sweep before it had saved anything", interrupted=True)

    def end(self, error: str | None) -> str:
        """Set what the job returns.

        Args:
            error: how the command failed, for a job that has not written why. It does not count if the command failed
                after the job had written its result. None: the command succeeded; without a result, the job did not.

        Returns:
            One line for the log.
        """
        result = self.run.result
        if self.has_ended:
            if not self.run.has_ended and (failure := benchmark_error(self.run)) is not None:
                self.returned.status, self.returned.return_value = JobStatus.FAILED, RunError(failure)
                return f"#{self.number} failed: {failure}"
            if not self.run.has_ended:
                self.returned.status, self.returned.return_value = JobStatus.COMPLETED, None
                return f"#{self.number} finished: {self.folder / BENCHMARK_FILE}"
            values = {name: result.get(name, math.nan) for name in as_list(self.config.objective)}
            self.returned.status, self.returned.return_value = JobStatus.COMPLETED, list(values.values())
            shown = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
            return f"#{self.number} {result['status']}: {shown}"
        if self.run.has_failed:
            error = str(result["error"])
        elif error is not None and error.endswith(IN_USE):  # the folder is that of another process
            self.returned.status, self.returned.return_value = JobStatus.FAILED, FolderInUseError(error)
            return f"#{self.number} failed: {error}"
        else:
            error = error or f"it ended without a result, see {self.output}"
            self.write_failure(error)
        self.returned.status, self.returned.return_value = JobStatus.FAILED, RunError(error)
        return f"#{self.number} failed: {error}"


def own_share(devices: list[str], slot: int, slots: int) -> list[str]:
    """Return the GPUs of a job: as many for each. If more jobs run than there are GPUs, jobs share them."""
    return devices[slot::slots][: len(devices) // slots] or [devices[slot % len(devices)]]


class CommandLauncher(JobLauncher):
    """A launcher whose jobs are commands, each in the folder that Hydra gives it."""

    def launch_jobs(self, jobs: list[Job]) -> list[JobReturn]:
        """Run the jobs. Raise SweepFailed after the first failure if sweep.stop_on_failure=true."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        command_jobs = [CommandJob(job.number, job.overrides, job.compose, job.saved) for job in jobs]
        self.run_commands(command_jobs)
        if self.must_stop(command_jobs):
            raise SweepFailed("sweep.stop_on_failure=true")
        return [job.returned for job in command_jobs]

    def run_commands(self, jobs: list[CommandJob]) -> None:
        """Run the jobs until all have ended or `must_stop` is true, and report the end of each."""
        raise NotImplementedError

    def is_prepared(self, job: CommandJob, jobs: list[CommandJob]) -> bool:
        """Make the folder of a job that another program is to start. Report the job as failed if that is impossible."""
        try:
            job.prepare_folder()
        except OSError as error:
            self.report_end(job, f"its folder cannot be made: {error}", jobs)
            return False
        return True

    def report_end(self, job: CommandJob, error: str | None, jobs: list[CommandJob]) -> None:
        """Log how a job has ended, and how many have."""
        line = job.end(error)
        ended = sum(each.returned.status != JobStatus.UNKNOWN for each in jobs)
        log.info("%s (%d of %d)", line, ended, len(jobs))

    def must_stop(self, jobs: list[CommandJob]) -> bool:
        return bool(self.config.sweep.stop_on_failure) and any(job.returned.status == JobStatus.FAILED for job in jobs)
