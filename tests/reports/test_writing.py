import csv

import pandas as pd
import pytest
from fake_runs import make_run

from reslab.errors import UserError
from reslab.reports.comparison import print_comparison, read_side
from reslab.reports.entries import read_entries
from reslab.reports.leaderboard import read_report
from reslab.reports.terminal import print_report
from reslab.reports.writing import write_report


def test_the_files_have_all_numbers(sweep):
    write_report(read_report([sweep]), sweep.parent / "out")
    first, second = csv.DictReader((sweep.parent / "out" / "report.csv").open())
    assert (first["place"], first["model"], first["n"], first["best run"]) == (
        "1", "resnet20", "2", str(sweep / "2_resnet20"),
    )  # fmt: skip
    assert second["val/accuracy n"] == "2"
    assert float(second["val/accuracy mean"]) == pytest.approx(0.6)
    assert float(second["val/accuracy deviation"]) == pytest.approx(0.02**0.5)
    assert float(second["val/accuracy 95% low"]) == pytest.approx(0.0476, abs=1e-4)
    assert float(second["val/accuracy 95% high"]) == pytest.approx(0.9783, abs=1e-4)
    assert float(second["test/accuracy mean"]) == pytest.approx(0.59)
    runs = list(csv.DictReader((sweep.parent / "out" / "runs.csv").open()))
    assert [(run["model"], run["seed"], run["status"], run["val/accuracy"], run["error"]) for run in runs] == [
        ("resnet20", "1", "finished", "0.9", ""),
        ("resnet20", "2", "finished", "0.9", ""),
        ("resnet8", "2", "finished", "0.7", ""),
        ("resnet8", "1", "finished", "0.5", ""),
        ("resnet<b>", "1", "failed", "", "a < b"),
    ]
    assert runs[2]["folder"] == str(sweep / "1_resnet8")
    assert "versions" not in runs[0]  # plain values only


def test_a_report_does_not_change_any_run(sweep):
    before = read_entries([sweep])
    write_report(read_report([sweep]), sweep)
    assert read_entries([sweep]) == before


def test_a_folder_that_cannot_be_written_is_a_mistake(sweep):
    (sweep / "file").write_text("")
    with pytest.raises(UserError, match=r"^the report cannot be written into .*/file: (Not a directory|File exists)$"):
        write_report(read_report([sweep]), sweep / "file")


def test_a_report_without_a_finished_run_has_a_table_without_rows(tmp_path):
    make_run(tmp_path / "0_x", result={"status": "failed", "error": "out of memory"})
    write_report(read_report([tmp_path]), tmp_path)
    make_run(tmp_path / "1_x", accuracy=0.5)
    empty, report = pd.read_csv(tmp_path / "report.csv"), read_report([tmp_path])
    write_report(report, tmp_path)
    assert [*empty.columns] == ["place", "n", "best run"]
    assert {*empty.columns} <= {*pd.read_csv(tmp_path / "report.csv").columns}
    assert len(empty) == 0


def test_a_spreadsheet_computes_no_cell(tmp_path):
    """Negative numbers stay numbers."""
    for number, name in enumerate(("=1+1", "-2+3", "@SUM(A1)", "resnet8")):
        make_run(tmp_path / f"{number}_x", accuracy=0.5, seed=number, model__name=name, optimizer__lr=-0.5 * number)
    make_run(tmp_path / "4_x", result={"status": "failed", "error": "+cmd|' /C calc'!A0"})
    write_report(read_report([tmp_path]), tmp_path)
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert {row["model"] for row in rows} == {"'=1+1", "'-2+3", "'@SUM(A1)", "resnet8"}
    assert {row["optimizer.lr"] for row in rows} == {"-0.0", "-0.5", "-1.0", "-1.5"}
    runs = list(csv.DictReader((tmp_path / "runs.csv").open()))
    assert runs[-1]["error"] == "'+cmd|' /C calc'!A0"


HUGE = (1e300, -1e300, 1.7e308, 5e-324, float("inf"), float("nan"), 0, 1, -1, 10**300)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("metric", ["val/accuracy", "val/loss"])
def test_huge_numbers_end_no_report(tmp_path, metric, capsys):
    """Each number is once a metric, a setting and a point of a curve, and a mean is one of two huge numbers."""
    for number, value in enumerate((*HUGE, *HUGE)):
        other = HUGE[number // 2 % len(HUGE)]
        result = {"status": "finished", metric: value, "train/seconds": other}
        options = {"optimizer__lr": other, "optimizer__momentum": value, "objective": metric}
        make_run(tmp_path / f"{number}_x", result=result, curve=[(value, other), (other, value)], **options)
        options |= {"seed": number, "optimizer__lr": 0.1, "optimizer__momentum": 0.9}
        make_run(tmp_path / f"{100 + number}_x", result=result, curve=[(value, other), (other, "")], **options)
    report = read_report([tmp_path])
    assert not report.not_finished
    print_report(report)
    write_report(report, tmp_path)
    assert (tmp_path / "report.html").stat().st_size > 0
    print_comparison(*[read_side("A", [tmp_path / "100_x", tmp_path / "101_x"])] * 2)
    assert max(map(len, capsys.readouterr().out.splitlines())) < 300


@pytest.mark.filterwarnings("error")
def test_a_setting_of_1_and_1e300_has_an_axis(tmp_path):
    """`trainer.gradient_clip_val=1,1e300`."""
    for number, value in enumerate((1, 1e300)):
        make_run(tmp_path / f"{number}_x", accuracy=0.5 + number / 4, trainer__gradient_clip_val=value)
    write_report(read_report([tmp_path]), tmp_path)
    assert ">1e+300</text>" in (tmp_path / "report.html").read_text()
