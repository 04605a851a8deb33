"""A benchmark's result as a picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslab.benchmarking.rows import PARTS, Row, describe_case, options_that_differ, short_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME_COLUMNS = 24  # of a model and of a data set in the title, in characters


def draw(path: Path, result: dict[str, Any]) -> None:
    """Draw the images/s of every case, and next to it how the time of a step is divided into its parts."""
    from matplotlib.figure import Figure  # Importing it takes a third of a second.

    from reslab.drawing import literal_text, shortened

    rows = result["cases"]
    names = options_that_differ(rows) or ["device"]
    title = f"{shortened(result['model'], NAME_COLUMNS)} on {shortened(result['data'], NAME_COLUMNS)}"
    cases = [describe_case(row, names) for row in rows]
    with literal_text(title, *cases):
        figure = Figure(figsize=(11, 1.8 + 0.4 * len(rows)), layout="constrained")
        speeds, parts = figure.subplots(1, 2, sharey=True)
        draw_speeds(speeds, rows)
        speeds.set(title=title)
        speeds.set_yticks(range(len(rows)), cases)
        speeds.invert_yaxis()  # The first case is at the top.
        draw_parts(parts, rows)
        figure.legend(*parts.get_legend_handles_labels(), ncols=len(PARTS), loc="outside lower right", fontsize="small")
        figure.savefig(path, dpi=110)


def draw_speeds(axes: "Axes", rows: list[Row]) -> None:
    speeds = [row.get("images_per_second", 0.0) for row in rows]
    labels = [short_number(speed) if speed else row["status"] for speed, row in zip(speeds, rows, strict=True)]
    axes.bar_label(axes.barh(range(len(rows)), speeds), labels, padding=3)
    axes.set(xlabel="images/s", xlim=(0, 1.2 * max(speeds) or 1))


def draw_parts(axes: "Axes", rows: list[Row]) -> None:
    percentages = [part_percentages(row) for row in rows]
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [percentage[part] for percentage in percentages]
        axes.barh(range(len(rows)), widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel="% of a step's time", title="parts of a step", xlim=(0, 100))


def part_percentages(row: Row) -> dict[str, float]:
    """Return the median of each part in per cent of their sum, which may differ from the median of the whole step."""
    if row["status"] != "finished":
        return dict.fromkeys(PARTS, 0.0)
    medians = {name: row["parts_ms"][name]["median"] for name in PARTS}
    return {name: 100 * median / sum(medians.values()) for name, median in medians.items()}
