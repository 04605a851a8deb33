"""report.html: the leaderboard as a sortable table, and figures as SVG, in one file that needs no other."""

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from itertools import pairwise
from statistics import fmean
from textwrap import shorten
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from reslab.options import shown
from reslab.reports.axes import positions, ticks
from reslab.reports.leaderboard import ABSENT, SPREAD, Report, brief, failures, notes, summary_text, value_of
from reslab.reports.runs import Configuration, identity

MOST_CURVES = 10  # as many as there are colours to tell them apart
CHARACTER = 0.03  # its width on an axis of an effect; of one on its side it is the height that counts
SPLITS = {"train": "training", "val": "validation"}
PANEL, AXIS = 3.7, 1.4  # inches: a panel of the effects, and from one of the parallel coordinates to the next
SVG: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "reslab", "font.family": ["sans-serif"], "font.size": 9,
    "text.parse_math": False,
}  # fmt: skip
STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222; background: white }
h2 { margin: 1.8em 0 .2em } p { margin: .2em 0 .8em; color: #555 }
div { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3em .8em; text-align: left; border-bottom: 1px solid #ddd } tbody tr:hover { background: #eef4fb }
th { cursor: pointer; border-bottom: 2px solid #888; white-space: nowrap } th::after { content: " ↕"; color: #aaa }
th[data-direction="1"]::after { content: " ↑" } th[data-direction="-1"]::after { content: " ↓" }
.panels { display: flex; flex-wrap: wrap; align-items: flex-start }
td { max-width: 20em; overflow-wrap: break-word } td.number { white-space: nowrap }
td.folder { font-size: .8em; min-width: 16em; overflow-wrap: anywhere } svg { max-width: 100%; height: auto }
"""
SCRIPT = """
const headers = document.querySelectorAll("th");
for (const header of headers) header.onclick = () => {
  const body = header.closest("table").tBodies[0];
  const direction = header.dataset.direction === "1" ? -1 : 1;
  for (const each of headers) delete each.dataset.direction;
  header.dataset.direction = direction;
  const value = row => row.cells[header.cellIndex].dataset.value;
  const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") :
    direction * (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", {numeric: true}) : a - b);
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
};
"""


def page(report: Report) -> str:
    parts = [f"<h1>{report.counted}</h1>"]
    if report.configurations:
        parts += [ranking(report), curves(report)]
        varied = {name: points for name in report.parameters if report.metrics and (points := effect(report, name))}
        if varied:
            parts += [effects(report, varied)]
        if len(varied) > 1:
            parts += [parallel_coordinates(report, list(varied))]
    if report.failures:
        parts.append(f"<h2>Not finished</h2><p>These count in no mean.</p>{items(failures(report))}")
    head = f'<meta charset="utf-8"><title>ResLab report</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>{body}<script>{SCRIPT}</script></body></html>\n"


def section(title: str, text: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p><div>{content}</div>"


def items(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def ranking(report: Report) -> str:
    names = ["", *report.metrics, "n", *report.parameters, "train/seconds", "best run"]
    rows = []
    for place, configuration in enumerate(report.configurations, 1):
        cells = [cell(place, place)]
        for metric in report.metrics:
            summary = configuration.summary(metric)
            cells.append(cell(summary_text(configuration, metric), summary.mean if summary else ""))
        cells.append(cell(len(configuration.runs), len(configuration.runs)))
        for name in report.parameters:
            value = value_of(configuration, name) if name in configuration.settings else ""
            cells.append(cell(brief(configuration.settings.get(name, ABSENT)), value))
        seconds = configuration.summary("train/seconds")
        cells.append(cell(f"{seconds.mean:.4g}", seconds.mean) if seconds else cell("", ""))
        folder = escape(str(configuration.best.folder))
        rows.append(f'<tr>{"".join(cells)}<td class="folder" data-value="{folder}">{folder}</td></tr>')
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    text = f"{report.order.strip().capitalize()}; a click on a heading sorts."
    if report.with_seeds:
        text += f" Accuracy: {SPREAD}."
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return section("Leaderboard", text, table) + items(notes(report))


def cell(text: object, value: str | float) -> str:
    """value: what it is sorted by; empty, and last in any order, where it is none."""
    if isinstance(value, str):
        return f'<td data-value="{escape(value)}">{escape(str(text))}</td>'
    by = "" if math.isnan(value) else value
    return f'<td class="number" data-value="{by}">{escape(str(text)).replace(" [", "<br>[")}</td>'


# figures


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What `draw` draws; an artist's gid `name: …` is shown where the mouse rests on it."""
    with matplotlib.rc_context(SVG):
        figure = FigureCanvasSVG(Figure(figsize=(width, height), dpi=72)).figure  # what savefig measures by
        draw(figure)
        ConstrainedLayoutEngine().execute(figure)  # here, for savefig would draw everything twice for it
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return re.sub(r'<g id="name: ([^"]*)">', r"<g><title>\1</title>", text[text.index("<svg") :])


def label(configuration: Configuration, parameters: Sequence[str]) -> str:
    settings = configuration.settings
    return ", ".join(f"{name}={brief(settings.get(name, ABSENT))}" for name in parameters) or "all runs"


Curve = dict[float, float]  # the error in % by epoch


def curves(report: Report) -> str:
    best = report.configurations[:MOST_CURVES]
    splits = [split for split in SPLITS if any(any(error_curves(each, split)) for each in best)]
    if not splits:
        return ""
    names = [f"{place}: {label(each, report.parameters)}" for place, each in enumerate(best, 1)]
    columns = 2 if len(best) > 2 and max(map(len, names)) <= 75 else 1

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
        for axes, split in zip(panels, splits, strict=True):
            lines = [draw_curves(axes, error_curves(each, split), f"C{i}", names[i]) for i, each in enumerate(best)]
            axes.set(xlabel="epoch", title=f"{SPLITS[split]} error in %")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        panels[0].set_ylim(0)  # of all, when all are drawn
        shortened = [shorten(name, 150 // columns, placeholder=" …") for name in names]
        figure.legend(lines, shortened, loc="outside lower left", ncols=columns, frameon=False)

    text = f"The {MOST_CURVES} best configurations. " if len(report.configurations) > len(best) else ""
    text += "Lines: mean over the seeds; bands: from the smallest to the largest."
    epochs = [[{frozenset(curve) for curve in error_curves(each, split)} for split in splits] for each in best]
    if uneven := [str(place) for place, of_splits in enumerate(epochs, 1) if any(len(each) > 1 for each in of_splits)]:
        text += f" Where only some seeds have an epoch ({', '.join(uneven)}): thin lines, a seed each, and no mean."
    return section("Learning curves", text, svg(draw, 11, 4 + 0.2 * -(-len(best) // columns)))


def error_curves(configuration: Configuration, split: str) -> list[Curve]:
    """Of each run, empty where it has none."""
    metric = f"{split}/accuracy"
    return [
        {row["epoch"] + 1: 100 * (1 - row[metric]) for row in run.epochs if metric in row} for run in configuration.runs
    ]


def draw_curves(axes: Axes, runs: Sequence[Curve], color: str, name: str) -> Line2D:
    """The mean where all runs have the epoch: that of the others would fall where a worse one has ended."""
    epochs = set(runs[0]).intersection(*runs)
    mean = {epoch: fmean(run[epoch] for run in runs) for epoch in sorted(epochs)}
    if len(runs) > 1:
        low, high = ([extreme(run[epoch] for run in runs) for epoch in mean] for extreme in (min, max))
        axes.fill_between(list(mean), low, high, color=color, alpha=0.15, linewidth=0)
    for run in runs:
        if run.keys() - epochs:
            draw_curve(axes, run, color=color, gid=f"name: {name}", linewidth=0.6)
    return draw_curve(axes, mean, color=color, gid=f"name: {name}", label=name)


def draw_curve(axes: Axes, curve: Curve, **style: Any) -> Line2D:
    epochs = sorted(curve)
    (line,) = axes.plot(epochs, [curve[epoch] for epoch in epochs], marker="." if len(epochs) == 1 else "", **style)
    return line


Points = list[tuple[Any, float, str]]  # a run each: the parameter's value, accuracy, the run's name


def effect(report: Report, name: str) -> Points:
    """Empty where finished runs do not tell two values apart."""
    points = [
        (configuration.settings.get(name, ABSENT), accuracy, str(run.folder))
        for configuration in report.configurations
        for run in configuration.runs
        if math.isfinite(accuracy := run.result.get(report.metrics[0], math.nan))
    ]
    return points if len({identity(value) for value, _, _ in points}) > 1 else []


def effects(report: Report, varied: dict[str, Points]) -> str:
    accuracies = [accuracy for points in varied.values() for _, accuracy, _ in points]
    margin = 0.05 * (max(accuracies) - min(accuracies)) or 0.01
    limits = min(accuracies) - margin, max(accuracies) + margin
    panels = "".join(panel(name, points, limits, report.metrics[0]) for name, points in varied.items())
    text = "Dots: runs; line: mean over all runs with that value, whatever their other settings."
    return section("Effect of each parameter", text, f'<div class="panels">{panels}</div>')


def panel(name: str, points: Points, limits: tuple[float, float], metric: str) -> str:
    labels = ticks([value for value, _, _ in points])
    longest = max(map(len, labels.values()))
    on_their_side = any(later - earlier < longest * CHARACTER for earlier, later in pairwise(labels))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        draw_effect(axes, points)
        axes.set_xticks(list(labels), list(labels.values()), rotation=90 if on_their_side else 0)
        axes.set(title=name, xlim=(-0.15, 1.15), ylim=limits, ylabel=metric)
        axes.grid(alpha=0.3)

    return svg(draw, PANEL, 2.8 + (0.07 * longest if on_their_side else 0))


def draw_effect(axes: Axes, points: Points) -> None:
    places = positions([value for value, _, _ in points])
    groups: dict[float, list[float]] = {}
    for value, accuracy, run in points:
        groups.setdefault(places[shown(value)], []).append(accuracy)
        name = f"name: {run}: {accuracy:.4f}"
        axes.plot(places[shown(value)], accuracy, "o", color="C0", alpha=0.5, gid=name, in_layout=False)
    if 2 * len(groups) <= len(points):  # a search gives every run a value of its own
        means = [sum(accuracies) / len(accuracies) for _, accuracies in sorted(groups.items())]
        axes.plot(sorted(groups), means, color="C1", marker="_", markersize=14)


def parallel_coordinates(report: Report, parameters: list[str]) -> str:
    metric = report.metrics[0]
    accuracies = {
        id(configuration): summary.mean
        for configuration in report.configurations
        if (summary := configuration.summary(metric)) and math.isfinite(summary.mean)
    }
    lines = [configuration for configuration in reversed(report.configurations) if id(configuration) in accuracies]
    if not lines:
        return ""
    values = [[each.settings.get(name, ABSENT) for each in lines] for name in parameters]
    scales = [positions(each) for each in values]
    shades = Normalize(min(accuracies.values()), max(accuracies.values()))
    colors = matplotlib.colormaps["viridis_r"]
    thickness = 2 if len(lines) <= 50 else 1
    behind: Any = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for line in lines:
            heights = [scale[value_of(line, name)] for scale, name in zip(scales, parameters, strict=True)]
            mean = accuracies[id(line)]
            name = f"name: {label(line, parameters)}: {mean:.4f}"
            axes.plot([*heights, shades(mean)], color=colors(shades(mean)), linewidth=thickness, alpha=0.8, gid=name)
        means = {height: f"{shades.inverse(height):.4f}" for height in (0.0, 0.25, 0.5, 0.75, 1.0)}
        for place, labels in enumerate([*map(ticks, values), means]):
            axes.axvline(place, color="black", linewidth=0.8)
            for height, text in labels.items():
                axes.annotate(text, (place, height), (4, 3), textcoords="offset points", bbox=behind)
        axes.set_xticks(range(len(scales) + 1), [name.replace(".", ".\n") for name in (*parameters, metric)])
        axes.set(xlim=(-0.05, len(scales) + 0.2), ylim=(-0.05, 1.08), yticks=[], frame_on=False)

    width = max(11, AXIS * (len(parameters) + 1))
    text = f"A line is a configuration, coloured by its mean {metric}."
    return section("Parallel coordinates", text, f'<div style="min-width: {width}in">{svg(draw, width, 4)}</div>')
