"""The cases of a benchmark: every combination of devices, precisions, formats, compilation, graphs and batch sizes."""

import logging
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from omegaconf import DictConfig

from reslab.configuration import as_list, to_dict
from reslab.machine import gpus
from reslab.training.options import first_device

log = logging.getLogger(__name__)

LAUNCHED_STEPS = 10  # for the medians of a step's time on the host and on the GPU


@dataclass(frozen=True)
class Case:
    """One combination that is measured."""

    device: str
    precision: str
    memory_format: str
    compile: bool
    with_graph: bool | str  # as the option `graph`; whether steps were replayed is "graph" in the row of a case
    batch_size: int


CASE_OPTIONS = tuple(field.name for field in fields(Case))


def read_cases(config: DictConfig) -> list[Case]:
    """Return every combination of the options once.

    Without an NVIDIA GPU, a case with a graph would only repeat the one without, and is left out.
    """
    # in the order of Case's fields
    names = ("devices", "precisions", "memory_formats", "compile", "graph", "batch_sizes")
    lists = (as_list(config.benchmark[name]) for name in names)
    cases = list(dict.fromkeys(Case(*values) for values in product(*lists)))
    kept = [case for case in cases if not (replace(case, with_graph=False) in cases and cannot_record(case))]
    if len(kept) < len(cases):
        left_out = len(cases) - len(kept)
        log.info("benchmark.graph=true needs an NVIDIA GPU: %d of %d cases are left out", left_out, len(cases))
    return kept


def cannot_record(case: Case) -> bool:
    """Return whether a case asks for a graph where there can be none."""
    return case.with_graph is True and (case.device == "cpu" or not gpus())


def training_settings(
    config: DictConfig, case: Case, warmup_steps: int, steps: int, launched_steps: int = LAUNCHED_STEPS
) -> dict[str, Any]:
    """Return the settings of train.py for a case: that many steps on one device, without validation and output.

    Args:
        config: the composed configuration.
        case: the case.
        warmup_steps: steps before the measured ones.
        steps: measured steps.
        launched_steps: further steps on a GPU for each of the times of `reslab.benchmarking.launching`.
    """
    settings = to_dict(config, resolve=True)
    settings["case"] = {
        "memory_format": case.memory_format, "warmup_steps": warmup_steps, "steps": steps,
        "launched_steps": launched_steps,
    }  # fmt: skip
    settings["compile"], settings["graph"] = case.compile, case.with_graph
    settings["data"] |= {"batch_size": case.batch_size, "val_fraction": 0, "validate_on_test": False}
    if "num_images" in settings["data"]:  # synthetic images: there are always enough for one batch
        settings["data"]["num_images"] = max(settings["data"]["num_images"], case.batch_size)
    settings["trainer"] |= {"accelerator": case.device, "precision": case.precision}
    settings["trainer"] |= {"devices": first_device(settings["trainer"]["devices"]), "num_nodes": 1, "strategy": "auto"}
    settings["trainer"] |= {"overfit_batches": 0.0, "profiler": None}
    settings["trainer"] |= {"limit_train_batches": None, "limit_val_batches": 0, "enable_progress_bar": False}
    settings["trainer"] |= {"max_steps": warmup_steps + steps, "max_epochs": -1}
    return settings
