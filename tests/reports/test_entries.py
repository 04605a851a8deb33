from pathlib import Path

import pytest
from fake_runs import make_run

from reslab.errors import UserError
from reslab.reports.entries import natural_order, read_entries, read_entry
from reslab.run import Run


def test_runs_are_found_below_a_folder_in_natural_order(tmp_path, monkeypatch):
    for number in (10, 9, 0):
        make_run(tmp_path / "sweep" / f"{number}_seed={number}", accuracy=0.5)
    make_run(tmp_path / "single", accuracy=0.5)
    make_run(tmp_path / "sweep" / "speed", accuracy=0.5)
    (tmp_path / "sweep" / "speed" / "benchmark.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    found = read_entries([tmp_path / "sweep", Path("single"), Path("sweep/9_seed=9")])
    assert [entry.folder.name for entry in found] == ["0_seed=0", "9_seed=9", "10_seed=10", "single"]


def test_numbers_in_names_have_the_order_of_their_sizes():
    long = "1" * 5000  # more digits than Python's int() takes
    names = [f"a{long}0", "b1", f"a{long}", "a10", "a2", "a07"]
    assert sorted(names, key=natural_order) == ["a2", "a07", "a10", f"a{long}", f"a{long}0", "b1"]


def test_a_folder_without_runs_is_a_mistake(tmp_path):
    make_run(tmp_path / "resnet20-digits" / "a", accuracy=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^there is no folder .*/resnet2-digits: did you mean /.*/resnet20-digits\?$"):
        read_entries([tmp_path / "resnet2-digits"])
    with pytest.raises(UserError, match=r"^there is no folder latst: did you mean latest\?$"):
        read_entries([Path("latst")])
    with pytest.raises(UserError, match=r"/empty contains no run: a run's folder has \.hydra in it, "):
        read_entries([tmp_path / "resnet20-digits", tmp_path / "empty"])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.csv", "epoch,val/accuracy\n0,high\n"),
        ("metrics.csv", "epoch,val/accuracy\n0,0.5,0.7\n"),
        (".hydra/config.yaml", "a: ["),
        (".hydra/config.yaml", ""),
        (".hydra/config.yaml", "model: {name: resnet8}"),  # no seed
    ],
)
def test_a_run_with_a_broken_file_is_unreadable(tmp_path, file, text):
    folder = make_run(tmp_path / "run", accuracy=0.5, curve=[(0.5, 0.5)])
    assert read_entry(Run(folder)).is_finished
    (folder / file).write_text(text)
    entry = read_entry(Run(folder))
    assert not entry.is_finished
    assert entry.failure.startswith("unreadable: ")
    assert len(entry.failure.splitlines()) == 1


def test_a_run_without_a_result_is_unfinished(tmp_path):
    entry = read_entry(Run(make_run(tmp_path / "run", curve=[(0.5, ""), (0.75, 0.7)])))
    assert entry.failure == "unfinished: no result"
    assert entry.metrics[0] == {"epoch": 1, "train/accuracy": 0.5}  # the first epoch was not validated
    assert entry.metrics[1] == {"epoch": 2, "train/accuracy": 0.75, "val/accuracy": 0.7}
