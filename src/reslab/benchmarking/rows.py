"""The rows of a benchmark's result: one per case, with its measurements or its error, and how they are put in words."""

from collections.abc import Iterable
from itertools import combinations
from typing import Any

from reslab.benchmarking.cases import CASE_OPTIONS

# A row holds the options of a case, its status (finished, out of memory, refused or failed), and its measurements or
# its error. A case is refused if the user can fix the error.
Row = dict[str, Any]
PARTS = ("data", "forward", "backward", "optimizer")  # of a training step, in this order


def compare_devices(rows: list[Row]) -> list[Row]:
    """Return the ratio of images/s for every two finished cases that differ only in their device."""
    ratios = []
    for pair in combinations([row for row in rows if row["status"] == "finished"], 2):
        slower, faster = sorted(pair, key=lambda row: row["images_per_second"])
        common = {name: slower[name] for name in CASE_OPTIONS if name != "device"}
        if slower["accelerator"] != faster["accelerator"] and common.items() <= faster.items():
            ratio = faster["images_per_second"] / slower["images_per_second"]
            devices = {"faster": device_and_precision(faster), "slower": device_and_precision(slower)}
            ratios.append({**devices, "ratio": ratio, **common})
    return ratios


def device_and_precision(row: Row) -> str:
    return f"{row['accelerator']} ({row['run']['precision']})"


def options_that_differ(rows: list[Row]) -> list[str]:
    return [name for name in CASE_OPTIONS if len({row[name] for row in rows}) > 1]


def describe_case(row: Row, names: Iterable[str]) -> str:
    """Return the named options in words: `cpu, bf16-mixed, batch 64`.

    A finished row has what `auto` was resolved to, and whether steps were replayed as a graph.
    """
    words = {
        "device": row.get("accelerator", row.get("device")),
        "precision": row.get("run", row)["precision"],
        "memory_format": row["memory_format"],
        "compile": "compiled" if row["compile"] else "not compiled",
        "with_graph": "graph" if row.get("graph", row["with_graph"]) is True else "no graph",
        "batch_size": f"batch {row['batch_size']}",
    }
    return ", ".join(str(words[name]) for name in names)


def describe_result(row: Row) -> str:
    """Return the speed, or why there is none: `failed: its process ended with SIGABRT`."""
    if row["status"] == "finished":
        return f"{short_number(row['images_per_second'])} images/s"
    return ": ".join(row[name] for name in ("status", "error") if name in row)


def short_number(value: float) -> str:
    """Return three significant digits, or all digits before the decimal point if there are more."""
    return f"{value:.3g}" if value < 999 else f"{value:,.0f}"
