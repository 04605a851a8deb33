from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslab.errors import UserError
from reslab.inference.named_images import find_images


@pytest.fixture
def photos(tmp_path, monkeypatch):
    hidden = ("sub/.ipynb_checkpoints/d.png", "@eaDir/thumb.jpg", "__MACOSX/._b.png", ".f.png")
    for name in ("b.png", "a.JPG", "c[1].png", "notes.txt", "sub/d.jpeg", "2024/e.png", *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("images", "found"),
    [
        ("b.png", ["b.png"]),
        ("c[1].png", ["c[1].png"]),  # a file, though it reads like a glob
        (".", ["2024/e.png", "a.JPG", "b.png", "c[1].png", "sub/d.jpeg"]),
        ("sub", ["sub/d.jpeg"]),
        ("2024", ["2024/e.png"]),
        ("*.png", ["b.png", "c[1].png"]),
        ("**/*.[jp]*g", ["2024/e.png", "b.png", "c[1].png", "sub/d.jpeg"]),
        ("[2s]*", ["2024/e.png", "sub/d.jpeg"]),
        ("s**", ["sub/d.jpeg"]),
        ("**/sub", ["sub/d.jpeg"]),
        (["sub", "b.png", "*.JPG"], ["sub/d.jpeg", "b.png", "a.JPG"]),
        (["b.png", Path("2024")], ["b.png", "2024/e.png"]),
        (["sub/d.jpeg", "sub", "b.png", "sub/../sub/*.jpeg", "b.png"], ["sub/d.jpeg", "b.png", "b.png"]),
    ],
)
def test_files_folders_globs_and_lists(photos, images, found):
    assert list(find_images(images)) == found


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("z.png", "images=z.png: no image there"),
        ("empty", "images=empty: no image in this folder"),
        ("https://a.org/cat.jpg", "images=https://a.org/cat.jpg: download the image first, and give the file"),
        ("*.gif", r"images=\*.gif: no image there"),
        (["b.png", "z.png"], "images=z.png: no image there"),
        ([], "images: the list is empty"),
        (None, r"images: each of them is a path \(str or Path\), not of type NoneType"),
        (3, r"images: each of them is a path \(str or Path\), not of type int"),
        (b"photos", r"images: each of them is a path \(str or Path\), not of type bytes"),
        (["b.png", 3], r"images: each of them is a path \(str or Path\), not of type int"),
    ],
)
def test_no_image_is_one_line(photos, images, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        find_images(images)


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (Image.new("L", (8, 8)), "images: each of them is a path (str or Path), not of type Image"),
        (np.zeros((2, 8, 8)), "images: each of them is a path (str or Path), not of type ndarray"),
        ([torch.zeros(8, 8)], "images: each of them is a path (str or Path), not of type Tensor"),
        (3, "images: each of them is a path (str or Path), not of type int"),
        (["my", "photos/a.png"], "images=my: a name with blanks needs quotes: 'my photos/a.png'"),
        (["latest"], "images=latest: the run comes before the images: latest photo.jpg"),
    ],
)
def test_what_is_no_name_of_an_image_is_answered_with_what_is_meant(tmp_path, monkeypatch, images, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my photos").mkdir()
    (tmp_path / "my photos" / "a.png").touch()
    with pytest.raises(UserError) as caught:
        find_images(images)
    assert str(caught.value) == line
    assert find_images(Path("my photos").glob("*.png")) == ["my photos/a.png"]


def test_files_of_a_folder_that_are_not_read_are_counted(photos, caplog):
    Path("sub/g.heic").touch()
    find_images(["sub", "b.png"])
    assert caplog.messages == [
        "left out 1 of the files in sub, which are not read as images (1 .heic): "
        "convert them to PNG or JPEG, or rename them"
    ]
