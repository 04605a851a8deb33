import logging
import signal
from types import SimpleNamespace

import pytest
from fake_answers import make_answers, make_tested_run

from reslab.commands.train import write_page
from reslab.errors import Interrupted
from reslab.interruption import Signals
from reslab.reports.run_page import writing


def config_of(run, page=True):
    return SimpleNamespace(folder=str(run.folder), page=page)


def test_a_run_that_was_tested_gets_its_page_unless_it_is_not_wanted(tmp_path, monkeypatch):
    run = make_tested_run(tmp_path / "run", make_answers())
    write_page(config_of(run, page=False), run.result)
    write_page(config_of(run), {"val/accuracy": 0.5})
    monkeypatch.setattr("reslab.machine.is_first_process", lambda: False)
    write_page(config_of(run), run.result)
    assert not (run.folder / "run.html").exists()
    monkeypatch.undo()
    write_page(config_of(run), run.result)
    assert "<h2>Confusion matrix</h2>" in (run.folder / "run.html").read_text()


def test_a_page_that_fails_is_one_warning(tmp_path, caplog, monkeypatch):
    run = make_tested_run(tmp_path / "run", make_answers(), **{"test/accuracy": 0.125})
    with caplog.at_level(logging.WARNING):
        write_page(config_of(run), run.result)
        monkeypatch.setattr("reslab.reports.run_page.writing.write_text", lambda *_: 1 / 0)
        run = make_tested_run(tmp_path / "other", make_answers())
        write_page(config_of(run), run.result)
    first, second = caplog.messages
    assert first.startswith("the page of the run was not written: the answers are right for ")
    assert second.startswith("the page of the run was not written: ")
    assert "division by zero" in second


def test_a_signal_waits_for_the_page(tmp_path, monkeypatch):
    signals, page_of = Signals(), writing.page_of

    def interrupted_page(run, entry):
        signals.receive(signal.SIGTERM, None)
        return page_of(run, entry)

    monkeypatch.setattr("reslab.interruption.signals", signals)
    monkeypatch.setattr(writing, "page_of", interrupted_page)
    run = make_tested_run(tmp_path / "run", make_answers())
    with pytest.raises(Interrupted):
        write_page(config_of(run), run.result)
    assert run.page_file.read_text().endswith("</html>\n")


def test_a_run_that_resumes_has_no_page_of_its_earlier_result(tmp_path):
    run = make_tested_run(tmp_path / "run", make_answers())
    write_page(config_of(run), run.result)
    run.reopen()
    assert not run.page_file.exists()
    assert not run.answers_file.exists()
