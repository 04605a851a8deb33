"""report.html: a sortable leaderboard and figures, in one file that needs no other file and no network."""

import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from reslab.pages import SORTING, document, facts_table
from reslab.reports.configurations import (
    ACCURACIES,
    Configuration,
    mean_and_interval,
    metric_text,
    seconds_text,
)
from reslab.reports.curves import has_uneven_curves
from reslab.reports.figures import (
    effect_panels,
    effect_points,
    learning_curves,
    parallel_coordinates,
)
from reslab.reports.leaderboard import Report, failure_lines, notes_on_means
from reslab.reports.origin import origin
from reslab.reports.pairwise import Comparison, comparisons
from reslab.reports.settings import ABSENT, distinct_labels, rounded_text, setting_text
from reslab.reports.statistics import PERCENT, SIGNIFICANCE_LEVEL
from reslab.run import PAGE
from reslab.text import counted

MAX_CURVES = 10  # Matplotlib has ten colours to distinguish them
STYLE = """
h1 { margin-top: 1.6em } p { margin: .2em 0 .8em; color: var(--quiet) } tbody tr:hover { background: var(--card) }
thead th { white-space: nowrap; border-bottom: 2px solid var(--quiet) } tbody th { font-weight: normal }
.label { min-width: 16em; max-width: 32em; overflow-wrap: anywhere }
.scroll th, .scroll td { padding: .3em .8em; vertical-align: middle } .scroll td { max-width: 20em }
.scroll td.number { text-align: left }
td.folder { font-size: .8em; min-width: 16em; overflow-wrap: anywhere }
.panels { display: flex; flex-wrap: wrap; align-items: flex-start }
.curves svg { flex: 1 1 22em; max-width: min(100%, 36em) }
.legend { columns: 22em; padding: 0; list-style: none }
.legend li { padding-left: 2.1em; text-indent: -2.1em; overflow-wrap: anywhere; break-inside: avoid }
.legend span { display: inline-block; width: 1.5em; height: .2em; margin-right: .6em; vertical-align: middle }
use:hover { fill-opacity: .6 }
"""


def html_page(report: Report, folder: Path = Path()) -> str:
    """Return the page: what the runs are, a part for each data set, and the runs that did not finish.

    Args:
        report: the runs.
        folder: where the page is written, from which it links to the pages of the runs.
    """
    title = f"{report.subject}: {report.title}"
    parts = [f"<h1>{escape(title)}</h1>", facts_table(origin(report.entries))]
    for part in report.parts if report.configurations else ():
        if part is not report:
            parts.append(f"<h1>{escape(f'{part.subject}: {part.title}')}</h1>")
        parts += [
            leaderboard_section(part, folder),
            *comparison_sections(part),
            curves_section(part),
            *settings_sections(part),
        ]
    if report.not_finished:
        text = "These runs are not part of any mean."
        parts.append(f"<h2>Not finished</h2><p>{text}</p>{bullet_list(failure_lines(report))}")
    return document(title, "\n".join(parts), STYLE, SORTING)


def section(title: str, text: str, content: str) -> str:
    return f'<h2>{escape(title)}</h2><p>{escape(text)}</p><div class="scroll">{content}</div>'


def bullet_list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


# the leaderboard


def leaderboard_section(report: Report, folder: Path) -> str:
    names = ["", *report.metric_names, "n", *report.differing_settings, "train/seconds", "best run"]
    head = "".join(f'<th data-direction="">{escape(name)}</th>' for name in names)
    rows = "".join(
        leaderboard_row(report, place, configuration, folder)
        for place, configuration in enumerate(report.configurations, 1)
    )
    text = f"{report.ranking.capitalize()}; click a heading to sort."
    if report.has_several_seeds:
        text += f" Accuracy: {report.legend}."
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return section("Leaderboard", text, table) + bullet_list(notes_on_means(report))


def leaderboard_row(report: Report, place: int, configuration: Configuration, folder: Path) -> str:
    settings, runs = configuration.settings, len(configuration.entries)
    cells = [table_cell(place, place)]
    for metric in report.metric_names:
        statistics = configuration.statistics(metric)
        cells.append(table_cell(mean_and_interval(configuration, metric), statistics.mean if statistics else ""))
    cells.append(table_cell(configuration.size, runs))
    for name in report.differing_settings:
        value = setting_text(settings, name) if name in settings else ""
        cells.append(table_cell(rounded_text(settings.get(name, ABSENT)), value))
    seconds = configuration.statistics("train/seconds")
    cells.append(table_cell(seconds_text(seconds.mean), seconds.mean) if seconds else table_cell("", ""))
    best = escape(configuration.best.location)
    links = page_links(report, configuration, folder)
    return f'<tr>{"".join(cells)}<td class="folder" data-value="{best}">{best}{links}</td></tr>'


def page_links(report: Report, configuration: Configuration, folder: Path) -> str:
    """Return links from the page in a folder to those of a configuration's runs, where there are any."""
    links = [
        f'<a href="{escape(address(page, folder))}">{escape(report.display_name(entry))}</a>'
        for entry, page in ((entry, entry.folder / PAGE) for entry in configuration.entries)
        if page.is_file()
    ]
    return f"<br>{PAGE}: {', '.join(links)}" if links else ""


def address(page: Path, folder: Path) -> str:
    """Return the address of a file as a link in a page of a folder: relative, so that both can be moved together."""
    relative = os.path.relpath(page.resolve(), folder.resolve())
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def table_cell(text: object, sorted_by: str | float) -> str:
    """Return a cell that is sorted by another value than its text. "" and NaN are last in both directions."""
    if isinstance(sorted_by, str):
        return f'<td data-value="{escape(sorted_by)}">{escape(str(text))}</td>'
    value = "" if math.isnan(sorted_by) else str(sorted_by).replace("inf", "Infinity")  # as JavaScript writes it
    return f'<td class="number" data-value="{value}">{escape(str(text)).replace(" [", "<br>[")}</td>'


def numbered_labels(configurations: Sequence[Configuration], names: Sequence[str]) -> list[str]:
    """Return texts that distinguish configurations, each after its place."""
    texts = distinct_labels([configuration.settings for configuration in configurations], names)
    return [f"{place}: {text}" for place, text in enumerate(texts, 1)]


# the comparison of every configuration with every other one


def comparison_sections(report: Report) -> list[str]:
    """Return one matrix for each accuracy that at least two configurations have of several seeds."""
    sections = []
    for metric in ACCURACIES:
        pairs = comparisons(report.configurations, metric)
        tested = sum(comparison.p is not None for comparison in pairs.values())
        text = (
            f"Row minus column, and the p-value of Welch's t-test over the {report.repeats}, corrected by Holm's "
            f"method for {counted(tested, 'comparison')}. Bold: p is below {SIGNIFICANCE_LEVEL}, so that the "
            f"difference is more than the variation between {report.repeats} explains. The mouse shows in which "
            "settings two configurations differ, and the confidence interval and the p-value by themselves, as versus "
            "prints them."
        )
        if pairs:
            sections.append(section(f"Comparisons by {metric}", text, comparison_matrix(report, pairs)))
    return sections


def comparison_matrix(report: Report, pairs: Mapping[tuple[int, int], Comparison]) -> str:
    rows, columns = (sorted({pair[side] for pair in pairs}) for side in (0, 1))
    labels = numbered_labels(report.configurations[: max(columns)], report.differing_settings)
    head = "".join(f'<th title="{escape(labels[column - 1])}">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th class="label">{escape(labels[row - 1])}</th>'
        + "".join(comparison_cell(report, row, column, pairs.get((row, column))) for column in columns)
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"


def comparison_cell(report: Report, row: int, column: int, comparison: Comparison | None) -> str:
    """Return the cell of two configurations, which are given by their places from 1."""
    if comparison is None:
        return "<td></td>"
    compared = [report.configurations[place - 1].settings for place in (row, column)]
    pair = escape(" minus ".join(distinct_labels(compared, report.differing_settings)))
    difference = metric_text(comparison.difference.mean, "+")
    if comparison.p is None:
        return f'<td class="number" title="{pair}: no test applies">{difference}<br>no test</td>'
    low, high = (metric_text(bound, "+") for bound in comparison.difference[1:3])  # type: ignore[arg-type]
    hint = f"{pair}: {PERCENT} confidence interval {low} to {high}, p = {comparison.difference.p:.2g}"
    text = f"{difference}<br>p = {comparison.p:.2g}"
    text = f"<b>{text}</b>" if comparison.p < SIGNIFICANCE_LEVEL else text
    return f'<td class="number" title="{hint}">{text}</td>'


# the sections of figures


def curves_section(report: Report) -> str:
    best = report.configurations[:MAX_CURVES]
    labels = numbered_labels(best, report.differing_settings)
    figure = learning_curves(best, labels)
    if not figure:
        return ""
    text = f"The {MAX_CURVES} best configurations. " if len(report.configurations) > len(best) else ""
    text += f"Lines show the mean over the {report.repeats}, bands the range from the smallest to the largest value."
    if uneven := [str(place) for place, each in enumerate(best, 1) if has_uneven_curves(each)]:
        places = ", ".join(uneven)
        text += (
            f" The {report.repeats} of {places} have different epochs: thin lines show single {report.repeats}, and "
            f"the mean covers the epochs that all {report.repeats} have."
        )
    return section("Learning curves", text, figure)


def settings_sections(report: Report) -> list[str]:
    """Return the effect of each setting, and parallel coordinates if several settings have an effect to show."""
    if not report.metric_names:
        return []
    all_points = {name: effect_points(report, name) for name in report.differing_settings}
    points_by_setting = {name: points for name, points in all_points.items() if points}
    if not points_by_setting:
        return []
    metric_name = report.metric_names[0]
    text = "A dot is a run; the line shows the mean over all runs with the same value, whatever their other settings."
    panels = f'<div class="panels">{"".join(effect_panels(points_by_setting, metric_name))}</div>'
    sections = [section("Effect of each setting", text, panels)]
    if len(points_by_setting) > 1 and (figure := parallel_coordinates(report, list(points_by_setting))):
        text = f"Each line is a configuration, coloured by its mean {metric_name}."
        sections.append(section("Parallel coordinates", text, figure))
    return sections
