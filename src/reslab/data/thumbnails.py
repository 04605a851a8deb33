"""Small pictures of images, for pages and contact sheets."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps
from torch import Tensor

from reslab.data.images import UnreadableImageError, load_image
from reslab.files import write_bytes

SIDE = 96  # pixels of the longer side
QUALITY = 80  # of JPEG


def picture_of(
    source: Tensor | str, background: Sequence[int] | None, least: tuple[int, int] = (2 * SIDE, 2 * SIDE)
) -> Image.Image | None:
    """Return an image as a person sees it; None for a file that cannot be read.

    Args:
        source: uint8 (C, H, W), or the path of a file.
        background: RGB values that show through transparent parts of a file.
        least: a larger file may be decoded at a part of its size, but not below this one.
    """
    if isinstance(source, str):
        try:
            return load_image(source, 3, background, least)
        except (UnreadableImageError, OSError):
            return None
    pixels = source.numpy().transpose(1, 2, 0)  # (H, W, C)
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])


def is_tiny(picture: Image.Image) -> bool:
    """Return whether a picture is enlarged so much that its pixels are to stay visible, not to be blurred."""
    return max(picture.size) <= SIDE // 2


def thumbnail(picture: Image.Image) -> Image.Image:
    """Return a picture whose longer side has `SIDE` pixels."""
    resampling = Image.Resampling.NEAREST if is_tiny(picture) else Image.Resampling.BICUBIC
    return ImageOps.contain(picture, (SIDE, SIDE), resampling)


def write_picture(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, completely or not at all. Raises OSError."""
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def encoded(picture: Image.Image) -> bytes:
    """Return a picture as JPEG, or as PNG where that is smaller, e.g. for few pixels that were enlarged."""
    files = [BytesIO(), BytesIO()]
    picture.save(files[0], "JPEG", quality=QUALITY)
    picture.save(files[1], "PNG", optimize=True)
    return min((file.getvalue() for file in files), key=len)
