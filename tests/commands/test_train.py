import logging
from types import SimpleNamespace

from fake_answers import make_answers, make_tested_run

from reslab.commands.train import write_page


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
