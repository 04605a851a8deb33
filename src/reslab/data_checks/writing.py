"""The files of a look at a data set."""

from pathlib import Path

from reslab.data.thumbnails import write_picture
from reslab.data_checks.check import Check
from reslab.data_checks.page import html_page, parts_of, shown_positions
from reslab.data_checks.pictures import available, chosen_of_classes, pictures_of, sheet
from reslab.errors import UserError
from reslab.files import write_json, write_text
from reslab.text import file_name

PAGE, NUMBERS, SHEETS = "index.html", "check.json", "classes"


def write_check(check: Check, output: str | Path) -> None:
    """Write the numbers, the page and a contact sheet of each class.

    Args:
        check: what was found.
        output: the folder. It is made if it does not exist; earlier files of a look at a data set are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    folder, parts = Path(output), parts_of(check)
    sheets = chosen_of_classes(check.images, check.facts)
    positions = {*shown_positions(parts), *(position for each in sheets for position in each)}
    pictures = pictures_of(check.images, sorted(positions))
    try:
        write_json(folder / NUMBERS, check.result)
        write_text(folder / PAGE, html_page(check, parts, sheets, pictures))
        for number, (name, each) in enumerate(zip(check.images.data.classes, sheets, strict=True)):
            write_picture(folder / SHEETS / file_name(number, name), sheet(available(pictures, each)))
    except OSError as error:
        raise UserError(f"output={folder} cannot be written: {error.strerror}") from error
