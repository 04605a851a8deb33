"""Compare finished runs and sweeps.

  python src/report.py outputs/multirun/2026-01-31_12-00-00            a sweep; or several, or runs, or folders of these
  python src/report.py outputs/resnet20-digits output=report           writes into another folder than the first one
  python src/report.py outputs/resnet20-digits versus outputs/resnet32-digits

Prints a leaderboard, a row a configuration with mean, spread and confidence interval over its seeds, and writes
report.csv, runs.csv and report.html: a page with the table, learning curves and the effect of each parameter.
With `versus`: what differs between the runs before and after it, and whether that is more than the seeds' spread.
"""

import sys
from pathlib import Path

from reslab.command import fail
from reslab.errors import UserError


def report(arguments: list[str]) -> None:
    from reslab.reports.leaderboard import print_report, read_report

    output = [argument.removeprefix("output=") for argument in arguments if argument.startswith("output=")]
    folders = [Path(argument) for argument in arguments if not argument.startswith("output=")]
    if dashes := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"unrecognized argument {dashes[0]}: --help shows examples")
    if not folders:
        raise UserError("name a folder, e.g. python src/report.py outputs/multirun/2026-01-31_12-00-00")
    if Path("versus") in folders:
        if output:
            raise UserError(f"output={output[-1]}: versus prints its comparison and writes no file")
        compare(folders)
    else:
        found = read_report(folders)
        print_report(found)
        place = Path(output[-1]) if output else folders[0]
        from reslab.reports.writing import write_report  # matplotlib, half a second after the table is on the terminal

        write_report(found, place)
        print(f"report: {place} (report.html, report.csv, runs.csv)")


def compare(folders: list[Path]) -> None:
    from reslab.reports.comparison import print_comparison, read_side

    middle = folders.index(Path("versus"))
    before, after = folders[:middle], folders[middle + 1 :]
    if not before or not after or Path("versus") in after:
        raise UserError("versus stands between two groups of folders: python src/report.py A versus B")
    print_comparison(read_side("A", before), read_side("B", after))


if __name__ == "__main__":
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit()
    try:
        report(sys.argv[1:])
    except UserError as error:
        fail(error, "report")
