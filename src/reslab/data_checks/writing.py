"""The files of a look at a data set."""

from pathlib import Path

from reslab.data_checks.check import Check
from reslab.errors import UserError
from reslab.files import write_json

NUMBERS = "check.json"


def write_check(check: Check, output: str | Path) -> None:
    """Write the numbers.

    Args:
        check: what was found.
        output: the folder. It is made if it does not exist; earlier files of a look at a data set are replaced.

    Raises:
        UserError: a file cannot be written.
    """
    folder = Path(output)
    try:
        write_json(folder / NUMBERS, check.result)
    except OSError as error:
        raise UserError(f"output={folder} cannot be written: {error.strerror}") from error
