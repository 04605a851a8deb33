"""Facts about this process: what has started it, its rank in a distributed run, its processors and GPUs."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from reslab.errors import UserError
from reslab.text import for_shell

GPUS = {"gpu": "GPU", "cuda": "CUDA GPU", "mps": "Apple GPU (MPS)"}  # by the values of the options that ask for them
# The files of the drivers of NVIDIA, of WSL, of NVIDIA's embedded boards and of AMD, one of which a GPU on Linux needs.
GPU_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap", "/dev/kfd")
INTERACTIVE_STEP = "4294967290"  # the step of SLURM in which salloc runs a shell: SLURM_INTERACTIVE_STEP in slurm.h
LIGHTNING_PROCESS = "hydra.job.name=train_ddp_process_"  # Lightning adds it to the command of the processes it starts
OMP_NUM_THREADS = "OMP_NUM_THREADS"  # the variable of OpenMP, which torch, MKL and oneDNN obey
SPIN_COUNT, MOST_SPINS = "GOMP_SPINCOUNT", "10000"  # of GNU's OpenMP, which torch uses on Linux
RANK_VARIABLES = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


def launched_by_slurm() -> bool:
    """Return whether srun has started this process as one of several tasks.

    A shell or a notebook within an allocation has most variables of SLURM too, but it is not one of several.
    """
    step, name = os.environ.get("SLURM_STEP_ID", INTERACTIVE_STEP), os.environ.get("SLURM_JOB_NAME")
    return step != INTERACTIVE_STEP and name != "bash" and "SLURM_PROCID" in os.environ and slurm_tasks() > 1


def slurm_tasks() -> int:
    return int(os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SLURM_NTASKS") or 1)


def launched_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def foreign_variables(arguments: Sequence[str]) -> dict[str, str | None]:
    """Return None for each variable of a launcher that has not started this process, because Lightning would obey it.

    Args:
        arguments: the command line. Where it asks for several nodes, their ranks may have been set by hand.
    """
    if launched_by_slurm():
        return {"SLURM_JOB_NAME": None}  # Lightning takes `interactive`, salloc's name, for a shell
    foreign = ["SLURM_NTASKS", "SLURM_PROCID"]
    by_hand = any(each.startswith("trainer.num_nodes=") and each != "trainer.num_nodes=1" for each in arguments)
    by_lightning = any(each.startswith(LIGHTNING_PROCESS) for each in arguments)
    if not (launched_by_torchrun() or by_lightning or by_hand):
        foreign += RANK_VARIABLES
    return dict.fromkeys(name for name in foreign if name in os.environ)


def check_processes(devices: object, num_nodes: object) -> None:
    """Raise UserError if a launcher has started another number of processes than the options ask for."""
    if not isinstance(devices, int) or not isinstance(num_nodes, int):
        return
    launcher = "srun" if launched_by_slurm() else "torchrun" if launched_by_torchrun() else None
    started = slurm_tasks() if launcher == "srun" else int(os.environ.get("WORLD_SIZE", 1))
    if launcher and started != devices * num_nodes:
        asked = f"trainer.devices={devices} trainer.num_nodes={num_nodes}"
        raise UserError(f"{launcher} has started {started} processes, but {asked} needs {devices * num_nodes}")


def is_first_process() -> bool:
    """Return whether this process has rank 0, whether Lightning, torchrun or SLURM started it, or a user by hand."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


def refuse_absent_gpu(accelerator: str, option: str) -> None:
    """Raise UserError for a GPU that this machine certainly lacks. Commands ask before torch is imported.

    Args:
        accelerator: the value of the option `trainer.accelerator` or `device`.
        option: the name of that option.
    """
    if accelerator in GPUS and sys.platform == "linux" and not any(map(os.path.exists, GPU_FILES)):
        raise UserError(no_gpu_line(accelerator, option))


def no_gpu_line(accelerator: str, option: str, advice: str = "") -> str:
    """Say that there is no GPU of a kind; the advice comes before that to take the CPU."""
    return (
        f"{option}={accelerator}, but torch {version('torch')} finds no {GPUS[accelerator]} here: {advice}{option}=cpu "
        "runs the same on the CPU"
    )


def processors() -> int:
    """Return how many processors this process may use; SLURM and taskset may reserve the others."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def command(name: str, *arguments: str) -> str:
    """Return a command line to paste that calls one of the commands as this process was called.

    That is `python src/<name>.py …` or `reslab <name> …`, with the Python that runs now.

    Args:
        name: the command, e.g. "evaluate".
        arguments: its arguments, not quoted yet.
    """
    script = Path(sys.argv[0]).with_name(f"{name}.py")
    installed = None if is_checkout_script(script) else program("reslab")
    words = [installed, name] if installed else [program(Path(sys.executable).name) or sys.executable, str(script)]
    return " ".join(map(for_shell, [*words, *arguments]))


def is_checkout_script(script: Path) -> bool:
    """Return whether a file is one of src/*.py. `reslab train` names the file of the command in the package instead."""
    return script.exists() and (script.parent / "reslab").is_dir()


def program(name: str) -> str | None:
    """Return how a shell here finds a program that is installed beside this Python; None if there is none."""
    beside = Path(sys.executable).parent / name
    if shutil.which(name) == str(beside):
        return name
    if not beside.exists():
        return shutil.which(name) and name
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables until the end of the block. Processes that start in it inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def asked_threads() -> int | None:
    """Return the number of threads that the environment asks for; None where it asks for none."""
    asked = os.environ.get(OMP_NUM_THREADS, "").partition(",")[0]  # OpenMP takes one number for each level of nesting
    return int(asked) if asked.isdecimal() and int(asked) > 0 else None


def spin_variables() -> dict[str, str]:
    """Return the variables with which threads of torch that wait for each other soon sleep.

    By default they spin for milliseconds. Where other programs run, that takes the processor from the very thread that
    they wait for, and a step can become dozens of times slower (benchmarks/README.md). OpenMP reads the variables when
    torch is imported. What the user has set stays.
    """
    asked = {"OMP_WAIT_POLICY", SPIN_COUNT} & os.environ.keys()
    return {} if asked else {SPIN_COUNT: MOST_SPINS}


def share_of_processors(shares: int) -> int:
    """Return the threads of one of several processes that run at the same time: those asked for, or an equal part."""
    return asked_threads() or max(1, processors() // shares)


def gpus() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
