"""The tables of peers.md, from benchmarks/results/peers.json."""

import re
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from peers_images import JOBS
from peers_programs import programs_of
from recording import ratios

PAGE = Path(__file__).parent / "peers.md"
MISSING = "not measured"
PROGRAMS = {
    "cifar": ("ResLab", "lightning-hydra-template", "pytorch-cifar"),
    "folder": ("ResLab", "timm train.py", "timm train.py --channels-last", "torchvision references"),
    "behaviour": (
        "ResLab, cifar", "ResLab, folder", "lightning-hydra-template", "timm train.py", "torchvision references",
        "pytorch-cifar",
    ),
}  # fmt: skip
SPEED = {
    "first step after, s": ("first_step_s", ".1f"), "images/s": ("images_per_second", ".1f"),
    "command, s": ("command_s", ".1f"), "peak MB": ("peak_mb", ",.0f"),
}  # fmt: skip
LONGEST = 150  # characters of a message


def write_tables(results: dict[str, Any]) -> None:
    """Replace the tables of the page, each between the comments that name it."""
    tables = {part: speed_table(part, results.get(part, {})) for part in ("cifar", "folder")}
    answers = results.get("behaviour", {}).get("programs", {})
    tables["commands"] = commands()
    tables |= {name: make(answers) for name, make in ANSWERS.items()}
    tables["mistakes"] += f"\n\n{origin(results.get('behaviour', {}))}"
    text = PAGE.read_text()
    for name, table in tables.items():
        begin, end = (f"<!-- peers.py --table, {name}: {edge} -->" for edge in ("begin", "end"))
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(text)


def commands() -> str:
    """Return the command of every program. The folders are abbreviated."""
    here = Path()
    jobs = [make(Path("<images>")) for make in JOBS.values()]
    rows = [
        [program.name, job.part, f"`python {' '.join([*program.script, *program.options()])}`"]
        for job in jobs
        for program in programs_of(job, here, "python", here)
    ]
    return markdown(["program", "job", "command"], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def speed_table(part: str, result: dict[str, Any]) -> str:
    programs = result.get("programs", {})
    rows = [[name, *speed_cells(programs.get(name, []), programs.get("ResLab", []))] for name in PROGRAMS[part]]
    table = markdown(["program", "n", *SPEED, "ResLab's images/s / this"], rows)
    return f"{table}\n\n{origin(result)}"


def origin(result: dict[str, Any]) -> str:
    """Return where the numbers were measured, as a sentence."""
    if not result.get("programs"):
        return f"{MISSING.capitalize()}."
    source = result["origin"]
    versions = ", ".join(f"{name} {version}" for name, version in source["versions"].items())
    return f"Measured on {source['processor']}; {versions}; ResLab at commit {source['commit'][:9]}."


def speed_cells(rounds: list[dict[str, float]], ours: list[dict[str, float]]) -> list[str]:
    if not rounds:
        return ["0", *[MISSING] * len(SPEED), MISSING]
    cells = [spread([each[key] for each in rounds], form) for key, form in SPEED.values()]
    both = min(len(rounds), len(ours))
    if not both:
        return [str(len(rounds)), *cells, MISSING]
    speeds = ([each["images_per_second"] for each in program[:both]] for program in (ours, rounds))
    ratio = ratios(*speeds)
    return [str(len(rounds)), *cells, f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"]


def spread(values: list[float], form: str) -> str:
    if len(values) == 1:
        return format(values[0], form)
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def mistakes(answers: dict[str, Any]) -> str:
    """Return a table of the answers to mistakes."""
    questions = ("mistyped an option", "mistyped a network", "missing gpu", "no terminal")
    rows = [
        [program, question, *answer_cells(answers[program][question])]
        for question in questions
        for program in PROGRAMS["behaviour"]
        if question in answers.get(program, {})
    ]
    rows += [[program, MISSING, "", "", "", "", ""] for program in PROGRAMS["behaviour"] if program not in answers]
    return markdown(["program", "what", "exit status", "seconds", "lines", "steps trained", "message"], rows)


def answer_cells(answer: dict[str, Any]) -> list[str]:
    message = re.sub(r"[\x00-\x1f]", "", answer["message"]).replace("|", "\\|").replace("`", "'")
    message = message if len(message) <= LONGEST else f"{message[:LONGEST]}…"
    return [
        str(answer["status"]), f"{answer['seconds']:.1f}", str(answer["lines"]), str(answer["steps"]),
        f"`{message}`" if message else "",
    ]  # fmt: skip


def kills(answers: dict[str, Any]) -> str:
    rows = [[program, *kill_cells(answers.get(program, {}).get("kill"))] for program in PROGRAMS["behaviour"]]
    header = [
        "program",
        "the same command twice",
        "killed after",
        "resumed",
        "steps done again",
        "weights of an uninterrupted run",
    ]
    return markdown(header, rows)


def kill_cells(kill: dict[str, Any] | None) -> list[str]:
    if kill is None:
        return [MISSING] * 5
    if "failed" in kill:
        return [f"failed: {answer_cells(kill['failed'])[-1]}", *[""] * 4]
    twice = "equal weights" if kill["repeatable"] else "different weights"
    twice += "" if kill["seeded"] else "; it has no option for a seed"
    after = f"{kill['killed_after_steps']} of {kill['steps_of_the_run']} steps"
    if kill["resume_with_variable"]["status"]:
        return [twice, after, f"no: {answer_cells(kill['resume'])[-1]}", "all", ""]
    how = "with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 only" if kill["resume"]["status"] else "yes"
    equal = "equal" if kill["equal"] else "different"
    again = kill["killed_after_steps"] + kill["steps_after_resume"] - kill["steps_of_the_run"]
    return [
        twice, after, f"{how}, {kill['steps_after_resume']} more steps", str(again), equal
    ]  # fmt: skip


def written(answers: dict[str, Any]) -> str:
    rows = []
    for program in PROGRAMS["behaviour"]:
        answer = answers.get(program)
        if not answer:
            rows.append([program, *[MISSING] * 4])
            continue
        job, own = answer["job"], answer["own"]
        ran = "trained" if not own["answer"]["status"] and own["answer"]["steps"] else "failed"
        rows.append([program, f"{job['lines']}", f"{job['options']}", f"{own['lines']}", f"{own['options']} ({ran})"])
    header = ["program", "the job: lines in files", "options", "own folder, half the width: lines in files", "options"]
    return markdown(header, rows)


ANSWERS = {"mistakes": mistakes, "kills": kills, "written": written}
