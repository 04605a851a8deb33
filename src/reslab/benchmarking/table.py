"""A benchmark's result on the terminal."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reslab.benchmarking.cases import CASE_OPTIONS
from reslab.benchmarking.rows import (
    PARTS,
    Row,
    describe_case,
    describe_result,
    options_that_differ,
    short_number,
)
from reslab.files import relative
from reslab.run import BENCHMARK_FILE

LAUNCHES = {"host_ms": "host ms", "gpu_ms": "GPU ms"}  # a step of Python alone, and of the GPU alone
MIN_WIDTH = 100  # A narrower terminal would cut numbers off.


def print_benchmark(result: dict[str, Any]) -> None:
    """Print the table of all cases, their errors, the comparison of devices, the largest batches and the folder."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, MIN_WIDTH)
    names = options_that_differ(result["cases"])
    console.print(speed_table(result, names), soft_wrap=False)
    for line in lines_below(result, names):
        console.print(line)


def speed_table(result: dict[str, Any], names: list[str]) -> Table:
    """Return one row per case, described by the named options. The options that are the same in all are in the title.

    Milliseconds are medians; those of the whole step have the 10th to the 90th percentile in parentheses.
    """
    rows = result["cases"]
    finished = next((row for row in rows if row["status"] == "finished"), None)
    title = f"{result['model']} on {result['data']}"
    if finished:
        title += f", {finished['image_size']} pixels\n" + "\n".join(hardware(rows))
    common = describe_case(finished or rows[0], [name for name in CASE_OPTIONS if name not in names])
    table = Table(title=f"{title}\n{common}", title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("case")
    launches = LAUNCHES if any("host_ms" in row for row in rows) else {}
    for name in ("images/s", "ms/step", *launches.values(), *PARTS, "peak MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(describe_case(row, names or ["device"]), *cells(row, launches))
    return table


def hardware(rows: list[Row]) -> list[str]:
    """Return one line per kind of device: `cpu: AMD EPYC, 2 threads`."""
    names = {}
    for row in rows:
        if row["status"] == "finished":
            cpu = f"{row['cpu']}, {row['threads']} thread{'s' * (row['threads'] > 1)}"
            names[row["accelerator"]] = cpu if row["accelerator"] == "cpu" else row["run"]["device"]
    return [f"{accelerator}: {name}" for accelerator, name in names.items()]


def cells(row: Row, launches: Iterable[str] = ()) -> list[str]:
    """Return the cells of the columns after the first one.

    Args:
        row: the case.
        launches: the names of the times that a case on a GPU also has.
    """
    if row["status"] != "finished":
        return ["", row["status"]]
    step, parts = row["step_ms"], row["parts_ms"]
    return [
        short_number(row["images_per_second"]),
        f"{short_number(step['median'])} ({short_number(step['p10'])}-{short_number(step['p90'])})",
        *(short_number(row[name]) if name in row else "" for name in launches),
        *(short_number(parts[name]["median"]) for name in PARTS),
        f"{row['peak_memory_mb']:,.0f}",
    ]


def lines_below(result: dict[str, Any], names: list[str]) -> Iterator[str]:
    """Yield what is printed below the table, with cases described by the named options."""
    for row in result["cases"]:
        if "error" in row:
            yield f"{describe_case(row, names or CASE_OPTIONS)}: {describe_result(row)}"
    finished = [row for row in result["cases"] if row["status"] == "finished"]
    for row in finished:
        if row["with_graph"] is True and row["graph"] is not True:
            yield f"{describe_case(row, names or CASE_OPTIONS)}: graph=true, but steps ran eagerly: {row['graph']}"
    startups = [f"{describe_case(row, names or ['device'])} {row['startup_seconds']:.1f} s" for row in finished]
    if startups:
        yield f"the warm-up took longer than as many measured steps by: {'; '.join(startups)}"
    if any(row.get("graph") is True for row in result["cases"]):
        yield "graph=true: forward is the whole graph, which augmentation and backward are parts of"
    for row in result["ratios"]:
        common = describe_case(row, [name for name in names if name not in ("device", "precision")])
        yield f"{row['faster']}: {row['ratio']:.1f} times the images/s of {row['slower']}{common and ', ' + common}"
    for row in result["largest_batches"]:
        case = describe_case(row, [name for name in names if name != "batch_size"] or ["device"])
        yield f"largest batch, {case}: {row['batch_size'] or 'none'} ({row['next']}: {row['reason']})"
    yield f"results: {relative(Path(result['folder']))} ({BENCHMARK_FILE}, benchmark.png)"
