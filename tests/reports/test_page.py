import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from fake_runs import make_run
from matplotlib.figure import Figure
from test_leaderboard import sweep  # noqa: F401

from reslab.reports.leaderboard import read_report
from reslab.reports.page import MOST_CURVES, page


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
    assert (first[0], *first[3:5]) == ("1", "2", "resnet20")
    assert [float(first[place]) for place in (1, 2, 5)] == pytest.approx([0.9, 0.845, 12.5])
    assert [float(second[place]) for place in (1, 2, 5)] == pytest.approx([0.6, 0.59, 12.5])
    assert [first[6], second[6]] == folders


def test_what_failed_is_listed_as_text(sweep):  # noqa: F811
    text = page(read_report([sweep]))
    assert "<li>job 4 failed: a &lt; b</li>" in text
    assert "<b>" not in text


def test_curves_are_means_within_the_seeds(tmp_path, figures):
    for seed, errors in enumerate([(0.5, 0.25), (0.75, 0.5)]):
        make_run(tmp_path / f"{seed}_", accuracy=0.5, seed=seed, curve=[(1 - error, 1 - error) for error in errors])
    text = page(read_report([tmp_path]))
    for axes in figures[0].axes:
        assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 62.5], [2, 37.5]]]
        (band,) = axes.collections
        corners = {(x, y) for x, y in band.get_paths()[0].vertices.tolist()}
        assert corners == {(1, 50), (1, 75), (2, 25), (2, 50)}
    assert text.count("<title>1: all runs</title>") == 2
    assert "<p>Lines: mean over the seeds; bands: from the smallest to the largest.</p>" in text


def test_both_panels_show_all_errors(tmp_path, figures):
    page(read_report([make_run(tmp_path / "run", accuracy=0.5, curve=[(0.75, 0.0), (0.75, 0.5)])]))
    for axes in figures[0].axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert 100 < high < 110


def test_a_mean_ends_where_a_seed_ends(tmp_path, figures):
    """That of the survivors would fall to the better one's error."""
    make_run(tmp_path / "0_", accuracy=0.5, seed=1, curve=[(0.5, 0.75), (0.75, 0.875)])
    make_run(tmp_path / "1_", accuracy=0.5, seed=2, curve=[(0.5, 0.25)])
    make_run(tmp_path / "2_", accuracy=0.75, optimizer__lr=1.0, curve=[(0.5, 0.75), (0.75, 0.5)])
    text = page(read_report([tmp_path]))
    whole, thin, mean = (line.get_xydata().tolist() for line in figures[0].axes[1].lines)
    assert whole == [[1, 25], [2, 50]]
    assert thin == [[1, 25], [2, 12.5]]
    assert mean == [[1, 50]]
    (band,) = figures[0].axes[1].collections
    assert {(x, y) for x, y in band.get_paths()[0].vertices.tolist()} == {(1, 25), (1, 75)}
    assert "Where only some seeds have an epoch (2): thin lines, a seed each, and no mean.</p>" in text


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


def test_without_validation_there_is_no_panel_of_it(tmp_path, figures):
    for number in range(4):
        result = {"status": "finished", "test/accuracy": 0.5 + number / 10}
        make_run(tmp_path / f"{number}_x", result=result, optimizer__lr=1.0 + number % 2, curve=[(0.5, "")])
    text = page(read_report([tmp_path]))
    assert [axes.get_title() for axes in figures[0].axes] == ["training error in %"]
    assert [axes.get_ylabel() for axes in figures[1].axes] == ["test/accuracy"]
    assert "<p>By test accuracy; a click on a heading sorts.</p>" in text


def test_without_epochs_there_are_no_curves(tmp_path):
    text = page(read_report([make_run(tmp_path / "run", accuracy=0.5)]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard"]


def test_what_is_no_number_has_no_dot_and_no_line(tmp_path, figures):
    for number, accuracy in enumerate((0.5, 0.75, float("nan"), 1.0)):
        options = {"optimizer__lr": 1.0 + number % 2, "optimizer__momentum": number // 2}
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, **options)
    rows = Page(page(read_report([tmp_path]))).rows
    assert [row[1] for row in rows[1:]] == ["1.0", "0.75", "0.5", ""]
    dots = [line.get_ydata().tolist() for line in figures[0].axes[0].lines]
    assert sorted(dots) == [[0.5], [0.75], [1.0]]
    lines = [line for line in figures[2].axes[0].lines if (line.get_gid() or "").startswith("name")]
    assert len(lines) == 3


def test_configurations_without_a_number_have_no_line(tmp_path):
    """Their other seeds have dots."""
    for number in range(8):
        options = {"optimizer__lr": 1.0 + number % 2, "optimizer__momentum": number // 2 % 2}
        accuracy = float("nan") if number < 4 else number / 8
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, seed=number // 4, **options)
    text = page(read_report([tmp_path]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard", "Effect of each parameter"]


def test_names_are_no_formulas(tmp_path):
    for number in range(2):
        options = {"data__name": f"$a_{number}^$", "optimizer__name": f"$\\frac{{{number}$"}
        make_run(tmp_path / f"{number}_x", accuracy=0.5 + number / 4, curve=[(0.5, 0.5)], **options)
    text = page(read_report([tmp_path]))
    assert text.count(">$a_0^$</text>") == 2  # on the axis of the effect and of the parallel coordinates
    assert ": data=$a_0^$, optimizer=$\\frac{0$</text>" in text  # in the legend


def test_a_number_with_a_point_has_no_effect(tmp_path):
    for number, lr in enumerate((1, 1.0)):
        make_run(tmp_path / f"{number}_", accuracy=0.5, seed=number, optimizer__lr=lr)
    make_run(tmp_path / "2_", result={"status": "failed"}, optimizer__lr=2)
    assert re.findall("<h2>(.*?)</h2>", page(read_report([tmp_path]))) == ["Leaderboard", "Not finished"]


CHROMIUM = shutil.which("chromium")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize(
    ("heading", "once", "twice"),
    [
        ("optimizer.lr", ["1e-05", "0.3", "20.0", "100.0", ""], ["100.0", "20.0", "0.3", "1e-05", ""]),
        ("model", ["wrn8", "wrn9", "wrn20", "wrn101", "wrn110"], ["wrn110", "wrn101", "wrn20", "wrn9", "wrn8"]),
        ("val/accuracy", ["0.0625", "0.125", "0.1875", "0.25", ""], ["0.25", "0.1875", "0.125", "0.0625", ""]),
    ],
)  # fmt: skip
def test_a_click_on_a_heading_sorts(tmp_path, heading, once, twice):
    models = ("wrn20", "wrn110", "wrn8", "wrn101", "wrn9")
    for number, lr in enumerate((20.0, 0.3, None, 100.0, 1e-5)):
        accuracy = (number + 1) / 16 if number < 4 else float("nan")
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, optimizer__lr=lr, model__name=models[number])
    text = page(read_report([tmp_path]))
    for clicks, expected in (("click();", once), ("click(); header.click();", twice)):
        find = f'[...headers].find(each => each.textContent === "{heading}")'
        click = f"headers[0].click(); const header = {find}; header.{clicks}"
        (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{click}</script></body>"))
        command = [CHROMIUM, "--headless", "--no-sandbox", "--dump-dom", (tmp_path / "page.html").as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        column = re.findall("<th[^>]*>(.*?)</th>", dom).index(heading)
        assert [row[column] for row in Page(dom).rows[1:]] == expected
        assert re.findall('<th data-direction="(-?1)">(.*?)</th>', dom) == [
            ("1" if clicks == "click();" else "-1", heading)
        ]
