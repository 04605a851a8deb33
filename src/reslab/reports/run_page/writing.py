"""The file run.html of a run."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from reslab.errors import UserError
from reslab.files import write_text
from reslab.reports.entries import Entry, read_entry
from reslab.run import PAGE, UNREADABLE, Run
from reslab.text import printable

if TYPE_CHECKING:
    from reslab.reports.run_page.sections import ShownTest

log = logging.getLogger(__name__)


def write_run_page(run: Run, folder: Path | None = None) -> Path:
    """Write the page of a run, and return its path.

    Args:
        run: the run. A test's pictures are read again from its data set, where that is still in place.
        folder: where to write the page; None for the folder of the run.

    Raises:
        UserError: a file of the run cannot be read, its answers are not those of its result, or the page cannot be
            written.
    """
    entry = read_entry(run)
    if entry.result["status"] == UNREADABLE:
        raise UserError(f"{entry.location}: {entry.failure}")
    page = (run.folder if folder is None else folder) / PAGE
    content = page_of(run, entry)
    try:
        write_text(page, content)
    except OSError as error:
        raise UserError(f"the report cannot be written into {page.parent}: {error.strerror}") from error
    return page


def page_of(run: Run, entry: Entry) -> str:
    """Return the page of a run."""
    from reslab.reports.run_page.page import html_page  # Matplotlib

    if not entry.has_ended or "test/accuracy" not in entry.result:
        return html_page(entry, None, "" if not entry.has_ended else "The run was not tested.")
    if not run.answers_file.exists():
        return html_page(
            entry,
            None,
            f"There is no {run.answers_file.name}, which older versions did not write and which a test of very many "
            "images and classes leaves out, so that this page shows nothing of single images.",
        )
    from reslab.reports.run_page.gallery import choose  # torch
    from reslab.reports.run_page.pictures import reason_of
    from reslab.reports.run_page.sections import ShownTest, test_parts
    from reslab.reports.run_page.tested import AnsweredTest, require_same_test
    from reslab.training.answers import read_answers

    answers, step = read_answers(run.answers_file)
    require_same_test(answers, step, entry.result)
    shown = ShownTest(AnsweredTest(answers, entry.result), choose(answers))
    try:
        add_pictures(shown, run, step)
    except Exception as error:  # a data set may raise anything, and the rest of the page does not need it
        shown.no_pictures = printable(reason_of(error))
    return html_page(entry, test_parts(shown), "")


def add_pictures(shown: "ShownTest", run: Run, step: int) -> None:
    """Add the pictures of the images, and of the mistakes what the network looked at."""
    from reslab.reports.run_page.overlays import overlays_of
    from reslab.reports.run_page.pictures import pictures_of, reason_of, sources_in, test_data
    from reslab.training.checkpoints import read_checkpoint

    answers, chosen = shown.tested.answers, shown.chosen
    checkpoint = read_checkpoint(run.chosen_checkpoint()[0])
    sources = sources_in(test_data(run, checkpoint, root=None), answers, chosen.all)
    shown.pictures = pictures_of(sources)
    mistakes = {each: sources.images[each] for each in chosen.mistakes if each in shown.pictures}
    try:
        shown.overlays = overlays_of(run, checkpoint, step, answers, mistakes)
    except Exception as error:  # the network may be a class of the user's own, with any layers
        log.debug("without what the network looked at: %s", reason_of(error), exc_info=error)
