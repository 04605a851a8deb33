import csv

import pytest

from reslab.errors import UserError
from reslab.reports.entries import read_entries
from reslab.reports.leaderboard import read_report
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
    assert float(second["val/accuracy 95% low"]) == pytest.approx(0.6 - 1.27062, rel=1e-5)
    assert float(second["val/accuracy 95% high"]) == pytest.approx(0.6 + 1.27062, rel=1e-5)
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
