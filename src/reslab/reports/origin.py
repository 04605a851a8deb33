"""Where the runs of a report come from: the commands, when they ended, and the commits, devices and versions."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from reslab.configuration import flatten, name_of, shown
from reslab.reports.entries import Entry
from reslab.run import SETTINGS_ERRORS, SWEEP_FILE, Result, Run, sweep_arguments
from reslab.text import for_shell, printable

PROVENANCE = ("device", "precision", "git_commit", "versions")  # names in a result; they may explain a difference too
OF_A_CPU = ("processor", "threads")  # decide how a CPU rounds; a GPU's results do not depend on them
LEFT_OUT = ("hydra.mode", "hydra.run.dir", "hydra.sweep.dir")  # -m says the first; another run has another folder
MAX_COMMANDS = 5  # in a report; more would push its table out of sight


def origin(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return what a reader must know to judge and to repeat the runs, each as lines of text."""
    ended = [entry.ended_at for entry in entries if entry.ended_at]
    dates = [time.strftime("%Y-%m-%d %H:%M", time.localtime(end)) for end in sorted(ended)]
    period = dict.fromkeys((*dates[:1], *dates[-1:]))
    found = provenance(entry for entry in entries if entry.has_ended)
    known = {name: [value for value in values if value != str(None)] for name, values in found.items()}
    joined = {name: ", ".join(values) for name, values in known.items() if values}
    versions = [f"{name.partition('.')[2]} {text}" for name, text in joined.items() if name.startswith("versions.")]
    facts = {
        "ended": [" to ".join(period)],
        "command": commands(entries),
        "resumed": resumptions(entries),
        "commit": [joined.get("git_commit", "")],
        **{name: [joined.get(name, "")] for name in ("device", *OF_A_CPU, "precision")},
        "versions": [", ".join(versions)],
    }
    return {name: lines for name, lines in facts.items() if any(lines)}


def resumptions(entries: Iterable[Entry]) -> list[str]:
    """Return with which other lengths runs were resumed, which no command has."""
    found = Counter(entry.settings["resumed"] for entry in entries if "resumed" in entry.settings)
    return [
        f"with another length: {text}; the command by itself gives other weights"
        + (f"  ({runs} runs)" if runs > 1 else "")
        for text, runs in found.items()
    ]


def provenance(entries: Iterable[Entry]) -> dict[str, list[str]]:
    """Return where results come from, e.g. `versions.torch`: one value each if all runs agree."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        for part in (entry.result, *entry.result.get("earlier_origins", [])):  # a run may have gone on elsewhere
            values = {name: part.get(name) for name in PROVENANCE}
            if part.get("device") == "cpu":
                values |= {name: part[name] for name in OF_A_CPU if name in part}
            for name, value in flatten(values).items():
                found.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in found.items()}


def first_arguments(folder: Path, result: Result) -> list[str]:
    """Return the command line that a run began with. Resumed with another length, it has recorded that one instead."""
    lengths = result.get("requested") or [{}]
    began = {name: f"{name}={shown(value)}" for name, value in lengths[0].items()}
    return [began.get(name_of(argument), argument) for argument in Run(folder).overrides]


def commands(entries: Sequence[Entry]) -> list[str]:
    """Return the commands that started the runs, a sweep's for all of its jobs."""
    folders = {entry.folder: entry.folder.absolute().parent for entry in entries}
    is_sweep = {parent: (parent / SWEEP_FILE).is_file() for parent in set(folders.values())}
    started = Counter(parent if is_sweep[parent] else folder for folder, parent in folders.items())
    results = {entry.folder: entry.result for entry in entries}
    found = Counter[str]()
    for folder, runs in started.items():
        try:
            arguments = (
                ["-m", *sweep_arguments(folder)] if is_sweep.get(folder) else first_arguments(folder, results[folder])
            )
        except SETTINGS_ERRORS:
            continue
        typed = (for_shell(argument) for argument in arguments if name_of(argument) not in LEFT_OUT)
        found[printable(" ".join(["python src/train.py", *typed]))] += runs
    lines = [f"{line}  ({runs} runs)" if len(found) > 1 and runs > 1 else line for line, runs in found.items()]
    if (more := len(lines) - MAX_COMMANDS) > 0:
        lines[MAX_COMMANDS:] = [f"and {more} more, each in .hydra/overrides.yaml of its folder"]
    return lines
