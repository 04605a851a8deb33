import csv
import json

import pytest
import yaml
from matplotlib.figure import Figure

from reslab.sweep import jobs, print_summary, read_job


def make_job(sweep, number, overrides, *, accuracy=None, curve=(), **result):
    """A job's folder as a run leaves it; without a result the job never ended."""
    folder = sweep / f"{number}_{'_'.join(overrides)}"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if accuracy is not None:
        result |= {"status": "finished", "val/accuracy": accuracy, "test/accuracy": accuracy - 0.01}
        result |= {"train/seconds": 12.5, "versions": {"torch": "2.11"}}
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    if curve:
        rows = [f"{epoch},{train},{val}" for epoch, (train, val) in enumerate(curve)]
        (folder / "metrics.csv").write_text("\n".join(["epoch,train/accuracy,val/accuracy", *rows]))
    return folder


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    make_job(tmp_path, 0, ["model=resnet8", "seed=1", "trainer=cpu"], accuracy=0.5)
    make_job(tmp_path, 1, ["model=resnet20", "seed=1", "trainer=cpu"], status="failed", error="data [x]: no files")
    make_job(tmp_path, 2, ["model=resnet8", "seed=2", "trainer=cpu"], accuracy=0.75)
    make_job(tmp_path, 10, ["model=resnet20", "seed=2", "trainer=cpu"])
    (tmp_path / "multirun.yaml").write_text("")
    (tmp_path / "0_not_a_job").mkdir()
    return tmp_path


def cells(line):
    return [cell.strip() for cell in line.strip("│┃\n").replace("┃", "│").split("│")]


def test_the_table_ranks_the_jobs_and_shows_what_varies(sweep, capsys):
    assert print_summary(sweep) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].strip() == "4 jobs by validation accuracy"
    assert cells(lines[2]) == ["job", "model", "seed", "val/accuracy", "test/accuracy", "train/seconds"]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows[:2] == [
        ["2", "resnet8", "2", "0.75", "0.74", "12.5"],
        ["0", "resnet8", "1", "0.5", "0.49", "12.5"],
    ]
    assert [row[:3] for row in rows[2:]] == [["1", "resnet20", "1"], ["10", "resnet20", "2"]]
    assert "job 1 failed: data [x]: no files" in lines
    assert "job 10 unfinished: no result" in lines
    assert lines[-2:] == [f"sweep:  {sweep} (sweep.csv, curves.png)", f"curves: tensorboard --logdir {sweep}"]


def test_sweep_csv_has_every_job_and_value(sweep):
    print_summary(sweep)
    rows = list(csv.DictReader((sweep / "sweep.csv").open()))
    assert list(rows[0]) == [
        "job", "model", "seed", "status", "val/accuracy", "test/accuracy", "train/seconds", "folder", "error",
    ]  # fmt: skip
    assert [row["job"] for row in rows] == ["2", "0", "1", "10"]
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "unfinished"]
    assert [row["val/accuracy"] for row in rows] == ["0.75", "0.5", "", ""]
    assert rows[2]["error"] == "data [x]: no files"
    assert rows[0]["folder"] == str(sweep / "2_model=resnet8_seed=2_trainer=cpu")


def test_jobs_come_by_number(tmp_path):
    for number in (10, 9, 100, 0):
        make_job(tmp_path, number, [f"seed={number}"])
    assert [path.name for path in jobs(tmp_path)] == ["0_seed=0", "9_seed=9", "10_seed=10", "100_seed=100"]


def test_a_single_job_shows_all_its_overrides(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    make_job(tmp_path, 0, ["model=resnet8", "seed=1"], accuracy=0.5)
    assert print_summary(tmp_path) == 0
    assert cells(capsys.readouterr().out.splitlines()[2])[:3] == ["job", "model", "seed"]


def test_a_sweep_without_jobs_is_silent(tmp_path, capsys):
    assert print_summary(tmp_path) == 0
    assert capsys.readouterr().out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=1", {"seed": "1"}),
        ("+trainer.max_time=00:01:00:00", {"+trainer.max_time": "00:01:00:00"}),
        ("data.root=a=b", {"data.root": "a=b"}),
        ("~callbacks.tensorboard_report", {"~callbacks.tensorboard_report": ""}),
    ],
)
def test_every_kind_of_override_is_read(tmp_path, override, expected):
    row = read_job(make_job(tmp_path, 3, [override], accuracy=0.5))
    assert row["overrides"] == expected
    assert row["job"] == "3"
    assert "versions" not in row  # plain values only


def test_curves_are_the_error_of_every_epoch(tmp_path, monkeypatch):
    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure) or savefig(figure, *args, **kwargs)
    )
    make_job(tmp_path, 0, ["seed=1"], accuracy=0.5, curve=[(0.25, 0.5), (0.75, 0.875)])
    make_job(tmp_path, 1, ["seed=2"], accuracy=0.9, curve=[(0.5, "")])  # an epoch without validation
    make_job(tmp_path, 2, ["seed=3"], status="failed", error="at once")
    print_summary(tmp_path)
    (figure,) = drawn
    training, validation = figure.axes
    assert [line.get_label() for line in validation.lines] == ["1", "2", "3"]
    assert [line.get_xydata().tolist() for line in training.lines] == [[[1, 75], [2, 25]], [[1, 50]], []]
    assert [line.get_xydata().tolist() for line in validation.lines] == [[[1, 50], [2, 12.5]], [], []]
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
