import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from fake_runs import make_run
from matplotlib.figure import Figure
from test_report import sweep  # noqa: F401

from reslab.report import read_report
from reslab.report_page import MOST_CURVES, page, positions


class Page(HTMLParser):
    """The data-value of each table row, and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.fetched = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.fetched += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if tag == "tr":
            self.rows.append([])
        if tag == "td":
            self.rows[-1].append(values["data-value"])


@pytest.fixture
def figures(monkeypatch):
    """Every figure as it is drawn."""
    drawn = []
    savefig = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kwargs: drawn.append(figure) or savefig(figure, *args, **kwargs)
    )
    return drawn


def test_the_page_needs_no_other_file_and_is_whole(sweep):  # noqa: F811
    text = page(read_report([sweep]))
    parsed = Page(text)
    assert all(place.startswith("#") for place in parsed.fetched)
    assert "url(http" not in text
    assert "@import" not in text
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 2  # the curves, and the effect of one parameter
    for svg in svgs:
        ElementTree.fromstring(svg)
    assert text == page(read_report([sweep]))


def test_the_table_sorts_by_plain_values(sweep):  # noqa: F811
    folders = [str(sweep / name) for name in ("2_resnet20", "1_resnet8")]
    _, first, second = Page(page(read_report([sweep]))).rows
    assert first[:3] == ["1", "resnet20", "2"]
    assert [float(value) for value in first[3:6]] == pytest.approx([0.9, 0.845, 12.5])
    assert [float(value) for value in second[3:6]] == pytest.approx([0.6, 0.59, 12.5])
    assert [first[6], second[6]] == folders


def test_what_failed_is_listed_as_text(sweep):  # noqa: F811
    text = page(read_report([sweep]))
    assert f"<li>{sweep}/4_resnet&lt;b&gt; failed: a &lt; b</li>" in text
    assert "<b>" not in text


def test_curves_are_means_within_the_seeds(sweep, figures):  # noqa: F811
    text = page(read_report([sweep]))
    training, validation = figures[0].axes
    lines = [line.get_xydata().tolist() for line in training.lines]
    assert lines == [[[1, 50]], [[1, 62.5], [2, 25]]]  # a seed ended after the first epoch
    assert [line.get_xydata().tolist() for line in validation.lines] == [[], [[1, 37.5], [2, 75]]]
    band = validation.collections[1].get_paths()[0].vertices
    assert sorted({(x, y) for x, y in band.tolist()}) == [(1, 25), (1, 50), (2, 75)]
    assert text.count("<title>2: model=resnet8</title>") == 2


def test_only_the_best_curves_are_drawn(tmp_path, figures):
    for number in range(MOST_CURVES + 1):
        make_run(tmp_path / f"{number}_", accuracy=number / 100, optimizer__lr=number + 1.0, curve=[(0.5, 0.5)])
    text = page(read_report([tmp_path]))
    labels = [line.get_label() for line in figures[0].axes[0].lines]
    assert labels == [f"{place}: optimizer.lr={12.0 - place}" for place in range(1, MOST_CURVES + 1)]
    assert "The 10 best configurations." in text


def test_an_effect_has_a_dot_a_run_and_the_mean_by_value(sweep, figures):  # noqa: F811
    text = page(read_report([sweep]))
    (axes,) = figures[1].axes
    *dots, means = (line.get_xydata().tolist() for line in axes.lines)
    assert sorted(dot for (dot,) in dots) == [[0, 0.5], [0, 0.7], [1, 0.9], [1, 0.9]]
    assert means == [[0, pytest.approx(0.6)], [1, 0.9]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["resnet8", "resnet20"]
    assert f"<title>{sweep}/1_resnet8: 0.7000</title>" in text


def test_parallel_coordinates_have_a_line_a_configuration(tmp_path, figures):
    make_run(tmp_path / "0_", accuracy=0.5)
    make_run(tmp_path / "1_", accuracy=0.7, seed=2)
    make_run(tmp_path / "2_", accuracy=0.8, model__name="resnet20")
    make_run(tmp_path / "3_", accuracy=1.0, model__name="resnet20", optimizer__lr=0.2)
    text = page(read_report([tmp_path]))
    lines = {
        line.get_gid(): line.get_ydata()
        for line in figures[2].axes[0].lines
        if (line.get_gid() or "").startswith("name")
    }
    assert {gid: pytest.approx(list(heights)) for gid, heights in lines.items()} == {
        "name: model=resnet8, optimizer.lr=0.1: 0.6000": [0, 0, 0],
        "name: model=resnet20, optimizer.lr=0.1: 0.8000": [1, 0, 0.5],
        "name: model=resnet20, optimizer.lr=0.2: 1.0000": [1, 1, 1],
    }
    assert "Parallel coordinates" in text


def test_one_run_has_its_curve_alone(tmp_path):
    text = page(read_report([make_run(tmp_path / "run", accuracy=0.5, curve=[(0.5, 0.5)])]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard", "Learning curves"]


def test_without_a_finished_run_there_is_a_list(tmp_path):
    text = page(read_report([make_run(tmp_path / "run")]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Not finished"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 3, 2, 1], {"1": 0, "2": 0.5, "3": 1}),
        ([0.01, 1.0, 0.1], {"0.01": 0, "0.1": 0.5, "1.0": 1}),
        ([0.0, 100, 1], {"0.0": 0, "1": 0.01, "100": 1}),
        (["resnet20", "resnet8", "-"], {"-": 0, "resnet8": 0.5, "resnet20": 1}),
        ([True, False], {"false": 0, "true": 1}),
        ([0.1, None], {"0.1": 0, "null": 1}),
        ([5], {"5": 0}),
    ],
)
def test_positions_on_an_axis(values, expected):
    places = positions(values)
    assert list(places) == list(expected)
    assert places == pytest.approx(expected)
