from types import SimpleNamespace

import pandas as pd
from fake_answers import make_answers

from reslab.reports.label_errors import Suspects
from reslab.reports.label_errors_page import COLUMNS, PAGE, TABLE, write_suspects


def test_without_suspects_there_is_a_table_without_rows(tmp_path):
    answers = make_answers(10)
    write_suspects([SimpleNamespace(answers=answers, names=answers.names)], Suspects([], 0), tmp_path)
    table = pd.read_csv(tmp_path / TABLE)
    assert (tuple(table.columns), len(table)) == (COLUMNS, 0)
    assert "0 suspects" in (tmp_path / PAGE).read_text()
