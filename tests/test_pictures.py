import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslab.data.datasets import FashionMNIST

DOCS = Path(__file__).parents[1] / "docs"
PICTURES = DOCS / "pictures"


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    """The script docs/pictures.py, which writes to `tmp_path`."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    return script


needs_fashion_mnist = pytest.mark.skipif(
    not FashionMNIST.debian_folder.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)


@pytest.mark.parametrize("name", [pytest.param("augmentation", marks=needs_fashion_mnist), "sizes"])
def test_a_picture_is_what_the_code_does(pictures, monkeypatch, tmp_path, name):
    """Up to the compression of another version of Pillow."""
    monkeypatch.setattr("sys.argv", ["pictures.py", name])
    pictures.main()
    drawn, shown = (np.asarray(Image.open(folder / f"{name}.jpg")).astype(int) for folder in (tmp_path, PICTURES))
    assert np.abs(drawn - shown).mean() < 1  # level of 255


def test_every_option_of_augmentation_is_in_the_picture_and_in_the_table(pictures, composed):
    options = set(composed("data=synthetic").data.augment)
    assert {name for example in pictures.AUGMENTATIONS for name in example} == options
    page = (DOCS / "data.md").read_text()
    assert [name for name in options if f"`data.augment.{name}=" not in page] == []


def test_the_pages_show_every_picture(pictures):
    pages = "".join(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md"))
    assert {path.stem for path in PICTURES.glob("*.jpg")} == pictures.PICTURES.keys()
    assert [name for name in pictures.PICTURES if f"(pictures/{name}.jpg)" not in pages] == []
