import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from fake_runs import make_run

from reslab.reports.leaderboard import read_report
from reslab.reports.page import html_page

COMPARISONS = ["Comparisons by val/accuracy", "Comparisons by test/accuracy"]


class Page(HTMLParser):
    """The data-value of each row of a leaderboard, and what would be fetched."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.tags, self.fetched, self.links = [], [], [], []
        self.feed(text)
        self.rows = [row for row in self.rows if row]

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if tag == "a":
            self.links.append(values["href"])
        else:
            self.fetched += [values[name] for name in ("src", "href", "xlink:href") if name in values]
        if tag == "tr":
            self.rows.append([])
        if tag == "td" and "data-value" in values:
            self.rows[-1].append(values["data-value"])


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_is_well_formed(sweep):
    text = html_page(read_report([sweep]))
    parsed = Page(text)
    assert all(place.startswith("#") for place in parsed.fetched)
    assert "url(http" not in text
    assert "@import" not in text
    svgs = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(svgs) == 3  # the curves of two splits, and the effect of one parameter
    for svg in svgs:
        ElementTree.fromstring(svg)
    assert text == html_page(read_report([sweep]))


def test_the_table_is_sorted_by_exact_values(sweep):
    folders = [str(sweep / name) for name in ("2_resnet20", "1_resnet8")]
    first, second = Page(html_page(read_report([sweep]))).rows
    assert (first[0], *first[3:5]) == ("1", "2", "resnet20")
    assert [float(first[place]) for place in (1, 2, 5)] == pytest.approx([0.9, 0.845, 12.5])
    assert [float(second[place]) for place in (1, 2, 5)] == pytest.approx([0.6, 0.59, 12.5])
    assert [first[6], second[6]] == folders


def test_the_leaderboard_links_to_the_pages_of_its_runs(sweep):
    for name in ("1_resnet8", "2_resnet20"):
        (sweep / name / "run.html").touch()
    renamed = (sweep / "2_resnet20").rename(sweep / "2_a b#%<x>")
    assert Page(html_page(read_report([sweep]), sweep)).links == ["2_a%20b%23%25%3Cx%3E/run.html", "1_resnet8/run.html"]
    there = sweep.parent / "there"
    assert Page(html_page(read_report([renamed]), there)).links == ["../sweep/2_a%20b%23%25%3Cx%3E/run.html"]


def test_failures_are_listed_as_text(sweep):
    text = html_page(read_report([sweep]))
    assert "<li>job 4 failed: a &lt; b</li>" in text
    assert "<b>" not in text


def test_one_run_has_only_a_curve(tmp_path):
    text = html_page(read_report([make_run(tmp_path / "run", accuracy=0.5, curve=[(0.5, 0.5)])]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard", "Learning curves"]


def test_without_a_finished_run_there_is_only_a_list(tmp_path):
    text = html_page(read_report([make_run(tmp_path / "run")]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Not finished"]


def test_without_validation_there_is_no_panel_for_it(tmp_path, figures):
    for number in range(4):
        result = {"status": "finished", "test/accuracy": 0.5 + number / 10}
        make_run(tmp_path / f"{number}_x", result=result, optimizer__lr=1.0 + number % 2, curve=[(0.5, "")])
    text = html_page(read_report([tmp_path]))
    assert [axes.get_title() for axes in figures[0].axes] == ["training error in %"]
    assert [axes.get_ylabel() for axes in figures[1].axes] == ["test/accuracy"]
    assert "<p>By test accuracy; click a heading to sort.</p>" in text


def test_without_epochs_there_are_no_curves(tmp_path):
    text = html_page(read_report([make_run(tmp_path / "run", accuracy=0.5)]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard"]


def test_not_a_number_has_no_dot_and_no_line(tmp_path, figures):
    for number, accuracy in enumerate((0.5, 0.75, float("nan"), 1.0)):
        options = {"optimizer__lr": 1.0 + number % 2, "optimizer__momentum": number // 2}
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, **options)
    rows = Page(html_page(read_report([tmp_path]))).rows
    assert [row[1] for row in rows] == ["1.0", "0.75", "0.5", ""]
    assert sorted(figures[0].axes[0].collections[0].get_offsets()[:, 1]) == [0.5, 0.75, 1.0]
    assert len(figures[2].axes[0].collections[0].get_segments()) == 3


def test_configurations_without_a_number_have_no_line(tmp_path):
    """Their seeds with a number still have dots."""
    for number in range(8):
        options = {"optimizer__lr": 1.0 + number % 2, "optimizer__momentum": number // 2 % 2}
        accuracy = float("nan") if number < 4 else number / 8
        make_run(tmp_path / f"{number}_x", accuracy=accuracy, seed=number // 4, **options)
    text = html_page(read_report([tmp_path]))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Leaderboard", *COMPARISONS, "Effect of each setting"]


def test_a_decimal_point_alone_has_no_effect(tmp_path):
    for number, lr in enumerate((1, 1.0)):
        make_run(tmp_path / f"{number}_", accuracy=0.5, seed=number, optimizer__lr=lr)
    make_run(tmp_path / "2_", result={"status": "failed"}, optimizer__lr=2)
    assert re.findall("<h2>(.*?)</h2>", html_page(read_report([tmp_path]))) == ["Leaderboard", "Not finished"]


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
    text = html_page(read_report([tmp_path]))
    for clicks, expected in (("click();", once), ("click(); header.click();", twice)):
        find = f'[...headers].find(each => each.textContent === "{heading}")'
        click = f"headers[0].click(); const header = {find}; header.{clicks}"
        (tmp_path / "page.html").write_text(text.replace("</body>", f"<script>{click}</script></body>"))
        command = [CHROMIUM, "--headless", "--no-sandbox", "--dump-dom", (tmp_path / "page.html").as_uri()]
        dom = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
        column = re.findall('<th data-direction="[^"]*">(.*?)</th>', dom).index(heading)
        assert [row[column] for row in Page(dom).rows] == expected
        assert re.findall('<th data-direction="(-?1)">(.*?)</th>', dom) == [
            ("1" if clicks == "click();" else "-1", heading)
        ]


def test_every_pair_of_the_comparisons_shows_what_differs(tmp_path):
    """Of a long label the middle had been left out, and with it the only difference."""
    shared = {"optimizer__name": "o" * 80, "scheduler": {"name": "s" * 80}}
    other = {"optimizer__name": "O" * 80, "scheduler": {"name": "S" * 80}}
    for number, (lr, options) in enumerate([(1, shared), (2, shared), (3, other)]):
        for seed in (1, 2):
            folder = tmp_path / f"{number}_{seed}"
            make_run(folder, accuracy=0.9 - number / 10 - seed / 100, seed=seed, optimizer__lr=lr, **options)
    text = html_page(read_report([tmp_path]))
    label = f"1: lr=1, optimizer={'o' * 80}, scheduler={'s' * 80}"
    assert text.count(f'<th class="label">{label}</th>') == 2
    assert text.count('title="lr=1 minus lr=2: 95% confidence interval') == 2
