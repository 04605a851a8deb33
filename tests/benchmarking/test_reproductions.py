"""benchmarks/reproductions.py: its rows, its results, and the tables in the pages."""

import shlex
import sys

import pytest
from conftest import CONF
from fake_runs import make_run
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

sys.path.append(str(CONF.parent / "benchmarks"))

import reproductions  # the folder is no package
from reproductions import RECIPES, ROWS, TUTORIALS, block, filled

from reslab.training.options import TRAINING_SCHEMA

MACHINE = {
    "threads": 1, "processor": "a processor", "precision": "32-true",
    "versions": {"python": "3.11.7", "torch": "2.15.0", "torchvision": "0.29.2", "lightning": "2.6.6"},
}  # fmt: skip
FAKE = {
    "digits_resnet20": [
        {"options": [], "seed": 1, "val/accuracy": 0.5, "test/accuracy": 0.25, "train/seconds": 10.0, "by_epoch": {},
         **MACHINE},
        {"options": [], "seed": 2, "val/accuracy": 0.7, "test/accuracy": 0.75, "train/seconds": 30.0, "by_epoch": {},
         **MACHINE, "threads": 2},
    ],
    "six_block": [
        {
            "options": [], "seed": 42, "val/accuracy": 0.5, "test/accuracy": 0.25, "train/seconds": 1234.0, **MACHINE,
            "by_epoch": {
                "epoch": [1.0, 2.0], "train/loss": [2.0, 1.5], "train/accuracy": [0.5, 0.625],
                "val/accuracy": [0.25, 0.375], "train/epoch_seconds": [1233.6, 1000.0],
            },
        }
    ],
    "shortcuts": [
        {"options": ["model=resnet20", f"model.shortcut={shortcut}"], "seed": seed, "val/accuracy": 0.5 * seed,
         "test/accuracy": 0.25, "train/seconds": 1.0 * seed, "by_epoch": {"train/accuracy": [0.5, 0.9]}, **MACHINE}
        for shortcut in "AB" for seed in (1, 2)
    ],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_train_accepts_every_job_of_a_row(composed, name):
    words = shlex.split(ROWS[name].options)
    overrides = OverridesParser.create().parse_overrides(words[words[0] == "-m" :])
    jobs = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
    assert len(jobs) == {"-m": len(jobs)}.get(words[0], 1) > 0
    for job in {frozenset(each for each in job if not each.startswith("seed=")) for job in jobs}:
        TRAINING_SCHEMA.check(composed(*job))


def test_the_pages_have_what_the_results_say():
    results = reproductions.read_results()
    assert [page.name for page in reproductions.PAGES if filled(page.read_text(), results) != page.read_text()] == []


def test_the_pages_show_every_row():
    text = "\n".join(page.read_text() for page in reproductions.PAGES)
    assert {name for name in RECIPES if "<!-- reproductions: recipes -->" in text} == set(RECIPES)
    assert [name for name in TUTORIALS if f" {name} -->" not in text] == []
    assert [name for name in TUTORIALS if f"python src/train.py {ROWS[name].options}\n" not in text] == []


def test_recipes_are_means_and_deviations():
    lines = block(["recipes", "digits_resnet20"], FAKE).splitlines()
    assert lines[0] == "| command | n | validation | test | published | seconds |"
    command = "`python src/train.py -m seed=1,2,3,4,5`"
    assert lines[2:3] == [f"| {command} | 2 | 0.6000 ± 0.1414 | 0.5000 ± 0.3536 | not known | 20 (10 to 30) |"]
    assert block(["expected", "digits_resnet20"], FAKE).splitlines()[:3] == [
        "| command | test accuracy | seconds | n |", "|---|---|---|---|",
        f"| {command} | 0.5000 ± 0.3536 | 20 (10 to 30) | 2 |",
    ]  # fmt: skip
    assert block(["recipes"], {}).count("| 0 | not measured |  |") == len(RECIPES)


def test_a_table_names_every_machine():
    place = "a processor (32-true), python 3.11.7, torch 2.15.0, lightning 2.6.6"
    assert block(["recipes", "digits_resnet20"], FAKE).splitlines()[3:] == [
        "",
        f"1 run on 1 thread of {place}; 1 run on 2 threads of {place}.",
    ]
    lines = block(["configurations", "shortcuts"], FAKE).splitlines()
    assert lines[4:] == ["", f"4 runs on 1 thread of {place}."]


def test_configurations_are_known_by_what_differs():
    assert block(["configurations", "shortcuts"], FAKE).splitlines()[2:4] == [
        "| `model.shortcut=A` | 2 | 10.0 ± 0.0 | 0.7500 ± 0.3536 | 0.2500 ± 0.0000 |",
        "| `model.shortcut=B` | 2 | 10.0 ± 0.0 | 0.7500 ± 0.3536 | 0.2500 ± 0.0000 |",
    ]


def test_epochs_are_those_of_one_run():
    page = "a\n<!-- reproductions: epochs six_block -->\nold\n<!-- end -->\nb\n"
    assert filled(page, FAKE) == (
        "a\n<!-- reproductions: epochs six_block -->\n"
        "| epoch | training loss | training accuracy | validation accuracy | seconds |\n|---|---|---|---|---|\n"
        "| 1 | 2.0000 | 0.5000 | 0.2500 | 1,234 |\n| 2 | 1.5000 | 0.6250 | 0.3750 | 1,000 |\n\n"
        "1 run on 1 thread of a processor (32-true), python 3.11.7, torch 2.15.0, lightning 2.6.6.\n<!-- end -->\nb\n"
    )


def test_results_are_those_of_finished_runs_and_of_runs_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(reproductions, "WORK", tmp_path)
    monkeypatch.setattr(reproductions, "RESULTS", tmp_path / "results.json")
    for seed, accuracy in ((1, 0.5), (2, 0.75)):
        run = make_run(tmp_path / "digits_resnet20" / str(seed), accuracy=accuracy, seed=seed, curve=[(0.25, 0.5)])
        (run / ".hydra" / "overrides.yaml").write_text(f"[seed={seed}, resume=auto]")
        reproductions.write_results("digits_resnet20")
        (run / "result.json").unlink()  # the run is finished on another machine
    kept = reproductions.read_results()["digits_resnet20"]
    assert [(each["options"], each["val/accuracy"], each["by_epoch"]) for each in kept] == [
        ([], 0.5, {"epoch": [1.0], "train/accuracy": [0.25], "val/accuracy": [0.5]}),
        ([], 0.75, {"epoch": [1.0], "train/accuracy": [0.25], "val/accuracy": [0.5]}),
    ]
