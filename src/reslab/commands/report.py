"""The command `report`: show a run, and compare finished runs and sweeps."""

import os
import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from mimetypes import guess_type
from pathlib import Path
from typing import NoReturn

from reslab.commands.entry import errors_as_one_line
from reslab.commands.help import version_text
from reslab.commands.output import lasting_streams
from reslab.errors import UserError, option_line
from reslab.interruption import signals
from reslab.newest import folder_of_runs, is_latest, located, newest_first, not_found, refuse_zoo
from reslab.run import PAGE, UNREADABLE, Run
from reslab.sweeps.folder import Sweep
from reslab.text import printable

HELP = """\
Show a run, or compare finished runs and sweeps.

  python src/report.py latest                      the newest run or sweep
  python src/report.py outputs/resnet20-digits/2026-01-31_12-00-00    one run
  python src/report.py outputs/multirun/2026-01-31_12-00-00
  python src/report.py outputs/resnet20-digits outputs/resnet32-digits
  python src/report.py outputs/resnet20-digits output=report     write it there
  python src/report.py outputs/resnet20-digits output=curves.png
  python src/report.py outputs/resnet20-digits versus outputs/resnet32-digits

Prints a leaderboard, one row per configuration with mean, spread and confidence
interval over its seeds, and writes report.csv, runs.csv and report.html: a page
with the table, learning curves and the effect of each parameter. They are
written into the named folder, or into the one that holds all named folders.
Of the folder of one run it writes run.html instead: the metrics of the test
with confidence intervals, which classes are confused, and the mistakes as
pictures. With output=<name>.png, .svg or .pdf it writes the learning curves.
`versus` shows what differs between the runs before and after it, and whether
the accuracy differs by more than the spread over seeds.
"""  # not the docstring of this module, which python -OO removes
VERSUS = Path("versus")
PICTURES = (".png", ".svg", ".pdf")
LIKE_VERSUS = ("vs", "vs.", "v", "against", "and")  # what it is often called


class Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: the only option is output=<folder or file>; --help shows examples")


def main() -> None:
    parser = Parser("report", description=HELP, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--version", action="version", version=version_text())
    parser.add_argument("folders", nargs="*", metavar="folder | output=folder or picture | versus")
    with errors_as_one_line("report"):
        signals.listen()
        with lasting_streams():
            try:
                report(parser.parse_args().folders)
            except OSError as error:
                raise UserError(f"{error.filename}: {error.strerror}") from error


def report(arguments: list[str]) -> None:
    """Print and write the report that the arguments ask for. Raises UserError."""
    from reslab.reports.leaderboard import read_report
    from reslab.reports.run_page.writing import write_run_page
    from reslab.reports.terminal import print_report
    from reslab.reports.writing import FILES, write_report

    outputs = [argument.removeprefix("output=") for argument in arguments if argument.startswith("output=")]
    named = (folder_of(argument) for argument in arguments if not argument.startswith("output="))
    old = (*FILES, PAGE)  # which a shell's * finds
    folders = [path for path in named if path.name not in old or path.is_dir()]
    refuse_other_words(folders)
    if "" in outputs:
        raise UserError("output= must name a folder")
    if not folders:
        raise UserError("name a folder, e.g. python src/report.py outputs/multirun/2026-01-31_12-00-00")
    if VERSUS in folders:
        if outputs:
            raise UserError(f"output={outputs[-1]}: versus prints its comparison and writes no file")
        compare(folders)
        return
    place = Path(os.path.expanduser(outputs[-1])) if outputs else common_folder(folders)
    refuse_zoo(place, "output=<folder> writes the report elsewhere, and a network's README.md is its card")
    draws = bool(outputs) and is_picture(place)
    is_page = len(folders) == 1 and not draws and Run(folders[0]).hydra_folder.is_dir()
    found = read_report(folders)
    if not (is_page and found.entries[0].result["status"] == UNREADABLE):  # `write_run_page` says that
        print_report(found)
    if draws:
        from reslab.reports.curves_picture import write_curves

        write_curves(found, place)
        print(f"learning curves: {printable(place)}")
        return
    if is_page:
        print(f"report: {printable(write_run_page(Run(folders[0]), place))}")
        return
    write_report(found, place)
    print(f"report: {printable(place)} ({', '.join(FILES)})")


def is_picture(place: Path) -> bool:
    """Return whether a picture is asked for instead of a folder. Raise UserError for one of another kind."""
    kind = guess_type(place.name)[0] or ""
    if place.is_dir() or not (kind.startswith("image/") or place.suffix.lower() in PICTURES):
        return False
    if place.suffix.lower() not in PICTURES:
        raise UserError(f"output={printable(place)}: the learning curves are a .png, .svg or .pdf file")
    return True


def refuse_other_words(folders: list[Path]) -> None:
    """Raise UserError for a word that is no folder and is meant for another one."""
    for word in (str(folder) for folder in folders if not os.path.lexists(folder)):
        if word.lower() in LIKE_VERSUS:
            raise UserError(
                f"{word}: the word between two groups of folders is versus: python src/report.py A versus B"
            )
        if option := re.match(r"(\w+)=", word):
            raise UserError(option_line(option[1], ["output"]))


def folder_of(argument: str, sweeps_only: bool = False) -> Path:
    """Return the folder that an argument names; `latest` is that of the newest run with a result, or sweep."""
    if not is_latest(argument):
        return Path(os.path.expanduser(located(argument)))
    if not (newest := newest_first(folder_of_runs(argument))):
        raise UserError(not_found(argument))
    with_result = (
        each for each in newest if Sweep(each).exists or (not sweeps_only and Run(each).result_file.exists())
    )
    found = next(with_result, newest[0])
    kind = "sweep" if sweeps_only else "sweep, or run with a result,"
    print(f"{argument}: the newest {kind} is {printable(found)}")
    return found


def common_folder(folders: list[Path]) -> Path:
    """Return the only folder, or the one that holds all: each of several may have a report of its own."""
    if len(folders) == 1:
        return folders[0]
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    if common == Path(common.anchor):
        raise UserError("these folders have no common parent but the root: name one with output=<folder>")
    return common


def compare(folders: list[Path]) -> None:
    from reslab.reports.comparison import print_comparison, read_side, refuse_shared_runs

    middle = folders.index(VERSUS)
    before, after = folders[:middle], folders[middle + 1 :]
    if not before or not after or VERSUS in after:
        raise UserError("versus stands between two groups of folders: python src/report.py A versus B")
    sides = read_side("A", before), read_side("B", after)
    refuse_shared_runs(*sides)
    print_comparison(*sides)


if __name__ == "__main__":
    main()
