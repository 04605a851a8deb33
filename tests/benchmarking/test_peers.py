"""benchmarks/peers.py without the programs that it compares: the files, the edits, the clock and the tables."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import peers_tables  # noqa: E402
from peers_images import Job, write_images  # noqa: E402
from peers_programs import PytorchCifar, ResLab, Timm, replaced  # noqa: E402
from peers_run import run  # noqa: E402


def test_ratios_are_taken_within_a_round() -> None:
    ours = [{"first_step_s": 5.0, "images_per_second": speed, "command_s": 30.0, "peak_mb": 2000} for speed in (60, 30)]
    others = [
        {"first_step_s": 4.0, "images_per_second": speed, "command_s": 40.0, "peak_mb": 1000} for speed in (40, 30)
    ]
    *_, speed, command, peak, ratio = peers_tables.speed_cells(others, ours)
    assert speed == "35.0 (30.0 to 40.0)"
    assert command == "40.0 (40.0 to 40.0)"
    assert peak == "1,000 (1,000 to 1,000)"
    assert ratio == "1.25 (1.00 to 1.50)"


def test_what_is_missing_is_called_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "peers.md"
    page.write_text((BENCHMARKS / "peers.md").read_text())
    monkeypatch.setattr(peers_tables, "PAGE", page)
    peers_tables.write_tables({})
    text = page.read_text()
    assert text.count("| 0 | not measured |") == 3 + 4
    peers_tables.write_tables({})
    assert page.read_text() == text


def test_page_has_the_tables_of_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = BENCHMARKS / "results" / "peers.json"
    page = tmp_path / "peers.md"
    page.write_text((BENCHMARKS / "peers.md").read_text())
    monkeypatch.setattr(peers_tables, "PAGE", page)
    peers_tables.write_tables(json.loads(results.read_text()) if results.exists() else {})
    assert page.read_text() == (BENCHMARKS / "peers.md").read_text()


@pytest.mark.parametrize(
    ("resume", "variable", "expected"),
    [
        (0, 0, ["equal weights", "6 of 8 steps", "yes, 4 more steps", "2", "different"]),
        (1, 0, ["equal weights", "6 of 8 steps", "with TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1 only, 4 more steps", "2",
                "different"]),
        (1, 1, ["equal weights", "6 of 8 steps", "no: `no such file`", "all", ""]),
    ],
)  # fmt: skip
def test_steps_that_are_done_again_after_a_kill(resume: int, variable: int, expected: list[str]) -> None:
    answer = {"seconds": 1.0, "lines": 1, "message": "no such file", "steps": 0}
    kill = {
        "seeded": True, "repeatable": True, "killed_after_steps": 6, "steps_of_the_run": 8,
        "resume": answer | {"status": resume}, "resume_with_variable": answer | {"status": variable},
        "steps_after_resume": 4, "equal": False,
    }  # fmt: skip
    assert peers_tables.kill_cells(kill) == expected


def test_changed_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("width = 64\nother = 1\nwidth = 64\n")
    assert replaced(file, r"^width = \d+$", "width = 32") == 2
    assert file.read_text() == "width = 32\nother = 1\nwidth = 32\n"
    with pytest.raises(ValueError, match="nothing matches"):
        replaced(file, "^depth", "")


def test_a_later_value_replaces_that_of_the_job(tmp_path: Path) -> None:
    job = Job("folder", tmp_path, training=8, test=4, batch=4, size=224)
    command = ResLab(job).command(tmp_path, "trainer=gpu")
    assert "trainer=gpu" in command
    assert "trainer=cpu" not in command
    assert Timm(tmp_path, "python", tmp_path, job).command(tmp_path)[:4] == [
        "python",
        "train.py",
        "--data-dir",
        f"{tmp_path}",
    ]


def test_images_are_in_the_layout_of_cifar10(tmp_path: Path) -> None:
    job = Job("cifar", tmp_path / "images", training=11, test=3, batch=4, size=32)
    write_images(job)
    files = sorted((job.images / "cifar-10-batches-py").iterdir())
    assert [file.name for file in files] == ["batches.meta", *(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]
    counts = [len(pickle.loads(file.read_bytes())["labels"]) for file in files[1:]]
    assert (sum(counts[:5]), counts[5]) == (11, 3)
    assert PytorchCifar(tmp_path, "python", tmp_path, job).options() == []


TRAINING = """
import sys, torch
print(sys.stdin.isatty())
weights = torch.nn.Linear(1, 1).parameters()
optimizer = torch.optim.SGD(weights, lr=0.1)
one_number = torch.optim.SGD([torch.zeros(1)], lr=0.1)
for _ in range(3): optimizer.step()
one_number.step()
"""


@pytest.mark.slow
def test_steps_are_recorded_and_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TRAINING]
    outcome = run(command, tmp_path, {})
    assert (outcome.status, outcome.lines, len(outcome.step_ends)) == (0, ["True"], 3)
    assert 0 < outcome.step_ends[0] <= outcome.step_ends[2] < outcome.seconds
    assert run(command, tmp_path, {}, terminal=False).lines == ["False"]
    killed = run([*command[:2], TRAINING + "import time; time.sleep(60)"], tmp_path, {}, kill_after=3)
    assert killed.status == -9


@pytest.mark.slow
def test_torchvision_accepts_the_images(tmp_path: Path) -> None:
    job = Job("cifar", tmp_path, training=10, test=5, batch=5, size=32)
    job.images.rmdir()
    write_images(job)
    code = "import sys; from torchvision.datasets import CIFAR10; print(len(CIFAR10(sys.argv[1])))"
    environment = os.environ | job.environment | {"PYTHONPATH": str(BENCHMARKS / "peers_clock")}
    assert subprocess.check_output([sys.executable, "-c", code, str(tmp_path)], env=environment, text=True) == "10\n"
