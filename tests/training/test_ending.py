import csv
import errno
import json
import logging

import pytest
from lightning.pytorch.loggers import CSVLogger

from reslab.run import Run
from reslab.training import adapters, ending, fit
from reslab.training.answers import read_answers

QUICK = ("model=resnet8", "trainer=cpu", "trainer.max_epochs=1", "page=false")


def fail_once(patch, module, name, error):
    """Let the first call of a function raise an error."""
    real, calls = getattr(module, name), []

    def function(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise error
        return real(*arguments)

    patch.setattr(module, name, function)
    return calls


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.slow
def test_the_result_is_there_before_anything_else(composed, tmp_path, monkeypatch):
    """A server may not answer for minutes, in which the job is killed."""
    found = []

    def look(*_):
        found.append(json.loads((tmp_path / "result.json").read_text()))

    monkeypatch.setattr(ending, "write_answers", look)
    monkeypatch.setattr(adapters.Csv, "result", look)
    result = fit.train(composed(*QUICK, "logger=csv"))
    waiting = ["answers.safetensors", "logger.csv"]
    assert found == [result | {"unwritten": waiting}] * 2
    assert "unwritten" not in result == json.loads((tmp_path / "result.json").read_text())


@pytest.mark.slow
def test_a_logger_that_fails_in_the_test_gets_the_test_later(composed, tmp_path, monkeypatch, caplog):
    def log_metrics(self, metrics, step=None):
        if "test/accuracy" in metrics and not failed:
            failed.append(step)
            raise ConnectionError("the server is gone")
        real(self, metrics, step)

    real, failed = CSVLogger.log_metrics, []
    monkeypatch.setattr(CSVLogger, "log_metrics", log_metrics)
    first = fit.train(composed(*QUICK, "logger=csv"))
    assert (first["status"], first.pop("unwritten"), failed) == ("finished", ["logger.csv"], [first["steps"]])
    table = tmp_path / "csv" / "metrics.csv"
    assert "test/accuracy" not in table.read_text()
    assert fit.train(composed(*QUICK, "logger=csv", f"resume={tmp_path}")) == first
    with table.open(newline="") as file:
        tested = [row["test/accuracy"] for row in csv.DictReader(file) if row["test/accuracy"]]
    assert [float(each) for each in tested] == [first["test/accuracy"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "name", "error", "line"),
    [
        (ending, "write_answers", OSError(errno.ENOSPC, "No space left on device"),
         "answers.safetensors (the disk is full: free some space)"),
        (adapters.Csv, "result", ConnectionError("the server\nis gone"),
         "logger.csv (ConnectionError: the server; is gone)"),
    ],
)  # fmt: skip
def test_what_fails_after_the_result_is_one_line_and_is_written_later(
    composed, tmp_path, monkeypatch, caplog, owner, name, error, line
):
    calls = fail_once(monkeypatch, owner, name, error)
    config = composed(*QUICK, "logger=csv")
    first = fit.train(config)
    assert warnings_of(caplog) == [
        f"the result was written, but not to {line}: resume={tmp_path} tests again and writes it"
    ]
    assert (first["status"], first.pop("unwritten")) == ("finished", [line.partition(" ")[0]])
    again = fit.train(composed(*QUICK, "logger=csv", f"resume={tmp_path}"))
    assert len(calls) == 2
    assert again == Run(tmp_path).result == first
    answers, step = read_answers(Run(tmp_path).answers_file)
    assert (len(answers), step) == (first["test/images"], first["best_step"])
    assert "result/test/accuracy" in (tmp_path / "csv" / "metrics.csv").read_text()
