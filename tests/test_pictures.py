import importlib.util
from pathlib import Path

import pytest
from PIL import Image

from reslab.data.datasets import FashionMNIST

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture
def pictures(monkeypatch, tmp_path):
    """The script docs/pictures.py, which writes to `tmp_path`."""
    spec = importlib.util.spec_from_file_location("pictures", DOCS / "pictures.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    return script


@pytest.mark.skipif(not FashionMNIST.debian_folder.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_picture_of_augmentation_is_that_of_the_documentation(pictures, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["pictures.py", "augmentation"])
    pictures.main()
    with (
        Image.open(tmp_path / "augmentation.jpg") as drawn,
        Image.open(DOCS / "pictures" / "augmentation.jpg") as shown,
    ):
        assert drawn.size == shown.size


def test_every_option_of_augmentation_is_in_the_picture_and_in_the_table(pictures, composed):
    options = set(composed("data=synthetic").data.augment)
    assert {name for example in pictures.AUGMENTATIONS for name in example} == options
    page = (DOCS / "data.md").read_text()
    assert [name for name in options if f"`data.augment.{name}=" not in page] == []
