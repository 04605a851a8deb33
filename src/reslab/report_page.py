"""report.html: the leaderboard as a sortable table, and figures as SVG, in one file that needs no other."""

import io
import math
import re
from collections.abc import Callable, Sequence
from html import escape
from textwrap import shorten
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from reslab.options import shown
from reslab.report import ABSENT, ACCURACIES, SPREAD, Report, count, summary_text, value_of
from reslab.runs import Configuration, by_number

MOST_CURVES = 10  # as many as there are colours to tell them apart
LOGARITHMIC = 10  # from this ratio of the largest to the smallest value on
ROOM = 0.04  # between two values on an axis of length 1
SVG: Any = {"svg.fonttype": "none", "svg.hashsalt": "reslab", "font.family": ["sans-serif"], "font.size": 9}
STYLE = """
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222 }
h2 { margin: 1.8em 0 .2em } p { margin: .2em 0 .8em; color: #555 }
div { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3em .8em; text-align: left; border-bottom: 1px solid #ddd } tbody tr:hover { background: #eef4fb }
th { cursor: pointer; border-bottom: 2px solid #888; white-space: nowrap } th::after { content: " ↕"; color: #aaa }
td.folder { font-size: .8em; min-width: 16em; overflow-wrap: anywhere } svg { max-width: 100%; height: auto }
"""
SCRIPT = """
for (const header of document.querySelectorAll("th")) header.onclick = () => {
  const body = header.closest("table").tBodies[0];
  const direction = header.dataset.direction = header.dataset.direction === "1" ? -1 : 1;
  const value = row => row.cells[header.cellIndex].dataset.value;
  const order = (a, b) => a === "" || b === "" ? (a === "") - (b === "") :
    direction * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
};
"""


def page(report: Report) -> str:
    parts = [f"<h1>{count(report.configurations, 'configuration')}, {count(report.runs, 'run')}</h1>"]
    if report.configurations:
        parts += [leaderboard(report), curves(report)]
        varied = {name: points for name in report.parameters if (points := effect(report, name))}
        if varied:
            parts += [effects(report, varied)]
        if len(varied) > 1:
            parts += [parallel_coordinates(report, list(varied))]
    if report.failures:
        lines = "".join(f"<li>{escape(f'{run.folder} {run.failure}')}</li>" for run in report.failures)
        parts.append(f"<h2>Not finished</h2><p>These count in no mean.</p><ul>{lines}</ul>")
    head = f'<meta charset="utf-8"><title>ResLab report</title><style>{STYLE}</style>'
    body = "\n".join(parts)
    return f"<!doctype html>\n<html lang=en><head>{head}</head>\n<body>{body}<script>{SCRIPT}</script></body></html>\n"


def section(title: str, text: str, content: str) -> str:
    return f"<h2>{escape(title)}</h2><p>{escape(text)}</p><div>{content}</div>"


def leaderboard(report: Report) -> str:
    names = ["", *report.parameters, "n", *ACCURACIES, "train/seconds", "best run"]
    rows = []
    for place, configuration in enumerate(report.configurations, 1):
        cells = [cell(place)]
        cells += [cell(value_of(configuration, name)) for name in report.parameters]
        cells += [cell(len(configuration.runs))]
        for metric in ACCURACIES:
            summary = configuration.summary(metric)
            cells.append(cell(summary_text(summary), summary.mean if summary else ""))
        seconds = configuration.summary("train/seconds")
        cells.append(cell(f"{seconds.mean:.4g}", seconds.mean) if seconds else cell(""))
        folder = escape(str(configuration.best.folder))
        rows.append(f'<tr>{"".join(cells)}<td class="folder" data-value="{folder}">{folder}</td></tr>')
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    text = "By mean validation accuracy; a click on a heading sorts."
    if any(len(configuration.runs) > 1 for configuration in report.configurations):
        text += f" Accuracy: {SPREAD}."
    return section("Leaderboard", text, f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>")


def cell(text: object, value: object | None = None) -> str:
    return f'<td data-value="{escape(str(text if value is None else value))}">{escape(str(text))}</td>'


# figures


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What `draw` draws; an artist's gid `name: …` is shown where the mouse rests on it."""
    with matplotlib.rc_context(SVG):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    return re.sub(r'<g id="name: ([^"]*)">', r"<g><title>\1</title>", text[text.index("<svg") :])


def label(configuration: Configuration, parameters: Sequence[str]) -> str:
    return ", ".join(f"{name}={value_of(configuration, name)}" for name in parameters) or "all runs"


def curves(report: Report) -> str:
    best = report.configurations[:MOST_CURVES]

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for number, configuration in enumerate(best):
            name = f"{number + 1}: {label(configuration, report.parameters)}"
            for axes, split in zip(panels, ("train", "val"), strict=True):
                draw_curve(axes, configuration, split, f"C{number}", name)
        for axes, title in zip(panels, ("training", "validation"), strict=True):
            axes.set(xlabel="epoch", title=f"{title} error in %", ylim=(0, None))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles,
            [shorten(name, 80, placeholder=" …") for name in labels],
            loc="outside lower left",
            ncols=2 if len(best) > 2 else 1,
            frameon=False,
        )

    which = f"The {MOST_CURVES} best configurations. " if len(report.configurations) > len(best) else ""
    text = f"{which}Lines: mean over the seeds; bands: from the smallest to the largest."
    return section("Learning curves", text, svg(draw, 11, 4 + 0.1 * len(best)))


def draw_curve(axes: Axes, configuration: Configuration, split: str, color: str, name: str) -> None:
    errors: dict[float, list[float]] = {}
    for run in configuration.runs:
        for row in run.epochs:
            if f"{split}/accuracy" in row:
                errors.setdefault(row["epoch"] + 1, []).append(100 * (1 - row[f"{split}/accuracy"]))
    epochs = sorted(errors)
    means = [sum(errors[epoch]) / len(errors[epoch]) for epoch in epochs]
    axes.plot(epochs, means, color=color, label=name, gid=f"name: {name}", marker="." if len(epochs) == 1 else "")
    if len(configuration.runs) > 1:
        low, high = [min(errors[epoch]) for epoch in epochs], [max(errors[epoch]) for epoch in epochs]
        axes.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)


Points = list[tuple[Any, float, str]]  # a run each: the parameter's value, accuracy, the run's name


def effect(report: Report, name: str) -> Points:
    """Empty where finished runs do not tell two values apart."""
    points = [
        (configuration.settings.get(name, ABSENT), run.result["val/accuracy"], str(run.folder))
        for configuration in report.configurations
        for run in configuration.runs
        if "val/accuracy" in run.result
    ]
    return points if len({str(value) for value, _, _ in points}) > 1 else []


def effects(report: Report, varied: dict[str, Points]) -> str:
    columns = min(len(varied), 3)
    rows = -(-len(varied) // columns)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes, (name, points) in zip(grid.flat, varied.items(), strict=False):
            draw_effect(axes, name, points)
        for axes in list(grid.flat)[len(varied) :]:
            axes.axis("off")
        for axes in grid[:, 0]:
            axes.set_ylabel("validation accuracy")

    text = "Dots: runs; line: mean over all runs with that value, whatever their other settings."
    return section("Effect of each parameter", text, svg(draw, 3.7 * columns, 3 * rows))


def draw_effect(axes: Axes, name: str, points: Points) -> None:
    places = positions([value for value, _, _ in points])
    groups: dict[float, list[float]] = {}
    for value, accuracy, run in points:
        groups.setdefault(places[shown(value)], []).append(accuracy)
        axes.plot(places[shown(value)], accuracy, "o", color="C0", alpha=0.5, gid=f"name: {run}: {accuracy:.4f}")
    if 2 * len(groups) <= len(points):  # a search gives every run a value of its own
        means = [sum(accuracies) / len(accuracies) for _, accuracies in sorted(groups.items())]
        axes.plot(sorted(groups), means, color="C1", marker="_", markersize=14)
    ticks = few(places)
    axes.set_xticks(list(ticks.values()), list(ticks), rotation=0 if len("".join(ticks)) < 40 else 60)
    axes.set(xlabel=name, xlim=(-0.15, 1.15))
    axes.grid(alpha=0.3)


def parallel_coordinates(report: Report, parameters: list[str]) -> str:
    accuracies = {
        id(configuration): summary.mean
        for configuration in report.configurations
        if (summary := configuration.summary("val/accuracy"))
    }
    lines = [configuration for configuration in reversed(report.configurations) if id(configuration) in accuracies]
    scales = [positions([each.settings.get(name, ABSENT) for each in lines]) for name in parameters]
    shades = Normalize(min(accuracies.values()), max(accuracies.values()))
    colors = matplotlib.colormaps["viridis_r"]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for line in lines:
            heights = [scale[value_of(line, name)] for scale, name in zip(scales, parameters, strict=True)]
            mean = accuracies[id(line)]
            name = f"name: {label(line, parameters)}: {mean:.4f}"
            axes.plot([*heights, shades(mean)], color=colors(shades(mean)), linewidth=2, alpha=0.8, gid=name)
        for place, scale in enumerate(scales):
            axes.axvline(place, color="black", linewidth=0.8)
            for text, height in few(scale).items():
                axes.annotate(text, (place, height), (4, 3), textcoords="offset points")
        axes.axvline(len(scales), color="black", linewidth=0.8)
        for height in (0.0, 0.25, 0.5, 0.75, 1.0):
            axes.annotate(f"{shades.inverse(height):.4f}", (len(scales), height), (4, 3), textcoords="offset points")
        axes.set_xticks(range(len(scales) + 1), [*parameters, "validation accuracy"])
        axes.set(xlim=(-0.05, len(scales) + 0.2), ylim=(-0.05, 1.08), yticks=[], frame_on=False)

    text = "A line is a configuration, coloured by its mean validation accuracy."
    return section("Parallel coordinates", text, svg(draw, 11, 4))


def positions(values: Sequence[Any]) -> dict[str, float]:
    """From 0 to 1: numbers by size, or by logarithm where they span much, names at equal distances."""
    distinct = {shown(value): value for value in values}
    if all(type(value) in (int, float) for value in distinct.values()):
        names = sorted(distinct, key=lambda name: distinct[name])
        low, high = distinct[names[0]], distinct[names[-1]]
        scale = math.log if low > 0 and high / low >= LOGARITHMIC else float
        sizes = [scale(distinct[name]) for name in names]
    else:
        names = sorted(distinct, key=by_number)
        sizes = [float(number) for number in range(len(names))]
    width = sizes[-1] - sizes[0] or 1.0
    return {name: (size - sizes[0]) / width for name, size in zip(names, sizes, strict=True)}


def few(places: dict[str, float]) -> dict[str, float]:
    """Those of neighbours that leave room for their names."""
    kept: dict[str, float] = {}
    for name, place in places.items():
        if not kept or place - max(kept.values()) >= ROOM:
            kept[name] = place
    return kept
