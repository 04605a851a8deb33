import os
from pathlib import Path

import yaml
from fake_runs import make_run

from reslab.reports.entries import read_entries
from reslab.reports.leaderboard import read_report
from reslab.reports.origin import MAX_COMMANDS, commands, origin
from reslab.reports.page import html_page


def write_sweep(folder, *task, hydra=("hydra.mode=MULTIRUN", "hydra.sweep.dir=x")):
    (folder / "multirun.yaml").write_text(
        yaml.safe_dump({"hydra": {"overrides": {"hydra": [*hydra], "task": [*task]}}})
    )


def write_overrides(folder, *overrides):
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([*overrides]))


def test_a_sweep_has_one_command_and_a_run_its_own(tmp_path):
    for number in range(2):
        write_overrides(make_run(tmp_path / "sweep" / f"{number}_", accuracy=0.5, seed=number), f"seed={number}")
    write_sweep(tmp_path / "sweep", "seed=0,1", "model=resnet8")
    write_overrides(make_run(tmp_path / "run", accuracy=0.5), "data.root=my photos", "hydra.run.dir=x")
    assert commands(read_entries([tmp_path])) == [
        "python src/train.py 'data.root=my photos'",
        "python src/train.py -m seed=0,1 model=resnet8  (2 runs)",
    ]
    assert commands(read_entries([tmp_path / "sweep"])) == ["python src/train.py -m seed=0,1 model=resnet8"]


def test_a_run_that_was_resumed_with_another_length_has_the_command_that_it_began_with_and_says_so(tmp_path):
    lengths = [{"step": 0, "trainer.max_epochs": 2, "trainer.max_time": None}, {"step": 40, "trainer.max_epochs": 1}]
    folder = make_run(tmp_path / "run", accuracy=0.5, result={"requested": lengths})
    write_overrides(folder, "model=resnet8", "trainer.max_epochs=1")
    facts = origin(read_entries([tmp_path]))
    assert facts["command"] == ["python src/train.py model=resnet8 trainer.max_epochs=2"]
    assert facts["resumed"] == [
        "with another length: max_epochs=2, from step 40 max_epochs=1; the command by itself gives other weights"
    ]


def test_equal_lengths_of_resumed_runs_are_one_line_with_their_number(tmp_path):
    for number, epochs in enumerate((3, 3, 4, None)):
        lengths = [{"step": 0, "trainer.max_epochs": 2}, {"step": 40, "trainer.max_epochs": epochs}]
        result = {"requested": lengths} if epochs else {}
        make_run(tmp_path / f"{number}_", accuracy=0.5, seed=number, result=result)
    three, four = origin(read_entries([tmp_path]))["resumed"]
    assert "from step 40 max_epochs=3; " in three
    assert three.endswith("weights  (2 runs)")
    assert "from step 40 max_epochs=4; " in four
    assert four.endswith("other weights")


def test_a_run_that_went_on_elsewhere_has_both_devices(tmp_path):
    before = {"until_step": 40, "device": "cpu", "processor": "2 x a", "threads": 2, "precision": "32-true"}
    result = {"device": "H100", "precision": "bf16-mixed", "threads": 8, "earlier_origins": [before]}
    make_run(tmp_path / "run", accuracy=0.5, result=result)
    facts = origin(read_entries([tmp_path]))
    expected = {"device": ["H100, cpu"], "precision": ["32-true, bf16-mixed"], "processor": ["2 x a"], "threads": ["2"]}
    assert {name: facts[name] for name in expected} == expected


def test_of_many_commands_some_are_shown(tmp_path):
    for number in range(MAX_COMMANDS + 2):
        write_overrides(make_run(tmp_path / f"run{number}", accuracy=0.5), f"seed={number}")
    lines = commands(read_entries([tmp_path]))
    assert lines[:-1] == [f"python src/train.py seed={number}" for number in range(MAX_COMMANDS)]
    assert lines[-1] == "and 2 more, each in .hydra/overrides.yaml of its folder"


def test_a_file_that_cannot_be_read_has_no_command(tmp_path):
    make_run(tmp_path / "no_overrides", accuracy=0.5)
    make_run(tmp_path / "sweep" / "0_", accuracy=0.5)
    for content in ("", "hydra: []", "- 1", "hydra: {overrides: {hydra: [], task: [1]}}"):
        (tmp_path / "sweep" / "multirun.yaml").write_text(content)
        assert commands(read_entries([tmp_path])) == []


def test_the_page_begins_with_what_the_runs_are(tmp_path):
    for number in range(2):
        result = {"device": "cpu", "processor": f"{2 + number} x A", "threads": 2, "precision": "32-true"}
        folder = make_run(tmp_path / f"{number}_", accuracy=0.5, seed=number, result=result)
        os.utime(folder / "result.json", (1_800_000_000 + 86_400 * number,) * 2)
    write_sweep(tmp_path, "seed=0,1", "outputs=<b>")
    facts = origin(read_entries([tmp_path]))
    (period,) = facts.pop("ended")
    assert period.startswith("2027-01-1")
    assert " to 2027-01-1" in period
    assert facts == {
        "command": ["python src/train.py -m seed=0,1 'outputs=<b>'"],
        "commit": ["abc"], "device": ["cpu"], "processor": ["2 x A, 3 x A"], "threads": ["2"],
        "precision": ["32-true"], "versions": ["torch 2.11"],
    }  # fmt: skip
    text = html_page(read_report([tmp_path]))
    assert "<h1>resnet8 on digits: 1 configuration (2 runs)</h1>" in text
    assert "<title>resnet8 on digits: 1 configuration (2 runs)</title>" in text
    assert "<tr><th>command</th><td>python src/train.py -m seed=0,1 &#x27;outputs=&lt;b&gt;&#x27;</td></tr>" in text


def test_runs_without_a_result_have_a_page(tmp_path):
    write_overrides(make_run(Path(tmp_path) / "run"), "seed=1")
    assert origin(read_entries([tmp_path])) == {"command": ["python src/train.py seed=1"]}
