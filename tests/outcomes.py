"""All of a run that must not depend on interruptions, and how two runs differ in it."""

import csv
import json
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PARTS = ("state_dict", "last_weights", "optimizer_states", "lr_schedulers")
APART = (".result.ended", ".result.folder", ".result.git_commit")
Outcome = dict[str, Any]


def outcome_of(folder: Path, curves: bool = True) -> Outcome:
    """Return the weights, optimizer, averages, metrics by epoch, curves and result of a run, without times."""
    checkpoints = {
        name: torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best")
    }
    everything = {
        "rows": list(csv.DictReader((folder / "metrics.csv").open())),
        "result": json.loads((folder / "result.json").read_text()),
        "curves": curves_of(folder) if curves else {},
        **{name: {part: saved.get(part, {}) for part in PARTS} for name, saved in checkpoints.items()},
    }
    everything["result"].pop("requested", None)  # a run that was asked for more later differs in this alone
    return {name: value for name, value in flat(everything).items() if "second" not in name and name not in APART}


def read_events(folder: Path) -> Any:
    """Read all that TensorBoard would show of a run."""
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def curves_of(folder: Path) -> dict[str, list[list[float]]]:
    """Return the steps and values that TensorBoard shows."""
    events = read_events(folder)
    return {tag: [[point.step, point.value] for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def flat(node: Any, name: str = "") -> Outcome:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if items is None:
        return {name: node}
    return {key: value for part, item in items for key, value in flat(item, f"{name}.{part}").items()}


def differing(first: Outcome, second: Outcome) -> list[str]:
    """Return the names of what differs."""
    both = first.keys() & second.keys()
    return sorted(first.keys() ^ second.keys()) + [name for name in both if not is_same(first[name], second[name])]


def is_same(first: Any, second: Any) -> bool:
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second


def assert_same(first: Outcome, second: Outcome) -> None:
    assert differing(first, second) == []
