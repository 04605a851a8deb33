import json
import re
import shutil
from base64 import b64decode
from html.parser import HTMLParser
from io import BytesIO

import pytest
from PIL import Image

from reslab.data_checks.check import check_data
from reslab.data_checks.writing import NUMBERS, PAGE, SHEETS, write_check
from reslab.errors import UserError

VOID = {"meta", "br", "img", "!doctype"}


class Reader(HTMLParser):
    """Collects the tags and the text of a page, and the attributes of its pictures."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.text, self.pictures, self.attributes = [], [], "", [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag == "img":
            self.pictures.append(dict(attributes))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


@pytest.fixture(scope="module")
def written(planted_check, tmp_path_factory):
    folder = tmp_path_factory.mktemp("look") / "new"
    write_check(planted_check, folder)
    return folder


def test_the_folder_holds_the_page_the_numbers_and_a_sheet_of_each_class(written, planted_check):
    assert sorted(str(path.relative_to(written)) for path in written.rglob("*.*")) == [
        NUMBERS, f"{SHEETS}/0000_cat.png", f"{SHEETS}/0001_dog.png", PAGE,
    ]  # fmt: skip
    assert json.loads((written / NUMBERS).read_text()) == planted_check.result
    with Image.open(written / SHEETS / "0000_cat.png") as sheet:
        assert sheet.size == (8 * 96 + 7 * 4, 3 * 96 + 2 * 4)  # the 20 images that can be read


def test_the_page_shows_each_problem_and_pictures_of_the_copies(written, planted_check):
    page = Reader((written / PAGE).read_text())
    assert page.open == []
    for problem in planted_check.result["problems"]:
        assert problem["text"] in page.text
    headings = re.findall("(?:Identical|Nearly identical) images [a-z ]+", page.text)
    assert headings == [
        "Identical images in two splits",
        "Nearly identical images in two splits",
        "Identical images of two classes",
        "Identical images within a split",
    ]
    names = [picture["alt"] for picture in page.pictures]
    assert names[:4] == ["train/cat/00.png", "test/cat/same_bytes.png", "train/cat/01.png", "test/cat/same_pixels.bmp"]
    kinds = set()
    for picture in page.pictures:
        head, content = picture["src"].split(",")
        with Image.open(BytesIO(b64decode(content))) as image:
            assert image.size == (int(picture["width"]), int(picture["height"]))
            kinds.add((head, image.format))
    assert kinds <= {("data:image/jpeg;base64", "JPEG"), ("data:image/png;base64", "PNG")}


def test_the_page_loads_nothing_and_runs_nothing(written):
    page = Reader((written / PAGE).read_text())
    assert {"script", "link", "iframe"}.isdisjoint(page.tags)
    assert {name for name in page.attributes if name.startswith("on")} == set()
    assert re.findall(r"(?:src|href)=(?!\"data:)|url\(", (written / PAGE).read_text()) == []


NAMES = ["<script>alert(1)<b>", "100% $HOME ${x} {y}", "a&b \"q\" 'z'", "🐈", "two\nlines\x1b[31m"]


@pytest.mark.slow
def test_names_are_shown_as_they_are(check_config, planted, tmp_path):
    for name in NAMES:
        shutil.copytree(planted / "train" / "dog", tmp_path / "data" / name)
        (tmp_path / "data" / name / "00.png").rename(tmp_path / "data" / name / '"><img src=x onerror=alert(1)>.png')
    write_check(check_data(check_config(f"data.root='{tmp_path / 'data'}'")), tmp_path / "look")
    page = Reader((tmp_path / "look" / PAGE).read_text())
    assert "script" not in page.tags
    assert "onerror" not in page.attributes
    for name in [*NAMES[:-1], r"two\nlines\x1b[31m", '"><img src=x onerror=alert(1)>.png']:
        assert name in page.text
    assert len(list((tmp_path / "look" / SHEETS).iterdir())) == len(NAMES)


def test_images_in_memory_have_pictures_too(check_config, tmp_path):
    check = check_data(check_config("data=digits"))
    write_check(check, tmp_path)
    page = Reader((tmp_path / PAGE).read_text())
    assert len(page.pictures) == 10 * 24
    assert {picture["width"] for picture in page.pictures} == {"96"}
    with Image.open(tmp_path / SHEETS / "0003_3.png") as sheet:
        shown = sheet.crop((0, 0, 96, 96)).resize((8, 8), Image.Resampling.NEAREST).convert("L")
    first = int((check.images.labels == 3).nonzero()[0][0])
    assert list(shown.getdata()) == check.images.source(first).flatten().tolist()


def test_a_folder_that_cannot_be_written_is_a_mistake(planted_check, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        write_check(planted_check, tmp_path / "file" / "look")
