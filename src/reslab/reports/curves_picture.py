"""The learning curves of a report as a picture, for a paper or a page."""

from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reslab.drawing import literal_text, shortened
from reslab.errors import UserError
from reslab.files import output_errors, replaced
from reslab.reports.figures import CURVES_SIZE, SVG_STYLE, draw_panel, error_limit, splits_with_curves
from reslab.reports.leaderboard import Report
from reslab.reports.page import MAX_CURVES, numbered_labels
from reslab.text import visible

LABEL_COLUMNS = 100  # of a line of the legend, which is as wide as the picture
DOTS_PER_INCH = 150  # of a .png file


def write_curves(report: Report, file: Path) -> None:
    """Write the learning curves of report.html, the training beside the validation error, with a legend below.

    Args:
        report: runs of one data set.
        file: a .png, .svg or .pdf file. An earlier one is replaced.

    Raises:
        UserError: the runs are of several data sets or have no curves, or the file cannot be written.
    """
    if len(report.parts) > 1:
        raise UserError(f"output={file}: these runs are of {len(report.parts)} data sets: name those of one")
    best = report.configurations[:MAX_CURVES]
    splits = splits_with_curves(best)
    if not splits:
        raise UserError(f"output={file}: these runs have no learning curves")
    texts = numbered_labels(best, report.differing_settings) if len(best) > 1 else [report.title]
    labels = [shortened(visible(text), LABEL_COLUMNS) for text in texts]
    width, height = CURVES_SIZE
    legend_height = 0.25 * len(labels)  # inches
    with literal_text(*labels), matplotlib.rc_context({"svg.hashsalt": SVG_STYLE["svg.hashsalt"]}):
        figure = Figure(figsize=(width * len(splits), height + legend_height), layout="constrained")
        FigureCanvasAgg(figure)
        for axes, split in zip(figure.subplots(1, len(splits), squeeze=False)[0], splits, strict=True):
            draw_panel(axes, best, labels, split, error_limit(best, splits))
        lines = [Line2D([], [], color=f"C{number}") for number in range(len(labels))]
        figure.legend(lines, labels, loc="outside lower left", frameon=False)
        with output_errors(file), replaced(file) as partial:
            figure.savefig(partial, format=file.suffix[1:].lower(), dpi=DOTS_PER_INCH, metadata=without_date(file))


def without_date(file: Path) -> dict[str, None]:
    """Return the metadata with which the same curves give the same bytes."""
    return {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(file.suffix.lower(), {})
