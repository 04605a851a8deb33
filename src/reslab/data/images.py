"""Image files: which ones there are, their pixels, and in one line those that cannot be read."""

import logging
import os
import warnings
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional

from reslab.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # of the content; Pillow hands others to Ghostscript
MAX_PIXELS = 2**27  # half a GiB once decoded, at Pillow's four bytes each
MAX_ASPECT = 3  # of what is resized: a line of a million pixels would become a thousand times as many
LISTED = 3


def image_paths(folder: Path) -> list[Path]:
    """Every image below a folder, sorted; links are followed, each folder is read once, hidden files are none.

    Raises OSError for a folder that cannot be read.
    """
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=fail):
        real = os.path.realpath(parent)
        if real in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(parent, name) for name in files if is_image_name(name)]
    return sorted(found)


def fail(error: OSError) -> NoReturn:
    raise error


def is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


class UnreadableImageError(Exception):
    """`<file> (<reason>)`"""


def settle(unreadable: list[str], total: int, on_error: str, option: str = "data.on_error") -> None:
    """Say how many of `total` images were left out. Raises UserError if `on_error` is "stop" and if none is left."""
    if not unreadable:
        return
    if on_error == "stop":
        them = "it" if len(unreadable) == 1 else "them"
        raise UserError(f"cannot read {listed(unreadable)}: remove {them}, or {option}=skip goes on without {them}")
    if len(unreadable) == total:
        raise UserError(f"none of {total:,} images can be read: {listed(unreadable)}")
    log.warning("left out %d of %d images, which cannot be read: %s", len(unreadable), total, listed(unreadable))


def listed(unreadable: list[str]) -> str:
    """The first few and how many more."""
    more = f" and {len(unreadable) - LISTED:,} more" if len(unreadable) > LISTED else ""
    return ", ".join(unreadable[:LISTED]) + more


def read_image(path: Path, channels: int) -> Tensor:
    """uint8 (channels, H, W), turned upright as its EXIF orientation says. Raises UnreadableImageError.

    Colours are those under the transparency; grey of 16 bits is scaled to 8.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, two lines an image
            image = decode(path)
            image = image if image.mode == mode else image.convert(mode)  # which copies
    except Exception as error:  # Pillow's decoders raise nearly anything on what is broken
        raise UnreadableImageError(f"{path} ({reason(error)})") from error
    return functional.pil_to_tensor(image)


def decode(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError("no file, or a link to none")
    with Image.open(path, formats=FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width:,} x {opened.height:,} pixels, of at most {MAX_PIXELS:,}")
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
    image: Image.Image = opened
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip at 255
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("grey of more than 16 bits")
        return Image.fromarray((levels / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("grey of floating point, whose range is not known")
    return image


def reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def center_square(image: Tensor, size: int) -> Tensor:
    """The shorter side resized to `size`, then the middle: uint8 (C, H, W) to (C, size, size)."""
    height, width = image.shape[1:]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        image = functional.center_crop(image, [min(height, longest), min(width, longest)])
    return functional.center_crop(functional.resize(image, [size], antialias=True), [size, size])
