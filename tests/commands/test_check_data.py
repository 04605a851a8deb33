import json
import shutil

import numpy as np
import pytest
from conftest import run
from omegaconf import OmegaConf
from PIL import Image

from reslab.commands.check_data import refuse_names, run_check_data
from reslab.errors import UserError


@pytest.mark.slow
def test_the_exit_status_says_whether_two_splits_share_images(tmp_path):
    """Two commands in processes of their own, since their status is what a script sees."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{number}.png")
    clean = run("check_data", "photos", "data.num_workers=0", cwd=tmp_path)
    assert (clean.returncode, clean.stderr) == (0, "")
    assert clean.stdout.startswith("nothing is wrong with the images")
    (folder,) = (tmp_path / "outputs" / "check_data" / "imagefolder").iterdir()
    assert f"written: {folder.relative_to(tmp_path)}" in clean.stdout
    shutil.copy(tmp_path / "photos/train/cat/1.png", tmp_path / "photos/test/cat/0.png")
    leak = run("check_data", "photos", "data.num_workers=0", "output=look", cwd=tmp_path)
    assert (leak.returncode, leak.stderr) == (1, "")
    assert leak.stdout.startswith("leak  1 of the 6 test images is identical to ")
    assert json.loads((tmp_path / "look" / "check.json").read_text())["leaks"][0]["identical"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["look", "outputs", "photos"]


def test_a_place_that_cannot_be_written_is_said_before_the_look(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").touch()
    config = OmegaConf.create({"data": {"name": "digits", "root": "data"}, "output": None})
    with pytest.raises(UserError, match=r"^output=outputs/check_data/digits cannot be a folder: .*/outputs is a file$"):
        run_check_data(config)


def test_a_folder_may_have_the_name_of_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create({"data": {"name": "imagefolder", "root": "digits"}})
    with pytest.raises(UserError, match="there is no folder digits: data=digits is the data set of this name"):
        refuse_names(config)
    (tmp_path / "digits").mkdir()
    refuse_names(config)
