import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import torch
from fake_answers import make_answers, make_tested_run
from fake_runs import make_run

from reslab.errors import UserError
from reslab.reports.run_page.writing import write_run_page
from reslab.reports.statistics import proportion_interval
from reslab.run import Run
from reslab.training.answers import Answers

CHROMIUM = shutil.which("chromium")
NASTY = ["</script><script>alert(1)</script>", "a&b \"'$x^2$ 50% =1+1", "名前 😀 \u202eevil", "x" * 300]


class Reader(HTMLParser):
    """Collects the tags of a page, its text, and what would be fetched."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self.fetched, self.open = [], "", [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.open.append(tag)
        self.fetched += [value for name, value in attributes if name in ("src", "href") and not value.startswith("#")]

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.text += data


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


@pytest.mark.slow
def test_the_page_needs_no_other_file_and_is_the_same_each_time(tmp_path):
    run = make_tested_run(tmp_path / "run", make_answers())
    page = write_run_page(run).read_text()
    assert page == write_run_page(run, tmp_path / "there").read_text()
    assert Reader(page).fetched == []
    assert "url(" not in re.sub(r"url\(#\w+\)", "", page)
    assert "@import" not in page
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        "Test", "Learning curves", "Confusion matrix", "Most confident mistakes", "Least confident right answers",
        "Classes", "Calibration", "Provenance", "Settings",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_could_not_be_written_at_the_end_of_the_run_is_said(tmp_path):
    run = make_tested_run(tmp_path / "run", make_answers())
    assert "not written" not in Reader(write_run_page(run).read_text()).text
    run.result_file.write_text(json.dumps(run.result | {"unwritten": ["logger.<b>"]}))
    line = f"not written: logger.<b>; resume={tmp_path}/run tests again and writes it"
    assert line in Reader(write_run_page(run).read_text()).text
    run.result_file.write_text(json.dumps(run.result | {"unwritten": 3}))
    with pytest.raises(UserError, match="unwritten is 3, not a list of names"):
        write_run_page(run)


def test_names_of_classes_and_files_are_text(tmp_path):
    files = [f"{NASTY[number % 4]}/{number}\udcff.png".replace("</", "<") for number in range(60)]
    run = make_tested_run(tmp_path / "run", make_answers(60, scale=1, classes=NASTY, files=files))
    content = write_run_page(run).read_bytes()
    page = content.decode(errors="surrogateescape")
    found = Reader(page)
    assert found.tags.count("script") == 2  # the data and the page's own
    assert NASTY[0] in found.text
    assert NASTY[1] in found.text
    assert "名前 😀 \\u202eevil" in found.text  # which would reverse what follows
    assert "\u202e" not in page
    assert data_of(page)["classes"][:2] == NASTY[:2]


def test_the_cells_have_all_images_and_say_how_many(tmp_path):
    answers = make_answers(1500, scale=1)
    page = write_run_page(make_tested_run(tmp_path / "run", answers)).read_text()
    data = data_of(page)
    assert sum(data["counts"].values()) == 1500
    found = re.findall(r'data-cell="(\d)-(\d)".*?data-count="(\d+)"', page)
    cells = {(int(row), int(column)): int(count) for row, column, count in found}
    assert len(cells) == 16
    for (true, predicted), count in cells.items():
        assert count == int(((answers.labels == true) & (answers.predicted == predicted)).sum())
        assert data["counts"][f"{true}-{predicted}"] == count
    assert len(data["images"]) == 500
    for position, true, predicted, *_ in data["images"]:
        assert (true, predicted) == (int(answers.labels[position]), int(answers.predicted[position]))


@pytest.mark.slow
def test_a_thousand_classes_have_a_table_of_pairs(tmp_path):
    answers = make_answers(3000, 1000, scale=3)
    page = write_run_page(make_tested_run(tmp_path / "run", answers)).read_text()
    assert "<h2>Most confused classes</h2>" in page
    assert 'class="matrix"' not in page.split("</style>")[1]
    wrong = int((~answers.right).sum())
    pairs = len({(int(a), int(b)) for a, b in zip(answers.labels, answers.predicted, strict=True) if a != b})
    assert wrong > 1000
    assert f"The 1,000 most frequent of {pairs:,} pairs" in page
    assert len(page) < 3_000_000


def test_nan_is_shown_and_the_data_stay_json(tmp_path):
    logits = torch.tensor([[float("nan"), 0.0], [1.0, 0.0], [0.0, 1.0]])
    answers = Answers(logits, torch.tensor([0, 0, 1]), torch.arange(3), ["a", "b"])
    page = write_run_page(make_tested_run(tmp_path / "run", answers)).read_text()
    assert len(data_of(page)["images"]) == 3
    assert ">nan</td>" in page


def test_without_the_data_set_a_line_says_why_there_are_no_pictures(tmp_path):
    page = write_run_page(make_tested_run(tmp_path / "run", make_answers())).read_text()
    assert "without pictures: " in page
    assert "its checkpoints are missing" in page
    assert "<img" not in page


def test_a_run_without_answers_and_one_without_a_result_have_a_page(tmp_path):
    images = {"test/images": 10_000, "val/images": 143}
    page = write_run_page(Run(make_run(tmp_path / "old", accuracy=0.5, curve=[(0.5, 0.5)], result=images))).read_text()
    assert "<th>test/images</th><td>10,000</td>" in page
    assert "<th>val/images</th><td>143</td>" in page
    assert "There is no answers.safetensors" in page
    low, high = proportion_interval(4900, 10_000)
    assert f"<th>test/accuracy</th><td>0.4900<br>95% interval {low:.4f} to {high:.4f} (Wilson)</td>" in page
    assert "<th>val/accuracy</th><td>0.5000</td>" in page
    assert re.findall("<h2>(.*?)</h2>", page) == ["Result", "Learning curves", "Provenance", "Settings"]
    assert "<script" not in page
    page = write_run_page(Run(make_run(tmp_path / "new", result={"status": "failed", "error": "a < b"}))).read_text()
    assert '<p class="warning">failed: a &lt; b</p>' in page


def test_what_cannot_be_trusted_is_refused_in_one_line(tmp_path):
    run = make_tested_run(tmp_path / "run", make_answers(), **{"test/accuracy": 0.125})
    with pytest.raises(UserError, match=r"^the answers are right for \d+ of 200 images"):
        write_run_page(run)
    assert not (run.folder / "run.html").exists()
    run.answers_file.write_bytes(b"no answers")
    with pytest.raises(UserError, match=r"answers\.safetensors cannot be read"):
        write_run_page(run)
    run.result_file.write_text('{"status": "finished", "test/accuracy": "high"}')
    with pytest.raises(UserError, match='test/accuracy is "high", not a number'):
        write_run_page(run)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_click_on_a_cell_shows_its_images_and_a_choice_orders_the_matrix(tmp_path):
    answers = make_answers(120, classes=NASTY, scale=1)
    page = write_run_page(make_tested_run(tmp_path / "run", answers))
    click = """document.querySelector('td[data-cell="0-1"] a').click(); setTimeout(() => {
      const order = document.querySelector("select"); order.value = "most mistakes first"; order.onchange() }, 200)"""
    page.write_text(page.read_text().replace("</body>", f"<script>{click}</script></body>"))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--virtual-time-budget=3000", "--dump-dom", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    cell = dom.split('<div id="cell" class="cell">')[1].split("<h2>")[0]
    count = int(((answers.labels == 0) & (answers.predicted == 1)).sum())
    assert f": {count} image" in cell
    assert cell.count("<figure>") == count > 0
    assert "<script" not in cell
    mistakes = [int(((answers.labels == number) & ~answers.right).sum()) for number in range(4)]
    rows = [int(number) for number in re.findall(r'<tr data-row="(\d)">', dom)]
    assert [mistakes[number] for number in rows] == sorted(mistakes, reverse=True)
