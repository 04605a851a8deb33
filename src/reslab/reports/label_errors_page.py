"""suspects.csv and suspects.html: images whose label may be wrong."""

import logging
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from reslab.data.thumbnails import encoded, thumbnail
from reslab.files import output_errors, write_csv, write_text
from reslab.pages import data_uri, document, text
from reslab.reports.label_errors import Fold, Suspect, Suspects
from reslab.reports.run_page.pictures import pictures_of, read_sources, reason_of, sources_in
from reslab.text import counted

log = logging.getLogger(__name__)

TABLE, PAGE = "suspects.csv", "suspects.html"
COLUMNS = ("path", "given", "suggested", "given_probability", "suggested_probability")
MOST_SHOWN = 500
STYLE = """
.suspects { display: flex; flex-wrap: wrap; gap: 1em .8em; margin-top: 1em } figure { width: 9em }
figure div { height: 96px; display: flex; align-items: center; justify-content: center; background: var(--card) }
figure img { max-width: 100% } .given { color: var(--worst) }
"""
Pictures = dict[tuple[int, int], Image.Image]  # by the fold and the position


def write_suspects(folds: Sequence[Fold], suspects: Suspects, output: Path, root: str | None = None) -> None:
    """Write the list, and a page with the pictures of the first ones.

    Args:
        folds: the folds of the cross-validation.
        suspects: what to write.
        output: the folder. It is made if it does not exist.
        root: the folder of their data set, if it has moved.

    Raises:
        UserError: a file cannot be written.
    """
    classes = folds[0].answers.classes
    names = [fold.names for fold in folds]
    rows = [
        (
            names[each.fold][each.position],
            classes[each.given],
            classes[each.suggested],
            each.given_probability,
            each.suggested_probability,
        )
        for each in suspects.ranked
    ]
    pictures = read_all_pictures(folds, suspects.ranked[:MOST_SHOWN], root)
    with output_errors(output):
        write_csv(output / TABLE, [dict(zip(COLUMNS, row, strict=True)) for row in rows], COLUMNS)
        write_text(output / PAGE, html_page(folds, suspects, pictures))


def read_all_pictures(folds: Sequence[Fold], suspects: Sequence[Suspect], root: str | None = None) -> Pictures:
    """Return the pictures of images that can still be read. A line says why others cannot."""
    pictures: Pictures = {}
    for number, fold in enumerate(folds):
        positions = [each.position for each in suspects if each.fold == number]
        try:
            if not positions:
                continue
            if fold.data is None:
                sources = read_sources(fold.run, fold.answers, positions, root)
            else:
                sources = sources_in(fold.data, fold.answers, positions)
            found = pictures_of(sources)
        except Exception as error:  # a data set may raise anything, and the list does not need it
            log.warning("%s shows no pictures of %s: %s", PAGE, fold.run.folder, reason_of(error))
            continue
        pictures |= {(number, position): thumbnail(picture) for position, picture in found.items()}
    return pictures


def html_page(folds: Sequence[Fold], suspects: Suspects, pictures: Pictures) -> str:
    """Return the page."""
    shown = suspects.ranked[:MOST_SHOWN]
    more = f" The first {len(shown)} are shown; {TABLE} has all." if len(suspects.ranked) > len(shown) else ""
    explained = (
        f"Each image was judged by networks of {counted(len(folds), 'fold')} that were not trained on it. These are "
        "the images whose most probable class is another one than their label. The least probable label comes first, "
        f"with its probability; below it, the most probable class.{more}"
    )
    figures = "".join(figure(folds, each, pictures.get((each.fold, each.position))) for each in shown)
    title = summary(folds, suspects)
    body = f'<h1>{text(title)}</h1>\n<p class="quiet">{text(explained)}</p>\n<div class="suspects">{figures}</div>'
    return document(title, body, STYLE)


def summary(folds: Sequence[Fold], suspects: Suspects) -> str:
    images = sum(len(fold.answers) for fold in folds)
    estimate = f"; about {suspects.estimate:,} of {images:,} labels are estimated to be wrong"
    return f"{counted(len(suspects.ranked), 'suspect')}{estimate}"


def figure(folds: Sequence[Fold], suspect: Suspect, picture: Image.Image | None) -> str:
    fold = folds[suspect.fold]
    name = text(fold.names[suspect.position])
    given, suggested = (text(fold.answers.classes[number]) for number in (suspect.given, suspect.suggested))
    image = f'<img alt="{name}" src="{data_uri(encoded(picture))}">' if picture is not None else ""
    lines = (
        f'<span class="given">{given}</span> {suspect.given_probability:.1%}',
        f"<b>{suggested}</b> {suspect.suggested_probability:.1%}",
        name,
    )
    return f'<figure title="{name}"><div>{image}</div>{"<br>".join(lines)}</figure>'
