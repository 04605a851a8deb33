"""A look at a data set on the terminal: what is wrong, the worst first, then the facts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reslab.data.splits import SPLIT_WORDS
from reslab.data_checks.result import fact_lines
from reslab.data_checks.writing import NUMBERS, PAGE
from reslab.files import relative
from reslab.text import printable

MOST_CLASSES = 20  # in the table; the page has all of them


def print_check(result: Mapping[str, Any], output: str | Path) -> None:
    """Print what was found, and where the page is."""
    console = Console(markup=False, emoji=False, highlight=False)
    table = Table.grid(padding=(0, 2))
    for problem in result["problems"]:
        table.add_row(Text(problem["kind"], style="bold"), Text(printable(problem["text"]), overflow="fold"))
    if not result["problems"]:
        table.add_row("nothing is wrong with the images")
    console.print(table)
    console.print(classes_table(result))
    facts = Table.grid(padding=(0, 2))
    for name, line in fact_lines(result):
        facts.add_row(name, Text(printable(line), overflow="fold"))
    console.print(facts)
    folder = relative(Path(output).absolute())
    console.print(printable(f"written: {folder / PAGE}, {NUMBERS}"), soft_wrap=True)


def classes_table(result: Mapping[str, Any]) -> Table:
    """Return the number of images of each class in each split; of many classes, those with the most and fewest."""
    splits, total = result["splits"], f"{result['images']:,} images"
    counts = splits["train"]["classes"]
    names = list(counts)
    if len(names) > MOST_CLASSES:
        ordered = sorted(names, key=lambda name: -counts[name])
        names = [*ordered[: MOST_CLASSES // 2], "…", *ordered[-MOST_CLASSES // 2 :]]
    title = printable(f"{result['data']}: {total}, {len(counts):,} classes")
    table = Table(title=title, title_justify="left", show_footer=True)
    table.add_column("class", "all", overflow="fold")
    for name, split in splits.items():
        table.add_column(SPLIT_WORDS[name], f"{split['images']:,}", justify="right")
    for name in names:
        cells = (f"{split['classes'][name]:,}" if name in counts else "…" for split in splits.values())
        table.add_row(printable(name), *cells)
    return table
