"""A folder of images with planted faults, of which every number is known."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bad_images import cut
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from reslab.configuration import CONF
from reslab.data_checks.check import Check, check_data


def photo(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Return an image with structure, as a photograph has it: smooth noise of three sizes."""
    generator = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(generator.integers(0, 256, (cells, cells, 3), np.uint8)).resize(
                (width, height), Image.Resampling.BICUBIC
            ),
            float,
        )
        for cells in (3, 6, 12)
    ]
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


@pytest.fixture
def check_config(composed: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Return the configuration of `python src/check_data.py <overrides>`; `composed` has initialized Hydra."""
    return lambda *overrides: compose("check_data", overrides=["data.num_workers=0", *overrides])


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 training and 8 test images of each of two classes, and the faults that the comments count."""
    root = tmp_path_factory.mktemp("planted")
    train, test = root / "train", root / "test"
    for number, folder in enumerate(split / name for split in (train, test) for name in ("cat", "dog")):
        folder.mkdir(parents=True)
        for each in range(20 if folder.parent == train else 8):
            photo(100 * number + each).save(folder / f"{each:02}.png")
    shutil.copy(train / "cat" / "00.png", test / "cat" / "same_bytes.png")  # two identical test images
    Image.open(train / "cat" / "01.png").save(test / "cat" / "same_pixels.bmp")
    Image.open(train / "cat" / "02.png").save(test / "cat" / "encoded.jpg", quality=70)  # two near ones
    Image.open(train / "dog" / "03.png").resize((128, 96)).save(test / "dog" / "resized.png")
    shutil.copy(train / "cat" / "04.png", train / "dog" / "flipped.png")  # one copy with another class
    shutil.copy(train / "dog" / "05.png", train / "dog" / "again.png")  # one copy with the same class
    photo(500).convert("L").save(train / "dog" / "grey.jpg")
    Image.fromarray((np.arange(64 * 48, dtype=np.uint16) * 21).reshape(48, 64)).save(train / "dog" / "deep.png")
    transparent = photo(501).convert("RGBA")
    transparent.putalpha(100)
    transparent.save(train / "dog" / "transparent.png")
    held = Image.Exif()
    held[0x0112] = 6
    photo(502).save(train / "dog" / "turned.jpg", exif=held)
    cut(train / "cat" / "cut.jpg")  # two broken files
    (test / "dog" / "empty.png").touch()
    (train / "cat" / "phone.heic").touch()  # and one that is not read
    return root


@pytest.fixture(scope="session")
def planted_check(planted: Path) -> Check:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = [f"data.root={planted}", "data.val_fraction=0", "data.num_workers=0"]
        return check_data(compose("check_data", overrides=options))
