"""Files of weights with objects that run code when they are loaded, or that are not tensors and plain values."""

import pickle
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from bad_images import Trap


def zipped(path: Path, content: dict[str, Any], trap: Trap) -> None:
    torch.save({"trap": trap, **content}, path)


def before_1_6(path: Path, content: dict[str, Any], trap: Trap) -> None:
    torch.save({"trap": trap, **content}, path, _use_new_zipfile_serialization=False)


def pickled(path: Path, content: dict[str, Any], trap: Trap) -> None:
    path.write_bytes(pickle.dumps({"trap": trap, **content}, protocol=2))


def newest_pickle(path: Path, content: dict[str, Any], trap: Trap) -> None:
    path.write_bytes(pickle.dumps({"trap": trap, **content}, protocol=5))


def another_class(path: Path, content: dict[str, Any], trap: Trap) -> None:
    torch.save({"price": Decimal(1), **content}, path, _use_new_zipfile_serialization=False)


def torch_script(path: Path, content: dict[str, Any], trap: Trap) -> None:
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(path))


MALICIOUS: dict[str, Callable[[Path, dict[str, Any], Trap], None]] = {
    "torch.save": zipped,
    "torch.save before 1.6": before_1_6,
    "pickle": pickled,
    "pickle, newest protocol": newest_pickle,
    "another class": another_class,
    "TorchScript": torch_script,
}
