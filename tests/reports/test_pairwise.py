import re

import pytest
from fake_runs import make_run

from reslab.reports.comparison import print_comparison, read_side
from reslab.reports.leaderboard import read_report
from reslab.reports.page import html_page
from reslab.reports.pairwise import comparisons, holm

ACCURACIES = {0.1: (0.90, 0.91, 0.92), 0.2: (0.95, 0.96, 0.97), 0.3: (0.60, 0.70, 0.80), 0.4: (0.5,)}


@pytest.fixture
def sweep(tmp_path):
    for lr, accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            make_run(tmp_path / f"{lr}" / f"{seed}_", accuracy=accuracy, test=0.5, seed=seed, optimizer__lr=lr)
    return tmp_path


def test_the_p_values_are_those_of_versus_after_holms_correction(sweep, capsys):
    found = comparisons(read_report([sweep]).configurations, "val/accuracy")
    assert list(found) == [(1, 2), (1, 3), (2, 3)]  # 0.2, 0.1 and 0.3; one run of 0.4 has no spread
    for (first, second), (difference, _) in found.items():
        places = {1: "0.2", 2: "0.1", 3: "0.3"}
        print_comparison(*[read_side(name, [sweep / places[place]]) for name, place in (("A", second), ("B", first))])
        (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("val/accuracy: "))
        assert f"B - A = {difference.mean:+.4f}, 95% confidence interval {difference.low:+.4f}" in line
        assert f"p = {difference.p:.2g}," in line
    p = {pair: comparison.difference.p for pair, comparison in found.items()}
    assert sorted(p, key=p.__getitem__) == [(1, 2), (1, 3), (2, 3)]
    assert [comparison.p for comparison in found.values()] == pytest.approx(
        [3 * p[1, 2], 2 * p[1, 3], max(2 * p[1, 3], p[2, 3])]
    )


def test_holm():
    """The example of R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_equal_seeds_are_not_tested_and_not_counted(sweep):
    found = comparisons(read_report([sweep]).configurations, "test/accuracy")
    assert {comparison.p for comparison in found.values()} == {None}


def test_the_matrix(sweep):
    text = html_page(read_report([sweep]))
    part = text[text.index("Comparisons by val/accuracy") : text.index("Comparisons by test/accuracy")]
    assert "for 3 comparisons." in part
    cells = re.findall(r"<t[dh]\b[^>]*>(.*?)</t[dh]>", part)
    assert cells == [
        "", "2", "3",
        "1: lr=0.2", "<b>+0.0500<br>p = 0.011</b>", "+0.2600<br>p = 0.089",
        "2: lr=0.1", "", "+0.2100<br>p = 0.089",
    ]  # fmt: skip
    assert 'title="lr=0.2 minus lr=0.1: 95% confidence interval +0.0273 to +0.0727, p = 0.0036"' in part
