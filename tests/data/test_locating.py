import pytest

from reslab.data.locating import locate_images
from reslab.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name in ("photos/cat/1.png", "photos/cat/2.JPG", "photos/3.png", "photos/3.gif", "other/4.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path / "photos"


def test_paths_are_relative_to_the_root_or_to_the_folder_of_the_file(root):
    names = ["cat/1.png", "./cat//../cat/1.png", "cat\\1.png", "cat/2", str(root / "3.png"), "../other/4.png"]
    found = locate_images(names, root, root / "labels.csv")
    assert found.names == ["cat/1.png"] * 3 + ["cat/2.JPG", "3.png", "../other/4.png"]
    assert found.real_paths == [str((root / name).resolve()) for name in found.names]
    beside = locate_images(["photos/cat/1.png", "other/4"], root, root.parent / "labels.csv")
    assert beside.names == ["cat/1.png", "../other/4.png"]


def test_a_link_is_the_image_that_it_leads_to(root):
    (root / "link.png").symlink_to(root / "3.png")
    (root / "pets").symlink_to(root / "cat")
    found = locate_images(["link.png", "pets/1.png"], root, root / "labels.csv")
    assert found.names == ["link.png", "pets/1.png"]
    assert found.real_paths == [str((root / name).resolve()) for name in ("3.png", "cat/1.png")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["3.png", "cat/9.png", "cat", "dead.png"], "3 images of 4 not found in {root}: cat/9.png, cat, dead.png"),
        (["cat/1.png", "3"], "{root}/3 may be 3.gif or 3.png: give the name with its suffix"),
        (["cat/1.png", "x" * 5000 + "/1.png"], "1 image of 2 not found"),
    ],
)
def test_an_image_that_is_missing_or_may_be_either_of_two_is_refused(root, names, message):
    (root / "dead.png").symlink_to(root / "nothing")
    with pytest.raises(UserError) as error:
        locate_images(names, root, root / "labels.csv")
    assert message.format(root=root) in str(error.value)
