"""Measure ResLab on an NVIDIA GPU: `make gpu`.

    python benchmarks/gpu.py [tests] [speed] [recipes] [fidelity] [disk] [--minutes 7.5] [--seeds 3] [--again]
    python benchmarks/gpu.py --table                            the tables of benchmarks/README.md, from the results
    python benchmarks/gpu.py --dry --results /tmp/dry           every row, tiny and on the CPU, to try the program

tests      the tests that need a GPU (tests/gpu)
speed      milliseconds of a step, host and GPU, epochs and start, against plain PyTorch loops
recipes    accuracy and seconds of the recipes in conf/experiment that are meant for seconds or minutes
fidelity   published results; a run continues over several calls
disk       JPEG files at 224x224 against a plain loop on images in memory

Each row is written to benchmarks/results/gpu_<part>.json as soon as it is measured. A later call continues with the
rows that the files do not have for this card and this source. Data sets are looked for in RESLAB_SHARED_DATA,
../shared/data and shared/data.
"""

import argparse
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from gpu_data import ROOT, MissingDataError
from gpu_results import FAILED, MEASURED, MISSING, UNFINISHED, Record, Results, card_and_driver, origin, table
from gpu_rows import PARTS, Row, rows_of
from gpu_runs import Machine, OutOfTimeError, RowError

RESULTS = ROOT / "benchmarks" / "results"


def measure_part(part: str, rows: list[Row], machine: Machine, results: Results, place: Record, again: bool) -> bool:
    """Measure the rows that are left, and return whether the time sufficed."""
    for row in rows:
        if not again and results.has(row, place["card"], place["source"], MEASURED, FAILED):
            continue
        if machine.seconds_left < row.seconds:
            print(f"{part}: {row.name} takes about {row.seconds:.0f} s, and {machine.seconds_left:.0f} s are left")
            return False
        record = measure_row(row, machine) | place
        results.add(record)
        print(f"{part}: {row.name}: {describe(record)} ({record['seconds']} s)", flush=True)
    return True


def measure_row(row: Row, machine: Machine) -> Record:
    """Return the row's values, or its status and the reason why there are none."""
    machine.commands.clear()
    start = time.monotonic()
    record: Record = {"name": row.name, "subject": row.subject, "program": row.program}
    try:
        record |= {"status": MEASURED, "values": row.measure(machine)}
    except MissingDataError as error:
        record |= {"status": MISSING, "error": f"{error} is missing"}
    except OutOfTimeError as error:
        record |= {"status": UNFINISHED, "error": str(error)}
    except Exception as error:  # the next row may work
        line = str(error) if isinstance(error, RowError) else f"{type(error).__name__}: {error}"
        record |= {"status": FAILED, "error": " ".join(line.split())}
    commands = " && ".join(machine.commands).replace(f"{ROOT}/", "").replace(str(machine.work), "WORK")
    return record | {"command": commands, "seconds": round(time.monotonic() - start, 1), "date": time.strftime("%F %R")}


def describe(record: Record) -> str:
    if record["status"] != MEASURED:
        return f"{record['status']}: {record['error']}"
    shown = {name: round(value, 4) if isinstance(value, float) else value for name, value in record["values"].items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "parts", nargs="*", metavar="part", help="tests, speed, recipes, fidelity, disk; all by default"
    )
    parser.add_argument("--minutes", type=float, default=7.5, help="how long this call may take")
    parser.add_argument(
        "--seeds", type=int, default=1, help="measure recipes and fidelity with the seeds 1 to this number"
    )
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows whose name contains this")
    parser.add_argument("--again", action="store_true", help="measure rows again that the results have")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="benchmarks/results")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "outputs" / "gpu", help="unpacked data, and unfinished runs"
    )
    parser.add_argument("--dry", action="store_true", help="try every row on the CPU; needs --results")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    if options.dry and options.results.resolve() == RESULTS.resolve():
        parser.error("--dry needs --results: what it measures is no result")
    return options


def main() -> int:
    options = parse_arguments()
    if options.table:
        print(table(options.results))
        return 0
    card = ("CPU", None) if options.dry else card_and_driver()
    if card is None:
        print("error: nvidia-smi finds no GPU; --dry --results FOLDER tries every row on the CPU", file=sys.stderr)
        return 2
    place, has_failed = origin(*card), False
    work = options.results / "work" if options.dry else options.work
    machine = Machine(work, time.monotonic() + 60 * options.minutes, options.dry)
    for part in options.parts or PARTS:
        results = Results(options.results, part)
        rows = [row for row in rows_of(part, range(1, options.seeds + 1)) if options.rows in row.name]
        sufficed = measure_part(part, rows, machine, results, place, options.again)
        has_failed |= any(results.has(row, place["card"], place["source"], FAILED) for row in rows)
        if not sufficed:
            break
    return int(has_failed)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
