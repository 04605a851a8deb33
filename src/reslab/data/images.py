"""Image files: finding them, reading their pixels, and reporting in one line those that cannot be read."""

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
# The formats of the content. For others, Pillow would run Ghostscript.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 2**27  # half a GiB once decoded, at Pillow's four bytes each
# Crop to 3:1 before resizing; a 1 x 1,000,000 image would grow a thousandfold.
MAX_ASPECT = 3
LISTED_FILES = 3


def image_paths(folder: Path) -> list[Path]:
    """Return every image file below a folder, sorted.

    Links are followed, each folder is read once, and hidden files are left out. Raise OSError for a folder that cannot
    be read.
    """
    found, seen = [], set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=raise_error):
        real = os.path.realpath(parent)
        if real in seen:  # a link leads back
            folders.clear()
            continue
        seen.add(real)
        found += [Path(parent, name) for name in files if is_image_name(name)]
    return sorted(found)


def raise_error(error: OSError) -> NoReturn:
    raise error


def is_image_name(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


class UnreadableImageError(Exception):
    """An image file cannot be read. The message is `<file> (<reason>)`."""


def report_unreadable(unreadable: list[str], total: int, on_error: str, option: str = "data.on_error") -> None:
    """Warn about images that were left out.

    Args:
        unreadable: the messages of their errors; nothing happens if there are none.
        total: how many images there are, with these.
        on_error: "stop" or "skip".
        option: the option that sets `on_error`.

    Raises:
        UserError: `on_error` is "stop", or no image could be read.
    """
    if not unreadable:
        return
    if on_error == "stop":
        them = "it" if len(unreadable) == 1 else "them"
        raise UserError(f"cannot read {first_few(unreadable)}: remove {them}, or set {option}=skip to leave {them} out")
    if len(unreadable) == total:
        raise UserError(f"none of {total:,} images can be read: {first_few(unreadable)}")
    log.warning("left out %d of %d images, which cannot be read: %s", len(unreadable), total, first_few(unreadable))


def first_few(unreadable: list[str]) -> str:
    more = f" and {len(unreadable) - LISTED_FILES:,} more" if len(unreadable) > LISTED_FILES else ""
    return ", ".join(unreadable[:LISTED_FILES]) + more


def read_image(path: Path, channels: int) -> Tensor:
    """Read an image file.

    The image is turned upright as its EXIF orientation says. Transparency is dropped, which keeps the colours under it.
    Grey of 16 bits is scaled to 8.

    Args:
        path: the file; the format is that of its content, whatever its suffix.
        channels: 1 for grey, 3 for RGB.

    Returns:
        uint8 (channels, H, W).

    Raises:
        UnreadableImageError: it is no image, is cut short, has too many pixels or a kind of pixels that has no range.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow writes two lines per image
            image = decode_image(path)
            image = image if image.mode == mode else image.convert(mode)  # convert always copies
    except Exception as error:  # Pillow's decoders raise nearly any exception on a broken file
        raise UnreadableImageError(f"{path} ({describe_image_error(error)})") from error
    return functional.pil_to_tensor(image)


def decode_image(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError("not a file, or a link to nothing")
    with Image.open(path, formats=FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width:,} x {opened.height:,} pixels, more than {MAX_PIXELS:,}")
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
    image: Image.Image = opened
    if image.mode.startswith("I"):  # 16 bits; Pillow's own conversion would clip at 255
        levels = np.asarray(image)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("grey of more than 16 bits")
        return Image.fromarray((levels / 257).round().astype(np.uint8))
    if image.mode == "F":
        raise ValueError("grey of floating point, whose range is not known")
    return image


def describe_image_error(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def center_square(image: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and cut out the middle: uint8 (C, H, W) to (C, size, size)."""
    height, width = image.shape[1:]
    longest = MAX_ASPECT * min(height, width)
    if max(height, width) > longest:
        image = functional.center_crop(image, [min(height, longest), min(width, longest)])
    return functional.center_crop(functional.resize(image, [size], antialias=True), [size, size])
