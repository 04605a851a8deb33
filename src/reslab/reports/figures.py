"""The figures of report.html, drawn by Matplotlib and returned as SVG."""

import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from reslab.configuration import shown
from reslab.reports.axes import is_drawable, positions, ticks
from reslab.reports.configurations import Configuration, metric_text
from reslab.reports.curves import SPLITS, Curve, error_curves
from reslab.reports.leaderboard import Report
from reslab.reports.settings import axis_value, distinct_labels, setting_text
from reslab.run import canonical

MAX_NAMES = 1000  # shapes of one figure that have a name where the mouse points at them, which a page has room for
COLLECTION = re.compile('<g id="names">(.*?(?=<g id=|\\Z))', re.DOTALL)
TAG = re.compile(r"<(?!!)[^>]*>")
SHAPE = re.compile(r"<(use|path) ((?:xlink:href|d)=[^>]*)/>")
LONG_DECIMAL = re.compile(r"(\d\.\d\d)\d+")
CURVES_SIZE = 4.6, 3.6  # inches: a panel of learning curves, which a page makes larger or smaller
PANEL_WIDTH, AXIS_DISTANCE = 3.7, 1.4  # inches: a panel of effects, and from one parallel coordinate to the next
CHARACTER_WIDTH = 0.03  # of a label, as a part of an effect's axis; for a vertical label it is the height of the line
THIN_FROM = 50  # lines in the parallel coordinates
LOW_TO_HIGH = LinearSegmentedColormap.from_list("low to high", ["#e0a030", "#3b7dd8"])  # visible on light and dark
SVG_STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "reslab", "font.family": ["sans-serif"], "font.size": 9,
    "text.parse_math": False,
}  # fmt: skip


def as_svg(draw: Callable[[Figure], None], width: float, height: float, names: Sequence[str] = ()) -> str:
    """Return what `draw` draws on a figure of a size in inches, with black and white as text and paper of the page.

    The text of an artist whose gid is `name: text` appears where the mouse points at the artist, and so do the texts of
    `names` at the shapes of the collections whose gid is `names`. More than `MAX_NAMES` are left out.
    """
    with matplotlib.rc_context(SVG_STYLE), warnings.catch_warnings():
        # A browser writes the texts, in its own fonts. Matplotlib only measures them.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = FigureCanvasSVG(Figure(figsize=(width, height), dpi=72)).figure  # savefig measures with 72 dpi
        draw(figure)
        ConstrainedLayoutEngine().execute(figure)  # as the figure's own engine it would make savefig draw all twice
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = TAG.sub(lambda tag: tag[0].replace("#000000", "var(--text)").replace("#ffffff", "var(--paper)"), text)
    text = re.sub(r'<g id="name: ([^"]*)">', r"<g><title>\1</title>", text[text.index("<svg") :])
    remaining = iter(names if len(names) <= MAX_NAMES else ())
    return COLLECTION.sub(lambda found: named_collection(found[1], remaining), text)


def named_collection(shapes: str, remaining: Iterator[str]) -> str:
    """Return the SVG of a collection with the next name for each shape. The style of all dots is written once."""

    def named(found: re.Match[str]) -> str:
        kind, attributes = found.groups()
        if kind == "use":
            attributes = LONG_DECIMAL.sub(r"\1", attributes.partition(" style=")[0])
        name = next(remaining, "")
        return f"<{kind} {attributes}><title>{escape(name)}</title></{kind}>" if name else f"<{kind} {attributes}/>"

    style = re.search(r'<use [^>]*( style="[^"]*")', shapes)
    return f"<g{style[1] if style else ''}>{SHAPE.sub(named, shapes)}"


# learning curves


def learning_curves(configurations: Sequence[Configuration], labels: Sequence[str]) -> str:
    """Draw the training and the validation error by epoch, with a legend below; return "" if no run has any."""
    splits = splits_with_curves(configurations)
    if not splits:
        return ""
    limit = error_limit(configurations, splits)
    panels = [curves_panel(configurations, labels, split, limit) for split in splits]
    return f'<div class="panels curves">{"".join(panels)}</div>{legend(labels)}'


def splits_with_curves(configurations: Sequence[Configuration]) -> list[str]:
    return [split for split in SPLITS if any(any(error_curves(each, split)) for each in configurations)]


def error_limit(configurations: Sequence[Configuration], splits: Sequence[str]) -> float:
    """Return the upper end of the axes in %, which all panels share."""
    errors = [
        error for split in splits for each in configurations for curve in error_curves(each, split)
        for error in curve.values() if math.isfinite(error)
    ]  # fmt: skip
    return 1.05 * max(0.0, *errors) or 1.0


def curves_panel(configurations: Sequence[Configuration], labels: Sequence[str], split: str, limit: float) -> str:
    points = named_points(configurations, labels, split)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_panel(axes, configurations, labels, split, limit)
        axes.scatter(
            [point.epoch for point in points], [point.error for point in points],
            color="black", alpha=0, gid="names", zorder=3, in_layout=False,
        )  # fmt: skip

    return as_svg(draw, *CURVES_SIZE, [point.name for point in points])


def draw_panel(
    axes: Axes, configurations: Sequence[Configuration], labels: Sequence[str], split: str, limit: float
) -> None:
    """Draw the curves of a split, each configuration in a colour of its own."""
    for number, (configuration, label) in enumerate(zip(configurations, labels, strict=True)):
        draw_curves(axes, error_curves(configuration, split), f"C{number}", label)
    axes.set(xlabel="epoch", title=f"{SPLITS[split]} error in %", ylim=(0, limit))
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    axes.grid(alpha=0.3)


def legend(labels: Sequence[str]) -> str:
    """Return the colour and the label of each curve as HTML, which breaks a long label into lines."""
    items = (
        f'<li><span style="background: {to_hex(f"C{number}")}"></span>{escape(label)}</li>'
        for number, label in enumerate(labels)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


class NamedPoint(NamedTuple):
    """A point of a mean curve, which nothing shows until the mouse is over it."""

    epoch: float
    error: float
    name: str


def named_points(configurations: Sequence[Configuration], labels: Sequence[str], split: str) -> list[NamedPoint]:
    """Return the points of the mean curves with their values; of more than a page can name, some at equal distances."""
    found = []
    room = MAX_NAMES // (len(SPLITS) * len(configurations))
    for configuration, label in zip(configurations, labels, strict=True):
        curves = error_curves(configuration, split)
        means = {moment: mean for moment, mean in mean_curve(curves).items() if math.isfinite(mean)}
        for moment in sorted(means, reverse=True)[:: math.ceil(len(means) / room) or 1]:
            values = [curve[moment] for curve in curves]
            spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
            found.append(NamedPoint(moment, means[moment], f"{label}\nepoch {moment:g}: {means[moment]:.2f} %{spread}"))
    return found


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean at the moments that all seeds have: elsewhere it would be that of other seeds, and jump."""
    moments = sorted(set(curves[0]).intersection(*curves))
    return {moment: fmean(curve[moment] for curve in curves) for moment in moments}


def draw_curves(axes: Axes, curves: Sequence[Curve], color: str, label: str) -> None:
    """Draw the mean and the range over the seeds, and single curves where seeds have different epochs."""
    mean = mean_curve(curves)
    if len(curves) > 1:
        low, high = ([extreme(curve[moment] for curve in curves) for moment in mean] for extreme in (min, max))
        axes.fill_between(list(mean), low, high, color=color, alpha=0.15, linewidth=0)
    for curve in curves:
        if curve.keys() - mean:
            draw_curve(axes, curve, color=color, gid=f"name: {label}", linewidth=0.6)
    draw_curve(axes, mean, color=color, gid=f"name: {label}", label=label)


def draw_curve(axes: Axes, curve: Curve, **style: Any) -> None:
    moments = sorted(curve)
    values = [curve[moment] for moment in moments]
    axes.plot(moments, values, marker="." if len(moments) == 1 else "", **style)


# the effect of each setting


class Point(NamedTuple):
    """A finished run in the figure of one setting: the value of the setting, the metric that ranks, and the folder."""

    value: Any
    metric: float
    folder: str


def effect_points(report: Report, setting: str) -> list[Point]:
    """Return one point per finished run, or none if these runs have the same value of the setting."""
    points = [
        Point(axis_value(configuration.settings, setting), metric, entry.location)
        for configuration in report.configurations
        for entry in configuration.entries
        if is_drawable(metric := entry.result.get(report.metric_names[0], math.nan))
    ]
    return points if len({canonical(point.value) for point in points}) > 1 else []


def effect_panels(points_by_setting: dict[str, list[Point]], metric_name: str) -> list[str]:
    """Draw one figure per setting, all with the same limits of the metric."""
    metrics = [point.metric for points in points_by_setting.values() for point in points]
    margin = 0.05 * (max(metrics) - min(metrics)) or 0.01
    limits = min(metrics) - margin, max(metrics) + margin
    return [effect_panel(setting, points, limits, metric_name) for setting, points in points_by_setting.items()]


def effect_panel(setting: str, points: Sequence[Point], limits: tuple[float, float], metric_name: str) -> str:
    labels = ticks([point.value for point in points])
    longest = max(map(len, labels.values()))
    is_vertical = any(later - earlier < longest * CHARACTER_WIDTH for earlier, later in pairwise(labels))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_effect(axes, points)
        axes.set_xticks(list(labels), list(labels.values()), rotation=90 if is_vertical else 0)
        axes.set(title=setting, xlim=(-0.15, 1.15), ylim=limits, ylabel=metric_name)
        axes.grid(alpha=0.3)

    names = [f"{point.folder}: {metric_text(point.metric)}" for point in points]
    return as_svg(draw, PANEL_WIDTH, 2.8 + (0.07 * longest if is_vertical else 0), names)


def draw_effect(axes: Axes, points: Sequence[Point]) -> None:
    """Draw a dot per run, and the means by value if the runs share values."""
    position_of = positions([point.value for point in points])
    groups: dict[float, list[float]] = {}
    for value, metric, _ in points:
        groups.setdefault(position_of[shown(value)], []).append(metric)
    places = [position_of[shown(point.value)] for point in points]
    axes.scatter(places, [point.metric for point in points], color="C0", alpha=0.5, gid="names", in_layout=False)
    if 2 * len(groups) <= len(points):  # in a search every run may have its own value
        means = [sum(metrics) / len(metrics) for _, metrics in sorted(groups.items())]
        axes.plot(sorted(groups), means, color="C1", marker="_", markersize=14)


# parallel coordinates


def parallel_coordinates(report: Report, settings: Sequence[str]) -> str:
    """Draw one line per configuration, through its settings to its mean metric; return "" if no mean can be drawn.

    The figure keeps its width in a narrow window, which scrolls.
    """
    metric_name = report.metric_names[0]
    means = [
        (configuration, statistics.mean)
        for configuration in reversed(report.configurations)  # the best is drawn last, above the others
        if (statistics := configuration.statistics(metric_name)) and is_drawable(statistics.mean)
    ]
    if not means:
        return ""
    values = [[axis_value(configuration.settings, name) for configuration, _ in means] for name in settings]
    scale = Normalize(min(mean for _, mean in means), max(mean for _, mean in means))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_configurations(axes, means, settings, [positions(each) for each in values], scale)
        heights = (0.0, 0.25, 0.5, 0.75, 1.0)
        draw_coordinates(axes, [*map(ticks, values), {height: f"{scale.inverse(height):.4f}" for height in heights}])
        axes.set_xticks(range(len(settings) + 1), [name.replace(".", ".\n") for name in (*settings, metric_name)])
        axes.set(xlim=(-0.05, len(settings) + 0.2), ylim=(-0.05, 1.08), yticks=[], frame_on=False)

    width = max(11, AXIS_DISTANCE * (len(settings) + 1))
    texts = distinct_labels([configuration.settings for configuration, _ in means], settings)
    names = [f"{text}: {metric_text(mean)}" for text, (_, mean) in zip(texts, means, strict=True)]
    return f'<div style="min-width: {width}in">{as_svg(draw, width, 4, names)}</div>'


def draw_configurations(
    axes: Axes,
    means: Sequence[tuple[Configuration, float]],
    settings: Sequence[str],
    position_of: Sequence[dict[str, float]],
    scale: Normalize,
) -> None:
    lines = []
    for configuration, mean in means:
        texts = [setting_text(configuration.settings, name) for name in settings]
        heights = [*(each[text] for each, text in zip(position_of, texts, strict=True)), float(scale(mean))]
        lines.append(list(enumerate(heights)))
    colors = LOW_TO_HIGH(scale([mean for _, mean in means]))
    linewidth = 2 if len(means) <= THIN_FROM else 1
    axes.add_collection(LineCollection(lines, colors=colors, linewidths=linewidth, alpha=0.8, gid="names"))


def draw_coordinates(axes: Axes, labels: Sequence[dict[float, str]]) -> None:
    background: Any = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
    for number, texts in enumerate(labels):
        axes.axvline(number, color="black", linewidth=0.8)
        for height, text in texts.items():
            axes.annotate(text, (number, height), (4, 3), textcoords="offset points", bbox=background)
