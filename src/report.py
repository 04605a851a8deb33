"""Compare finished runs and sweeps.

  python src/report.py outputs/multirun/2026-01-31_12-00-00            a sweep; or several, or runs, or folders of these
  python src/report.py outputs/resnet20-digits output=report           writes there, not where the runs lie
  python src/report.py outputs/resnet20-digits versus outputs/resnet32-digits

Prints a leaderboard, a row a configuration with mean, spread and confidence interval over its seeds, and writes
report.csv, runs.csv and report.html: a page with the table, learning curves and the effect of each parameter. They
come into the folder that is named, or into the one that holds all those named.
With `versus`: what differs between the runs before and after it, and whether that is more than the seeds' spread.
"""

import os
import signal
import sys
from pathlib import Path

from reslab.command import fail, replace_unprintable
from reslab.errors import UserError

FILES = ("report.html", "report.csv", "runs.csv")


def report(arguments: list[str]) -> None:
    from reslab.reports.leaderboard import print_report, read_report

    output = [argument.removeprefix("output=") for argument in arguments if argument.startswith("output=")]
    named = (Path(argument) for argument in arguments if not argument.startswith("output="))
    folders = [path for path in named if path.name not in FILES or path.is_dir()]  # a shell's * finds an earlier report
    if dashes := [argument for argument in arguments if argument.startswith("-")]:
        raise UserError(f"unrecognized argument {dashes[0]}: --help shows examples")
    if "" in output:
        raise UserError("output= must name a folder")
    if not folders:
        raise UserError("name a folder, e.g. python src/report.py outputs/multirun/2026-01-31_12-00-00")
    if Path("versus") in folders:
        if output:
            raise UserError(f"output={output[-1]}: versus prints its comparison and writes no file")
        compare(folders)
    else:
        place = Path(output[-1]) if output else holder(folders)
        found = read_report(folders)
        print_report(found)
        from reslab.reports.writing import write_report  # matplotlib, half a second after the table is on the terminal

        write_report(found, place)
        print(f"report: {place} ({', '.join(FILES)})")


def holder(folders: list[Path]) -> Path:
    """Of several, the folder that holds them: each may have a report of its own."""
    if len(folders) == 1:
        return folders[0]
    common = Path(os.path.commonpath([folder.absolute() for folder in folders]))
    if common == Path(common.anchor):
        raise UserError("these folders lie far apart: output=<folder> says where their report goes")
    return common


def compare(folders: list[Path]) -> None:
    from reslab.reports.comparison import print_comparison, read_side

    middle = folders.index(Path("versus"))
    before, after = folders[:middle], folders[middle + 1 :]
    if not before or not after or Path("versus") in after:
        raise UserError("versus stands between two groups of folders: python src/report.py A versus B")
    print_comparison(read_side("A", before), read_side("B", after))


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends this without a word
    replace_unprintable()
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(__doc__)
        else:
            report(sys.argv[1:])
        print(end="", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    except UserError as error:
        fail(error, "report")
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python writes what is left at its end, and tells of it
        fail(UserError(f"{error.filename or 'standard output'}: {error.strerror}"), "report")
