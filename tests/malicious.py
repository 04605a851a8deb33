"""Files of weights that run code when they are loaded, and values that Hydra or OmegaConf would call or compute."""

import pickle
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch
from bad_images import Trap
from omegaconf import OmegaConf


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


called: list[object] = []  # what `recorder` was called with


def recorder(*arguments: object, **options: object) -> str:
    called.append((arguments, options))
    return "called"


OmegaConf.register_new_resolver("recorder", recorder, replace=True)
CALL = {"_target_": "malicious.recorder"}
# Values that Hydra would call or OmegaConf would compute, by their form.
CALLS: dict[str, Any] = {
    "dict": CALL,
    "list": [CALL],
    "tuple": (CALL,),
    "nested": {"a": {"b": [[CALL]]}},
    "arguments": {**CALL, "_args_": ["x"], "_partial_": False, "_recursive_": True, "_convert_": "all"},
    "resolver": "${recorder:x}",
    "environment": "${oc.env:HOME}",
    "within a text": "a-${recorder:${oc.env:HOME}}",
    "an interpolated target": {"_target_": "${recorder:x}"},
}


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield every leaf of dictionaries and lists as (its dotted name, its container, its key)."""
    for key, part in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(part, dict | list) and part:
            yield from leaves(part, f"{name}{key}.")
        else:
            yield f"{name}{key}", value, key
