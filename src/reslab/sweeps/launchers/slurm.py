"""hydra/launcher=slurm: each job of a sweep is a job of SLURM, and resumes after it was preempted or out of time."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from reslab.configuration import PACKAGE
from reslab.errors import FULL_ERROR, Interrupted, RunError, UserError
from reslab.files import write_text
from reslab.interruption import signals
from reslab.machine import is_first_process
from reslab.options import NULL, POSITIVE, check_option, integer, require_package
from reslab.run import Run
from reslab.sweeps.composition import Job
from reslab.sweeps.launchers.commands import CommandJob, CommandLauncher
from reslab.sweeps.options import CONTINUES

log = logging.getLogger(__name__)
SQUEUE_SECONDS = 5  # between two requests to SLURM's controller, which serves all users
SLURM_ID = ".slurm_id"  # a file in the job's folder
OPTIONS = {  # of conf/hydra/launcher/slurm.yaml, without hydra.launcher.; null: submitit does not give it to sbatch
    "nodes": integer(1),
    "tasks_per_node": integer(1),
    "cpus_per_task": integer(1) | NULL,
    "gpus_per_node": integer(0) | NULL,
    "mem_gb": POSITIVE | NULL,
    "timeout_min": integer(1) | NULL,
    "slurm_signal_delay_s": integer(0),
    "slurm_array_parallelism": integer(1),
}
REQUESTS_TO_END = (signal.SIGTERM, signal.SIGUSR2)  # SIGTERM: preempted; SIGUSR2: the time limit is near


class SlurmLauncher(CommandLauncher):
    """A launcher that submits each job to SLURM through submitit, and waits until all have ended.

    A job that is preempted or out of time saves, is put back into the queue, and resumes.

    Args:
        max_requeues: how often a job that is out of time may be put back into the queue. After that it has failed.
        parameters: parameters of submitit's AutoExecutor; conf/hydra/launcher/slurm.yaml explains those that it sets.
    """

    def __init__(self, max_requeues: int, **parameters: Any) -> None:
        check_option("hydra.launcher.max_requeues", max_requeues, integer(0))
        for name, kind in OPTIONS.items():
            if name in parameters:
                check_option(f"hydra.launcher.{name}", parameters[name], kind)
        self.max_requeues, self.parameters = max_requeues, parameters

    def threads(self, processes: int = 1) -> int | None:
        """Return the processors of a task, which is one process; None if the cluster decides: cpus_per_task is null."""
        number: int | None = self.parameters["cpus_per_task"]
        return number

    def run_commands(self, jobs: list[CommandJob]) -> None:
        queued = ids_in_queue()
        ids = {job_id: job for job in jobs if (job_id := last_id(job)) in queued}
        if ids:
            log.info("Waiting for %d jobs that were submitted before: %s", len(ids), " ".join(ids))
        try:
            self.submit([job for job in jobs if job not in ids.values()], ids)
            self.wait_for(ids, jobs)
        except Interrupted:
            log.info("%d jobs stay in SLURM's queue: scancel %s cancels them", len(ids), " ".join(ids))
            raise
        if ids:
            subprocess.run(["scancel", *ids], check=False)  # it fails for a job that has ended by now

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Raise UserError for what SLURM would accept but could not run."""
        if shutil.which("sbatch") is None:
            raise UserError("hydra/launcher=slurm needs the command sbatch: start the sweep where jobs are submitted")
        self.executor()
        timeout_min, delay_s = self.parameters["timeout_min"], self.parameters["slurm_signal_delay_s"]
        if timeout_min is not None and 60 * timeout_min <= delay_s + 60:
            raise UserError(
                f"hydra.launcher.timeout_min={timeout_min} leaves a job no time: "
                f"it must save slurm_signal_delay_s={delay_s} seconds before the end, or up to 60 seconds earlier"
            )
        for job in jobs:
            for option, name in (("num_nodes", "nodes"), ("devices", "tasks_per_node")):
                devices, tasks = job.config.trainer[option], self.parameters[name]
                if isinstance(devices, int) and devices > 0 and devices != tasks:
                    needed = f"trainer.{option}={devices} needs hydra.launcher.{name}={devices}, not {tasks}"
                    raise UserError(f"{needed}: one task per device")

    def executor(self) -> Any:
        """Return submitit's executor. Raise UserError if submitit is missing or refuses a parameter."""
        require_package("submitit", "hydra/launcher=slurm", "slurm")
        import submitit

        executor = submitit.AutoExecutor(self.logs, cluster="slurm")
        try:
            executor.update_parameters(**self.parameters, stderr_to_stdout=True, slurm_setup=setup_commands())
        except NameError as error:  # of a parameter that +hydra.launcher. adds
            raise UserError(f"hydra.launcher: {str(error).splitlines()[0]}") from error
        return executor

    def submit(self, jobs: list[CommandJob], ids: dict[str, CommandJob]) -> None:
        """Submit jobs and add them to `ids`. Raise UserError for what submitit or sbatch refuses."""
        executor = self.executor()
        from submitit.core.utils import FailedJobError

        jobs = [job for job in jobs if self.is_prepared(job, jobs)]
        if not jobs:
            return
        tasks = [SlurmTask(job.restartable_command, job.folder, self.max_requeues) for job in jobs]
        with signals.deferred():  # the jobs that SLURM has must not be forgotten
            try:
                with executor.batch():
                    submitted = [executor.submit(task) for task in tasks]
            except FailedJobError as error:
                raise UserError(f"sbatch refused the jobs: {error}") from error
            for slurm_job, job in zip(submitted, jobs, strict=True):
                write_text(job.folder / SLURM_ID, slurm_job.job_id)
                ids[slurm_job.job_id] = job
            log.info("Submitted %d jobs: %s", len(jobs), " ".join(slurm_job.job_id for slurm_job in submitted))

    def wait_for(self, ids: dict[str, CommandJob], jobs: list[CommandJob]) -> None:
        """Remove each job that ends from `ids`, until none is left or a failure ends the sweep."""
        from submitit import SlurmJob

        while ids and not self.must_stop(jobs):
            time.sleep(SQUEUE_SECONDS)
            for job_id in ids.keys() - ids_in_queue():
                first_task: SlurmJob[None] = SlurmJob(self.logs, job_id)
                succeeded = first_task.paths.result_pickle.is_file() and first_task.exception() is None
                output = first_task.paths.stdout
                error = None
                if not succeeded:
                    error = refusal(output) or f"SLURM ended the job before it finished, see {output}"
                self.report_end(ids.pop(job_id), error, jobs)

    @property
    def logs(self) -> Path:
        """The folder of submitit's files; %j stands for the id of a job."""
        return Path(self.config.hydra.sweep.dir, ".submitit", "%j")


def refusal(output: Path) -> str | None:
    """Return the last error that a job has printed in one line; None if there is none."""
    try:
        lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), None)


def setup_commands() -> list[str]:
    """Return what a shell executes before each task, which imports this package and uses the processors of its job."""
    return [
        f"unset {FULL_ERROR}",  # the sweep sets it for itself
        f"export PYTHONPATH={shlex.quote(str(PACKAGE.parent))}:$PYTHONPATH",
        "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK",
    ]


def ids_in_queue() -> set[str]:
    """Return the ids of this user's jobs that wait or run. Wait while SLURM's controller does not answer."""
    squeue = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    while (answer := subprocess.run(squeue, stdout=subprocess.PIPE, encoding="utf-8", check=False)).returncode:
        time.sleep(SQUEUE_SECONDS)
    return set(answer.stdout.split())


def last_id(job: CommandJob) -> str:
    """Return the id that the job had when it was last submitted, or an empty string."""
    file = job.folder / SLURM_ID
    return file.read_text(encoding="utf-8") if file.is_file() else ""


class SlurmTask:
    """What submitit calls in each task of a job, at each start of the job.

    Args:
        command: the command to run. It resumes the run if it has begun.
        folder: the run's folder.
        max_requeues: how often the job may be put back into the queue.
    """

    def __init__(self, command: list[str], folder: Path, max_requeues: int) -> None:
        self.command, self.folder, self.max_requeues = command, folder, max_requeues

    def __call__(self) -> None:
        """Run the command. Raise RunError if it fails."""
        received: set[int] = set()
        process = subprocess.Popen(self.command)

        def pass_on(number: int, frame: FrameType | None) -> None:  # SLURM may signal only this process
            received.add(number)
            process.send_signal(number)

        for number in REQUESTS_TO_END:
            signal.signal(number, pass_on)
        status = process.wait()
        if received and status in [code for number in REQUESTS_TO_END for code in (128 + number, -number)]:
            self.await_end(received)
        if status:
            raise RunError(f"exit status {status}")

    def await_end(self, received: set[int]) -> None:
        """Wait until SLURM ends this process. SLURM requeues a preempted job itself."""
        while True:
            if signal.SIGUSR2 in received and is_first_process():
                received.clear()
                self.requeue()
            signal.pause()

    def requeue(self) -> None:
        """Put the job back into the queue. Raise RunError if it was put back too often."""
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) >= self.max_requeues:
            error = f"out of time after max_requeues={self.max_requeues} restarts; {CONTINUES}"
            Run(self.folder).fail(error)
            raise RunError(error)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
