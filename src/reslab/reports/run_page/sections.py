"""The parts of run.html that need the answers to single images."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from reslab.data.thumbnails import SIDE, encoded, is_tiny
from reslab.drawing import shortened
from reslab.pages import data_uri, text
from reslab.reports.configurations import metric_text
from reslab.reports.run_page.figures import reliability
from reslab.reports.run_page.gallery import MAX_PICTURES, Chosen
from reslab.reports.run_page.metrics import MEANINGS, interval_text
from reslab.reports.run_page.page import TestParts
from reslab.reports.run_page.resampling import Interval, resamples_of
from reslab.reports.run_page.tested import AnsweredTest, ClassScores
from reslab.reports.statistics import PERCENT
from reslab.text import visible

MAX_MATRIX = 40  # classes of a confusion matrix that is read cell by cell
NAME_COLUMNS = 48  # of the name of a class or a file below a picture; the mouse shows the whole name
MOST_TIES = 3  # classes that another one is equally often mistaken for, in the table of classes
MAX_PAIRS = 1000  # in the table of more classes
NUMBERS = ("images", "precision", "recall", "F1")  # of a class


@dataclass
class ShownTest:
    """The test of a run, as its page shows it.

    Attributes:
        tested: the answers and the result.
        chosen: the images that are shown.
        pictures: of these images, as far as they could be read.
        no_pictures: why there are none; "" if there are.
        overlays: what the network looked at, of mistakes.
    """

    tested: AnsweredTest
    chosen: Chosen
    pictures: Mapping[int, Image.Image] = field(default_factory=dict)
    no_pictures: str = ""
    overlays: Mapping[int, Image.Image] = field(default_factory=dict)


def metrics_section(tested: AnsweredTest) -> Iterator[str]:
    """Yield the metrics with their intervals, and what these mean."""
    answers, n = tested.answers, len(tested.answers)
    rows = []
    for name, value, interval, method in tested.metrics():
        bounds = f"{interval_text(interval)} <small>{text(method)}</small>" if interval else "none"
        if name == "test/calibration_error" and math.isfinite(value):
            limit = metric_text(tested.calibrated_limit())
            bounds = f'<span class="quiet meaning">a perfectly calibrated network: up to {limit}</span>'
        rows.append(
            f'<tr><td>{text(name)}<span class="quiet meaning">{text(MEANINGS[name])}</span></td>'
            f'<td class="number">{metric_text(value)}</td><td>{bounds}</td></tr>'
        )
    head = f'<tr><th>metric</th><th class="number">value</th><th>{PERCENT} interval</th></tr>'
    resamples = resamples_of(n)
    yield "<h2>Test</h2>"
    table = f'<table class="metrics"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    yield f'<div class="scroll">{table}</div>'
    of = tested.result.get("test/images_available", n)
    part = f" of {of:,.0f}" if of != n else ""
    yield (
        f'<p class="quiet">{n:,}{part} test images, {int(answers.right.sum()):,} right. An interval says where the '
        "metric of the same network would be with other images of this kind. Wilson: the score interval of a "
        "proportion, which is no single point where all images are right either. Bootstrap: the "
        f"percentiles of the metric in {resamples:,} resamples of the {n:,} images, drawn with a fixed seed, and the "
        "same percentiles moved so that the mean of the resamples is the metric itself; the interval reaches from the "
        "lowest to the highest of these bounds. The calibration "
        f"error is not resampled, which would make it larger; instead, {resamples:,} draws show how large it would be "
        f"by chance in {PERCENT} of such tests.</p>"
    )


def test_parts(test: ShownTest) -> TestParts:
    """Return what the page shows of a test."""
    return TestParts("\n".join(metrics_section(test.tested)), "\n".join(image_sections(test)), page_data(test))


def image_sections(test: ShownTest) -> Iterator[str]:
    tested = test.tested
    if len(tested.answers.classes) <= MAX_MATRIX:
        yield from matrix_section(tested)
    else:
        yield from pairs_section(tested)
    yield '<div id="cell" class="cell"></div>'
    yield from gallery_section(test, "Most confident mistakes", test.chosen.mistakes, "the network made no mistake")
    yield from gallery_section(test, "Least confident right answers", test.chosen.doubtful, "no answer is right")
    yield from classes_section(tested)
    yield from calibration_section(tested)


def matrix_section(tested: AnsweredTest) -> Iterator[str]:
    names = tested.answers.classes
    matrix = tested.confusion.matrix().tolist()
    head = "".join(
        f'<th data-column="{number}" title="{text(name)}"><span>{text(name)}</span></th>'
        for number, name in enumerate(names)
    )
    rows = []
    for true, counts in enumerate(matrix):
        images = sum(counts)
        cells = "".join(matrix_cell(names, true, predicted, count, images) for predicted, count in enumerate(counts))
        label = f'<th title="{text(names[true])}"><span><bdi>{text(names[true])}</bdi></span></th>'
        rows.append(f'<tr data-row="{true}">{label}{cells}</tr>')
    yield "<h2>Confusion matrix</h2>"
    yield '<p class="quiet">A row is a true class, a column a predicted one. A cell opens its images.</p>'
    yield (
        '<div class="scroll"><table class="matrix"><thead><tr><th class="quiet">true \\ predicted</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def matrix_cell(names: Sequence[str], true: int, predicted: int, count: int, images: int) -> str:
    """Return a cell of the confusion matrix, coloured by its share of the images of the true class."""
    kind = ' class="right"' if true == predicted else ""
    if not count:
        return f'<td data-column="{predicted}"{kind}></td>'
    share = count / images
    alpha = 0.75 * share if true == predicted else min(0.75, 0.1 + 1.5 * share)  # a rare mistake is seen too
    hint = f"true {names[true]}, predicted {names[predicted]}: {count} of {images} ({share:.1%})"
    return (
        f'<td data-column="{predicted}" data-cell="{true}-{predicted}"{kind} style="--share: {alpha:.3f}">'
        f'<a href="#cell={true}-{predicted}" title="{text(hint)}" data-count="{count}" data-percent="{share:.0%}">'
        f"{count}</a></td>"
    )


def pairs_section(tested: AnsweredTest) -> Iterator[str]:
    """Yield the most confused pairs of classes, where there are too many for a matrix."""
    names, pairs = tested.answers.classes, tested.mistaken_pairs()
    images = tested.confusion.by_true_class().tolist()
    yield "<h2>Most confused classes</h2>"
    if not pairs:
        yield "<p>The network made no mistake.</p>"
        return
    rows = (
        f'<tr><td class="name" data-value="{text(names[true])}"><bdi>{text(names[true])}</bdi></td>'
        f'<td class="name" data-value="{text(names[predicted])}"><bdi>{text(names[predicted])}</bdi></td>'
        f'<td class="number" data-value="{count}" data-cell="{true}-{predicted}">'
        f'<a href="#cell={true}-{predicted}">{count}</a></td>'
        f'<td class="number" data-value="{count / images[true]}">{count / images[true]:.1%}</td></tr>'
        for true, predicted, count in pairs[:MAX_PAIRS]
    )
    shown_of = f"The {MAX_PAIRS:,} most frequent of {len(pairs):,}" if len(pairs) > MAX_PAIRS else f"All {len(pairs):,}"
    head = sortable_head({"true": "", "predicted": "", "images": "number", "of the true class": "number"})
    yield f'<p class="quiet">{shown_of} pairs of a true and another predicted class. A number opens its images.</p>'
    yield f'<div class="scroll"><table data-searched="classes">{head}<tbody>{"".join(rows)}</tbody></table></div>'


def sortable_head(names: Mapping[str, str]) -> str:
    """Return the headings of a table that is sorted by a click, each with the class of its column."""
    cells = "".join(f'<th data-direction="" class="{kind}">{text(name)}</th>' for name, kind in names.items())
    return f"<thead><tr>{cells}</tr></thead>"


def gallery_section(test: ShownTest, title: str, positions: Sequence[int], none: str) -> Iterator[str]:
    yield f"<h2>{text(title)}</h2>"
    if test.no_pictures and positions:
        yield f'<p class="quiet">without pictures: {text(test.no_pictures)}</p>'
    if any(position in test.overlays for position in positions):
        yield '<input type="checkbox" id="heat"> <label for="heat">show what the network looked at (Grad-CAM)</label>'
    figures = "".join(figure(test, position) for position in positions)
    yield f'<div class="pictures">{figures}</div>' if figures else f"<p>{text(none[0].upper() + none[1:])}.</p>"


def figure(test: ShownTest, position: int) -> str:
    picture = test.pictures.get(position)
    name = test.tested.answers.names[position]
    frame = image_tag(picture, text(name), position) if picture else '<span class="quiet">no picture</span>'
    if picture and position in test.overlays:
        width, height = displayed_size(picture)
        source = data_uri(encoded(test.overlays[position]))
        frame += f'<img class="heat" width="{width}" height="{height}" alt="what the network looked at" src="{source}">'
    lines = "<br>".join(
        f"{word} <bdi>{text(short)}</bdi> ({percent})" for word, short, percent in caption(test.tested, position)
    )
    return (
        f'<figure><div class="frame">{frame}</div><figcaption title="{text(name)}">{lines}<br>'
        f'<span class="quiet"><bdi>{text(brief(name))}</bdi></span></figcaption></figure>'
    )


def caption(tested: AnsweredTest, position: int) -> list[tuple[str, str, str]]:
    """Return the true class of an image and, if it is another one, the predicted class, with their probabilities."""
    answers = tested.answers
    true, predicted = int(answers.labels[position]), int(answers.predicted[position])
    lines = {"true": true} | ({} if true == predicted else {"answer": predicted})
    return [
        (word, brief(answers.classes[each]), f"{float(answers.probabilities[position, each]):.1%}")
        for word, each in lines.items()
    ]


def brief(name: str) -> str:
    return shortened(visible(name), NAME_COLUMNS)


def displayed_size(picture: Image.Image) -> tuple[int, int]:
    """Return a picture's size on the page: the longer side near `SIDE`, and tiny pixels as equal squares."""
    factor = SIDE / max(picture.size)
    factor = math.floor(factor) if factor >= 2 else factor
    return max(1, round(picture.width * factor)), max(1, round(picture.height * factor))


def image_tag(picture: Image.Image, name: str, position: int) -> str:
    """Return the tag of a picture that holds its file. `name` is escaped already."""
    width, height = displayed_size(picture)
    kind = ' class="tiny"' if is_tiny(picture) else ""
    return (
        f'<img{kind} width="{width}" height="{height}" alt="{name}" title="{name}" data-image="{position}" '
        f'src="{data_uri(encoded(picture))}">'
    )


def classes_section(tested: AnsweredTest) -> Iterator[str]:
    rows = "".join(class_row(tested, scores) for scores in tested.class_scores())
    head = sortable_head({"class": ""} | dict.fromkeys(NUMBERS, "number") | {"most often taken for": ""})
    yield "<h2>Classes</h2>"
    yield (
        '<p class="quiet">Precision: of the images predicted as a class, those that are of it. Recall: of the images '
        f"of a class, those predicted as it. Below each its {PERCENT} interval: Wilson's, of F1 the bootstrap's, which "
        "has none where all resamples have the same score.</p>"
    )
    searched = ' data-searched="classes"' if len(tested.answers.classes) > MAX_MATRIX else ""
    yield f'<div class="scroll"><table{searched}>{head}<tbody>{rows}</tbody></table></div>'


def class_row(tested: AnsweredTest, scores: ClassScores) -> str:
    names = tested.answers.classes
    name = text(names[scores.number])
    cells = [
        f'<td class="name" data-value="{name}"><bdi>{name}</bdi></td>',
        f'<td class="number" data-value="{scores.images}">'
        f'<a href="#cell={scores.number}-{scores.number}" title="those that are right">{scores.images:,}</a></td>',
        score_cell(scores.precision, scores.precision_interval),
        score_cell(scores.recall, scores.recall_interval),
        score_cell(scores.f1, scores.f1_interval),
    ]
    if scores.taken_for is None:
        cells.append('<td data-value=""></td>')
    else:
        others, count = scores.taken_for
        shown = ", ".join(
            f'<bdi>{text(names[other])}</bdi> (<a href="#cell={scores.number}-{other}">{count:,}</a>)'
            for other in others[:MOST_TIES]
        )
        more = f" and {len(others) - MOST_TIES} more" if len(others) > MOST_TIES else ""
        cells.append(f'<td class="name" data-value="{text(names[others[0]])}">{shown}{more}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def score_cell(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return '<td class="number" data-value="">none</td>'
    bounds = f"<br><small>{interval_text(interval)}</small>" if interval else ""
    return f'<td class="number" data-value="{value}">{metric_text(value)}{bounds}</td>'


def calibration_section(tested: AnsweredTest) -> Iterator[str]:
    yield "<h2>Calibration</h2>"
    yield (
        '<p class="quiet">Of the images of a confidence, as many should be right: on the dashed line. Bars below it: '
        f"the network is too confident. Lines show {PERCENT} intervals. The mean distance over the images of the "
        f"{len(tested.bins)} bins is the calibration error, {metric_text(tested.result['test/calibration_error'])}.</p>"
        if "test/calibration_error" in tested.result
        else ""
    )
    yield f'<div class="figures">{reliability(tested.bins)}</div>'


def page_data(test: ShownTest) -> dict[str, Any]:
    """Return what the script needs: the classes, the counts of the cells, and the images that are shown."""
    tested, answers = test.tested, test.tested.answers
    confusion = tested.confusion
    pairs = list(zip(confusion.true.tolist(), confusion.predicted.tolist(), confusion.counts.tolist(), strict=True))
    in_page = {*test.chosen.mistakes, *test.chosen.doubtful}
    names = answers.names
    images, pictures = [], {}
    for position in test.chosen.all:
        picture = test.pictures.get(position)
        size = (*displayed_size(picture), is_tiny(picture)) if picture else None
        true, predicted = int(answers.labels[position]), int(answers.predicted[position])
        name = visible(names[position])
        lines = caption(tested, position)
        images.append([position, true, predicted, lines, name, brief(name), size])
        if picture and position not in in_page:
            pictures[position] = data_uri(encoded(picture))
    mistakes = (confusion.by_true_class() - confusion.right()).tolist()
    return {
        "classes": [visible(name) for name in answers.classes],
        "mistakes": mistakes,
        "counts": {f"{true}-{predicted}": count for true, predicted, count in pairs},
        "images": images,
        "pictures": pictures,
        "limit": f"a page has at most {MAX_PICTURES} pictures: those of its galleries, then the worst of each cell of "
        "mistakes, the largest loss first, then others",
    }
