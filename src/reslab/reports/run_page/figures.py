"""The figures of run.html, as SVG with the colours of the page."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reslab.reports.curves import SPLITS, Curve, metric_curve
from reslab.reports.figures import as_svg
from reslab.reports.statistics import proportion_interval

if TYPE_CHECKING:
    from reslab.reports.run_page.tested import Bin  # torch, which not every page needs

# Colours that stand for those of the page, light or dark: see `in_page_colours`. Black is that of its text.
TEXT, TRAIN, VAL = "#000000", "#010101", "#020202"
COLOURS = {TRAIN: "var(--train)", VAL: "var(--val)"}
COLOUR_OF = {"train": TRAIN, "val": VAL}
PANEL = 4.6, 3.2  # inches
RELIABILITY = 4.6, 4.6


def in_page_colours(svg: str) -> str:
    """Return a figure whose lines have the colours of the page."""
    for colour, name in COLOURS.items():
        svg = svg.replace(colour, name)
    return svg


def curves(rows: Sequence[dict[str, float]]) -> list[str]:
    """Draw the error and the loss of training and validation by epoch; nothing for what the run did not measure."""
    panels = []
    for metric, title in {"accuracy": "error in %", "loss": "loss"}.items():
        lines = {split: metric_curve(rows, f"{split}/{metric}") for split in SPLITS}
        if any(lines.values()):
            panels.append(curves_panel(lines, title, is_error=metric == "accuracy"))
    return panels


def curves_panel(lines: dict[str, Curve], title: str, is_error: bool) -> str:
    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for split, line in lines.items():
            if line:
                values = [100 * (1 - value) if is_error else value for value in line.values()]
                style: dict[str, Any] = {
                    "color": COLOUR_OF[split],
                    "label": SPLITS[split],
                    "marker": "." if len(line) == 1 else "",
                }
                axes.plot(list(line), values, **style)
        axes.set(xlabel="epoch", title=title, xlim=(0, None), ylim=(0, upper_limit(axes)))
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
        axes.legend(framealpha=0, labelcolor=TEXT)
        axes.grid(alpha=0.3)

    return in_page_colours(as_svg(draw, *PANEL))


def upper_limit(axes: Axes) -> float:
    """Return a limit above all points, of which the first ones of a loss may be infinite."""
    values = [value for line in axes.lines for value in np.asarray(line.get_ydata(), float) if math.isfinite(value)]
    return 1.05 * max(values, default=0.0) or 1.0


def reliability(bins: Sequence["Bin"]) -> str:
    """Draw the share of right answers by confidence, with how many images there are of each."""

    def draw(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        draw_shares(upper, [each for each in bins if each.images])
        width = 1 / len(bins)
        lower.bar(
            [each.low for each in bins], [each.images for each in bins], width, align="edge", color=TRAIN, alpha=0.5
        )
        lower.set(xlabel="confidence", ylabel="images", xlim=(0, 1))
        lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        for axes in (upper, lower):
            axes.grid(alpha=0.3)

    return in_page_colours(as_svg(draw, *RELIABILITY))


def draw_shares(axes: Axes, bins: Sequence["Bin"]) -> None:
    """Draw the accuracy of each bin with its confidence interval, and where it would be if it were the confidence."""
    axes.plot([0, 1], [0, 1], ls="--", color=TEXT, lw=0.8)
    places = [each.confidence for each in bins]
    shares = [each.right / each.images for each in bins]
    intervals = [proportion_interval(each.right, each.images) for each in bins]
    width = [each.high - each.low for each in bins]
    axes.bar([each.low for each in bins], shares, width, align="edge", color=TRAIN, alpha=0.35)
    axes.vlines(places, [low for low, _ in intervals], [high for _, high in intervals], color=TEXT, lw=1)
    axes.plot(places, shares, "o", color=TRAIN, ms=4)
    axes.set(ylabel="share of right answers", ylim=(0, 1.02))
