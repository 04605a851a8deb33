"""A damaged file of a run's folder is one line or makes no difference: no traceback, no hang, no other number."""

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from faults.harness import Ended, is_one_line, reslab, sample
from faults.runs import train
from outcomes import Outcome, differing, flat, outcome_of
from torchvision.io import write_png

pytestmark = pytest.mark.slow


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip_a_bit(file: Path) -> None:
    """Flip the highest bit of a byte, because text has no checksum: with another one, a digit may become another."""
    content = bytearray(file.read_bytes())
    if content:  # the file of the lock is empty
        content[len(content) // 2] ^= 0x80
    file.write_bytes(content)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def replace_by_text(file: Path) -> None:
    file.write_text("The quick brown fox\njumps over the lazy dog.\n")


def replace_by_dead_link(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def replace_by_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def forbid(file: Path) -> None:
    file.chmod(0)


DAMAGES = [truncate, empty, flip_a_bit, replace_by_folder, replace_by_text, replace_by_dead_link, replace_by_pipe]
if os.geteuid() != 0:  # root may read everything
    DAMAGES.append(forbid)
FILES = (
    ".hydra/config.yaml", ".hydra/overrides.yaml", "checkpoints/best.ckpt",
    "checkpoints/last.ckpt", "checkpoints/previous.ckpt", "metrics.csv", "result.json", "train.log",
    "events.out.tfevents.*.0", ".lock",
)  # fmt: skip
CASES = [(file, damage) for file in FILES for damage in DAMAGES]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("image") / "image.png"
    write_png(torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8), str(file))
    return file


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert train(folder, "tensorboard").status == 0
    return folder


def report(folder: Path, image: Path) -> Ended:
    return reslab(folder, "report", folder.parent, f"output={folder.parent / 'report'}")


def evaluate(folder: Path, image: Path) -> Ended:
    return reslab(folder, "evaluate", f"checkpoint={folder}", f"output={folder.parent / 'evaluation.json'}")


def predict(folder: Path, image: Path) -> Ended:
    output = f"output={folder.parent / 'classes.csv'}"
    return reslab(folder, "predict", f"checkpoint={folder}", f"images={image}", output)


def resume(folder: Path, image: Path) -> Ended:
    return reslab(folder, "train", f"resume={folder}")


def reported(folder: Path) -> Outcome:
    """Return what a report says of the run. It may leave out what it cannot read, and then says so by the status."""
    (row,) = csv.DictReader((folder.parent / "report" / "runs.csv").open())
    apart = ("folder", "status", "error", "git_commit")
    return {name: value for name, value in row.items() if value and name not in apart}


def evaluated(folder: Path) -> Outcome:
    evaluation = flat(json.loads((folder.parent / "evaluation.json").read_text()))
    return {name: value for name, value in evaluation.items() if name not in (".checkpoint", ".git_commit")}


def predicted(folder: Path) -> Outcome:
    return {"classes": (folder.parent / "classes.csv").read_text()}


def resumed(folder: Path) -> Outcome:
    assert (folder / "metrics.csv").is_file()  # or reading it would wait for the other end of a pipe
    return outcome_of(folder, curves=False)  # they are as good as the damaged files of TensorBoard


# The commands, each with what it answers where it succeeds. The last one changes the folder.
COMMANDS = {report: reported, evaluate: evaluated, predict: predicted, resume: resumed}


@pytest.fixture(scope="module")
def answers(finished: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    """What the commands answer for the folder as it was."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    shutil.copytree(finished, folder)
    found = []
    for command, answer in COMMANDS.items():
        ended = command(folder, image)
        assert ended.status == 0, ended.output
        found.append(answer(folder))
    return found


@pytest.mark.parametrize(("name", "damage"), sample(CASES))
def test_a_damaged_file_makes_no_difference_or_is_one_line(
    name: str, damage: Callable[[Path], None], finished: Path, image: Path, answers: list[Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (file,) = folder.glob(name)
    damage(file)
    problems = []
    for (command, answer), expected in zip(COMMANDS.items(), answers, strict=True):
        ended = command(folder, image)
        if ended.status == 0:
            found = answer(folder)
            if command is report:
                expected = {name: value for name, value in expected.items() if name in found}
            different = differing(found, expected)
            problems += [f"{command.__name__} answers other {different[:5]}: {ended.output}"] if different else []
        elif ended.status not in (1, 2) or not is_one_line(ended.output):
            problems.append(f"{command.__name__} ends with status {ended.status}: {ended.output}")
    assert not problems, "\n".join(problems)
