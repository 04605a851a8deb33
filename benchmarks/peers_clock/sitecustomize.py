"""What peers.py adds to every program that it measures. Python imports this module at its start if its folder is in
PYTHONPATH.

PEERS_CLOCK: a file. The time (`time.monotonic`) at the end of every optimizer step is appended to it, one per line.
PEERS_CIFAR: a folder. torchvision takes the files in it as CIFAR-10, because their own checksums replace those of the
published files.

The modules that are changed are those of PyTorch and torchvision, after their import. No program is changed.
"""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


def record_steps(optimizers: Any) -> None:
    file = Path(os.environ["PEERS_CLOCK"]).open("a", buffering=1)  # noqa: SIM115 (it is open until the process ends)

    def write_time(optimizer: Any, *_: Any) -> None:
        parameters = sum(len(group["params"]) for group in optimizer.param_groups)
        if parameters > 1:  # ResLab tries the options of its optimizer on one number
            file.write(f"{time.monotonic()}\n")

    optimizers.register_optimizer_step_post_hook(write_time)


def accept_images(cifar: Any) -> None:
    dataset = cifar.CIFAR10
    folder = Path(os.environ["PEERS_CIFAR"]) / dataset.base_folder

    def checksum(name: str) -> str:
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    dataset.train_list = [[name, checksum(name)] for name, _ in dataset.train_list]
    dataset.test_list = [[name, checksum(name)] for name, _ in dataset.test_list]
    dataset.meta = dataset.meta | {"md5": checksum(dataset.meta["filename"])}


class AfterImport(MetaPathFinder):
    """Call a function with a module when that has been imported."""

    def __init__(self, actions: dict[str, Callable[[Any], None]]) -> None:
        self.actions = actions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        action = self.actions.get(fullname)
        spec = PathFinder.find_spec(fullname, path) if action else None
        if action is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_act(module: ModuleType) -> None:
            execute(module)
            action(module)

        spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec


ACTIONS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "PEERS_CLOCK": ("torch.optim.optimizer", record_steps),
    "PEERS_CIFAR": ("torchvision.datasets.cifar", accept_images),
}
sys.meta_path.insert(0, AfterImport(dict(ACTIONS[name] for name in ACTIONS if name in os.environ)))
