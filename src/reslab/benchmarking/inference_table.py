"""The result of a benchmark of inference on the terminal."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reslab.benchmarking.rows import Row, short_number
from reslab.benchmarking.table import MIN_WIDTH
from reslab.files import relative
from reslab.run import BENCHMARK_FILE
from reslab.text import printable


def print_inference(result: dict[str, Any]) -> None:
    """Print one row for each runtime: its size, and the speed of one image and of the best batch."""
    console = Console(markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.width = max(console.width, MIN_WIDTH)
    for line in headline(result):
        console.print(line)
    console.print(inference_table(result["cases"]), soft_wrap=False)
    console.print(f"medians of {result['rounds']} rounds, in each of which all cases were called once")
    console.print(f"results: {relative(Path(result['folder']))} ({BENCHMARK_FILE})")


def headline(result: dict[str, Any]) -> list[str]:
    """Return what was measured, and with what."""
    packages = [f"{name} {result['versions'][name]}" for name in ("torch", "onnxruntime") if name in result["versions"]]
    return [
        f"{printable(result['model'])} on {printable(result['data'])}, {result['image_size']} pixels: "
        f"{result['parameters'] / 1e6:.2f} M parameters, {result['flops'] / 1e9:.3g} GFLOPs per image",
        f"cpu: {result['cpu']}, {result['threads']} thread{'s' * (result['threads'] > 1)}; {', '.join(packages)}",
    ]


def inference_table(rows: list[Row]) -> Table:
    """Return a table of the cases."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column("runtime")
    smallest = min(row["batch_size"] for row in rows)
    for name in ("MB", f"ms, batch {smallest}", "images/s", "best batch", "ms", "images/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for runner in dict.fromkeys(map(runner_of, rows)):
        own = [row for row in rows if runner_of(row) == runner]
        first = next(row for row in own if row["batch_size"] == smallest)
        best = best_batch(own)
        table.add_row(
            f"{first['runtime']}, {first['device']}, {first['precision']}",
            short_number(first["megabytes"]),
            short_number(first["ms"]),
            short_number(first["images_per_second"]),
            str(best["batch_size"]),
            short_number(best["ms"]),
            short_number(best["images_per_second"]),
        )
    return table


def runner_of(row: Row) -> tuple[str, str, str]:
    return row["runtime"], row["device"], row["precision"]


def best_batch(rows: list[Row]) -> Row:
    """Return the row with the most images/s."""
    return max(rows, key=lambda row: row["images_per_second"])
