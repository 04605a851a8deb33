"""Every use of an API that its library does not declare public, with the reason, in one place.

tests/test_internals.py exercises each of them, so that an upgrade that breaks one is noticed. Libraries are imported
inside the functions: commands must not wait for torch before the configuration is known to be right.
"""

import socket
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig

if TYPE_CHECKING:
    import subprocess

    import optuna
    import torch
    from hydra.core.override_parser.types import Override
    from hydra.core.utils import JobReturn
    from torch.utils.data import DataLoader

JOIN_SECONDS = 0.02  # between two looks whether the processes of a run have met
FASTEST_GPU_HERTZ = 3e9  # no GPU has a faster clock; a slower one makes a pause longer


def hydra_argument_parser() -> ArgumentParser:
    """Return the parser of Hydra's own flags (`-m`, `--config-dir`, …).

    hydra._internal.utils.get_args_parser: Hydra offers no other way to know which of a command's arguments are flags,
    and what it would refuse.
    """
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def hydra_arguments() -> Namespace:
    """Return this process's command line as Hydra parses it."""
    arguments, _ = hydra_argument_parser().parse_known_args()
    return arguments


def asks_for_sweep(config_name: str, overrides: Sequence[str]) -> bool:
    """Return whether the composed configuration sets hydra.mode=MULTIRUN, as an experiment may do.

    GlobalHydra.hydra.get_mode is what hydra.main calls; the public `compose` always composes a single run.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    return bool(hydra.get_mode(config_name, list(overrides)) == RunMode.MULTIRUN)


def overrides_dirname(hydra: DictConfig, overrides: Iterable["Override"]) -> str:
    """Return what `${hydra.job.override_dirname}` is for a job with these overrides.

    hydra._internal.config_loader_impl.get_overrides_dirname: Hydra computes it within a composition only, and the jobs
    of a sweep share one.
    """
    from hydra._internal.config_loader_impl import get_overrides_dirname

    form = hydra.job.config.override_dirname
    task = [override for override in overrides if not override.is_hydra_override()]
    return get_overrides_dirname(task, list(form.exclude_keys), form.item_sep, form.kv_sep)


def run_hydra_job(config_name: str, task: Callable[[DictConfig], Any], overrides: Sequence[str]) -> None:
    """Compose a configuration and run a task on it in a folder of its own, as hydra.main does for a command.

    GlobalHydra.hydra is an object of hydra._internal, and its method `run` is what hydra.main calls: the public
    `compose` neither makes the folder nor writes the settings into it. Logging stays as the program has it.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    hydra.run(config_name, task, list(overrides), with_log_configuration=False)


@contextmanager
def store_on_loopback(check: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let the store through which the processes of this machine find one another listen on 127.0.0.1 only.

    Args:
        check: called by the process of rank 0 while it waits for the others. It raises an error if one has ended.

    torch.distributed.rendezvous._create_c10d_store: it makes a store that listens on all interfaces, so that another
    machine could join the run, and it waits half an hour for a process that has ended. Neither torch (2.15) nor
    Lightning has an option for that. If an upgrade breaks it, see where
    `init_process_group(init_method="env://")` makes its TCPStore.
    """
    from torch.distributed import TCPStore

    rendezvous: Any = import_module("torch.distributed.rendezvous")  # the package has a function of this name
    original = rendezvous._create_c10d_store

    def create(hostname: str, port: int, rank: int, world_size: int, timeout: Any, use_libuv: bool = True) -> Any:
        if hostname != "127.0.0.1":
            return original(hostname, port, rank, world_size, timeout, use_libuv)
        options = {"timeout": timeout, "use_libuv": use_libuv, "wait_for_workers": False}
        if rank != 0:
            store = TCPStore(hostname, port, world_size, False, **options)
            store.set(f"reslab/{rank}", "here")
            return store
        listening = socket.create_server((hostname, port)).detach()  # the store closes it
        store = TCPStore(hostname, port, world_size, True, master_listen_fd=listening, **options)
        while not all(store.check([f"reslab/{other}"]) for other in range(1, world_size)):
            check()
            time.sleep(JOIN_SECONDS)
        return store

    rendezvous._create_c10d_store = create
    try:
        yield
    finally:
        rendezvous._create_c10d_store = original


@contextmanager
def observed_processes(observe: "Callable[[Sequence[subprocess.Popen[bytes]]], None]") -> Iterator[None]:
    """Call a function with the processes that Lightning starts, instead of Lightning's own observer.

    lightning.pytorch.strategies.launchers.subprocess_script._launch_process_observer: it kills this process with
    SIGKILL within five seconds after another one has failed, before it can say why. If an upgrade breaks it, see what
    `_SubprocessScriptLauncher.launch` does with the processes that it has started.
    """
    module: Any = import_module("lightning.pytorch.strategies.launchers.subprocess_script")
    original, module._launch_process_observer = module._launch_process_observer, observe
    try:
        yield
    finally:
        module._launch_process_observer = original


def error_of_job(returned: "JobReturn") -> BaseException | None:
    """Return the error that has ended a job of Hydra; None if none has.

    hydra.core.utils.JobReturn._return_value: the public property writes a line to the terminal before it raises the
    error.
    """
    error = returned._return_value
    return error if isinstance(error, BaseException) else None


def continued_trial(study: "optuna.Study", trial: "optuna.trial.FrozenTrial") -> "optuna.Trial":
    """Return a running trial of a study, so that a process that did not ask for it can continue it.

    optuna.trial.FrozenTrial._trial_id, and the constructor of optuna.Trial, which Optuna alone is meant to call: a
    study hands out new trials and trials that wait, but none that is running.
    """
    import optuna

    return optuna.Trial(study, trial._trial_id)


def occupy_gpu(seconds: float) -> None:
    """Let the GPU compute nothing for at least this time, so that it falls behind what Python launches.

    torch.cuda._sleep, which torch (2.15) uses in its own tests: a kernel that counts cycles of the GPU's clock.
    """
    import torch

    torch.cuda._sleep(int(seconds * FASTEST_GPU_HERTZ))


def shut_down_workers(loader: "DataLoader[Any]") -> None:
    """End the worker processes of a DataLoader with `persistent_workers=True`; another iteration starts new ones.

    torch.utils.data.DataLoader._iterator and _MultiProcessingDataLoaderIter._shutdown_workers: the loader keeps its
    workers until it is collected. An iteration that is not at its end, such as the one that Lightning leaves after the
    last batch, delays that, and the garbage collector then waits five seconds for each worker. A worker that hangs ends
    by SIGKILL, because this process would wait for it at its end. If an upgrade breaks it, see where
    `DataLoader.__iter__` keeps the iterator and what the iterator's `__del__` calls.
    """
    assert loader.persistent_workers or not loader.num_workers  # a DataLoader does not know its other workers
    if loader.num_workers and loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        for worker in loader._iterator._workers:  # type: ignore[attr-defined]
            worker.kill()
    loader._iterator = None


def has_workers(loader: "DataLoader[Any]") -> bool:
    """Return whether the worker processes of a DataLoader with `persistent_workers=True` have been started.

    torch.utils.data.DataLoader._iterator: the loader makes it, and they start, at the first iteration.
    """
    return loader._iterator is not None


def has_hooks(modules: "Iterable[torch.nn.Module]") -> bool:
    """Return whether one of the modules has a hook: a CUDA graph replays what hooks compute, not their Python.

    torch.nn.Module._forward_hooks and the like: torch (2.15) offers no other way to know.
    """
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for module in modules for name in names)


def end_failed_capture(
    stream: "torch.cuda.Stream", generator: "torch.Generator", state: "torch.Generator", pool: Any
) -> None:
    """Let CUDA's stream, generator and memory be used normally again after the capture of a CUDA graph has failed.

    torch._C._cuda_endAllocateToPool: `CUDAGraph.capture_end` (torch 2.15) raises before it would call that itself, and
    before it would end the capture of the generator, which gets a state that knows of no capture. In torch 2.11,
    `torch.cuda.graph` also leaves its own stream as the current one.

    Args:
        stream: the current stream before the capture.
        generator: the default generator of the GPU.
        state: what its `clone_state` had returned before the capture.
        pool: the memory of the graph.
    """
    import torch

    torch.cuda.set_stream(stream)
    generator.graphsafe_set_state(state)
    with suppress(RuntimeError):  # the capture may have failed before it took memory
        torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), pool)
