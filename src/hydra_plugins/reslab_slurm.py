"""hydra/launcher=slurm: each job of a sweep is one of SLURM's, and goes on after it was preempted or out of time."""

import logging
import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import FrameType
from typing import Any

from hydra_plugins.reslab_launcher import CommandJob, CommandLauncher
from reslab.errors import RunError, UserError
from reslab.files import write_text
from reslab.interruption import Interrupted
from reslab.resuming import is_first_process, write_failure

log = logging.getLogger(__name__)

SQUEUE_SECONDS = 5  # between two questions to SLURM's controller, which has others to serve
SLURM_ID = ".slurm_id"  # in a job's folder
ASK_TO_END = (signal.SIGTERM, signal.SIGUSR2)  # a job that is preempted; one that is soon out of time


class SlurmLauncher(CommandLauncher):
    """Through submitit, whose parameters it takes. A job that is preempted or out of time is requeued and goes on."""

    def __init__(self, max_requeues: int, **parameters: Any) -> None:
        self.max_requeues, self.parameters = max_requeues, parameters

    def run(self, jobs: list[CommandJob]) -> None:
        self.check(jobs)
        waiting = in_queue()
        ids = {job_id: job for job in jobs if (job_id := slurm_id(job)) in waiting}
        if ids:
            log.info("Waiting for %d jobs that SLURM has already: %s", len(ids), " ".join(ids))
        ids |= self.submit([job for job in jobs if job not in ids.values()])
        try:
            self.wait_for(ids, jobs)
        except Interrupted:
            log.info("%d jobs are left to SLURM: scancel %s ends them", len(ids), " ".join(ids))
            raise
        if ids:
            subprocess.run(["scancel", *ids], check=False)  # one may have ended by now

    def check(self, jobs: list[CommandJob]) -> None:
        if shutil.which("sbatch") is None:
            raise UserError("hydra/launcher=slurm: there is no sbatch here; start it where jobs are submitted")
        timeout_min, delay_s = self.parameters["timeout_min"], self.parameters["slurm_signal_delay_s"]
        if 60 * timeout_min <= delay_s + 60:
            raise UserError(
                f"hydra.launcher.timeout_min={timeout_min} leaves a job no time: "
                f"it is asked to save slurm_signal_delay_s={delay_s}, or up to 60 more, before that"
            )
        for job in jobs:
            for option, name in (("num_nodes", "nodes"), ("devices", "tasks_per_node")):
                asked, tasks = job.config.trainer[option], self.parameters[name]
                if isinstance(asked, int) and asked > 0 and asked != tasks:
                    raise UserError(
                        f"trainer.{option}={asked} needs hydra.launcher.{name}={asked}, not {tasks}: one task a device"
                    )

    def submit(self, jobs: list[CommandJob]) -> dict[str, CommandJob]:
        """By the ids that SLURM gives them."""
        try:
            import submitit  # an extra
        except ImportError as error:
            raise UserError("hydra/launcher=slurm needs submitit: pip install -e '.[slurm]'") from error
        if not jobs:
            return {}
        for job in jobs:
            job.reopen()
        executor = submitit.AutoExecutor(self.logs, cluster="slurm")
        source = f"export PYTHONPATH={shlex.quote(str(Path(__file__).parents[1]))}:$PYTHONPATH"
        threads = "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK"
        executor.update_parameters(**self.parameters, stderr_to_stdout=True, slurm_setup=[source, threads])
        with executor.batch():
            submitted = [executor.submit(SlurmJob(job.command, job.folder, self.max_requeues)) for job in jobs]
        ids = {slurm_job.job_id: job for slurm_job, job in zip(submitted, jobs, strict=True)}
        for job_id, job in ids.items():
            write_text(job.folder / SLURM_ID, job_id)
        log.info("Submitted %d jobs: %s", len(jobs), " ".join(ids))
        return ids

    def wait_for(self, ids: dict[str, CommandJob], jobs: list[CommandJob]) -> None:
        """Until none is left, or one has failed and ends the sweep."""
        from submitit import SlurmJob as SubmittedJob

        while ids and not self.stopped(jobs):
            time.sleep(SQUEUE_SECONDS)
            for job_id in ids.keys() - in_queue():
                first_task: SubmittedJob[None] = SubmittedJob(self.logs, job_id)
                succeeded = first_task.paths.result_pickle.is_file() and first_task.exception() is None
                failure = None if succeeded else f"ended before it had finished, see {first_task.paths.stdout}"
                self.tell(ids.pop(job_id), failure, jobs)

    @property
    def logs(self) -> Path:
        return Path(self.config.hydra.sweep.dir, ".submitit", "%j")


def in_queue() -> set[str]:
    """The ids of this user's jobs that SLURM has not ended."""
    squeue = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
    while (answer := subprocess.run(squeue, stdout=subprocess.PIPE, text=True, check=False)).returncode:
        time.sleep(SQUEUE_SECONDS)  # its controller is started again, say
    return set(answer.stdout.split())


def slurm_id(job: CommandJob) -> str:
    """What SLURM knew it by when it was submitted the last time."""
    file = job.folder / SLURM_ID
    return file.read_text() if file.is_file() else ""


class SlurmJob:
    """What submitit runs in each task of a job, and again each time that SLURM has put the job back into the queue."""

    def __init__(self, command: list[str], folder: Path, max_requeues: int) -> None:
        self.command, self.folder, self.max_requeues = [*command, "resume=auto"], folder, max_requeues

    def __call__(self) -> None:
        asked: set[int] = set()
        process = subprocess.Popen(self.command)

        def pass_on(number: int, frame: FrameType | None) -> None:  # SLURM may signal this process alone
            asked.add(number)
            process.send_signal(number)

        for number in ASK_TO_END:
            signal.signal(number, pass_on)
        status = process.wait()
        if asked and status in [code for number in ASK_TO_END for code in (128 + number, -number)]:
            while True:  # saved; SLURM, which asked, ends the job and requeues it if it was preempted
                if signal.SIGUSR2 in asked and is_first_process():
                    asked.clear()
                    self.requeue()
                signal.pause()
        if status:
            raise RunError(f"exit status {status}")

    def requeue(self) -> None:
        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) >= self.max_requeues:
            line = f"out of time, after max_requeues={self.max_requeues} new starts: resume=<the sweep> goes on with it"
            write_failure(self.folder, line)
            raise RunError(line)
        subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
