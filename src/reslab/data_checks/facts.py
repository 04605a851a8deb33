"""What is known of each image once it has been decoded: its size, its kind, and what finds its copies."""

import warnings
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from reslab.data.duplicates import DIGEST_BYTES, pixel_digests
from reslab.data.images import load_image, open_image
from reslab.data.preprocessing import GREY_WEIGHTS
from reslab.data_checks.near import SIDE, perceptual_hashes

ORIENTATION = 0x0112  # the tag of EXIF that says how an image was held
# A larger JPEG is decoded at a half, a quarter or an eighth of its size, with at least so many pixels on a side. Its
# copies are found all the same, since the same file is decoded in the same way.
LEAST_SIZE = (512, 512)
FACTS = np.dtype(
    [
        ("is_readable", "?"),
        ("width", "i4"),
        ("height", "i4"),
        ("format", "S8"),
        ("mode", "S8"),  # Pillow's
        ("is_transparent", "?"),
        ("has_16_bits", "?"),
        ("is_turned", "?"),  # by its EXIF orientation
        ("bytes", "i8"),  # of the file; 0 for an image that is in memory
        ("file", f"S{DIGEST_BYTES}"),  # the digest of the file's bytes
        ("pixels", f"S{DIGEST_BYTES}"),  # and of its pixels, with their shape
        ("near", "u8"),  # the perceptual hash
    ]
)


class Seen(NamedTuple):
    """Some images that were looked at.

    Attributes:
        facts: FACTS (N,).
        levels: float64 (C, 256), the sum over the training images of the share of each level of each channel.
        unreadable: why images cannot be read, by their place in the batch.
    """

    facts: NDArray[Any]
    levels: NDArray[np.float64]
    unreadable: dict[int, str]


# image files


class Files(Dataset[Seen]):
    """Image files, of which a batch of positions is looked at.

    Args:
        paths: the files.
        trains: bool (N,), which of them are training images.
        background: what shows through transparent parts.
    """

    def __init__(self, paths: Sequence[str], trains: NDArray[np.bool_], background: Sequence[int] | None) -> None:
        self.paths, self.trains, self.background = paths, trains, background

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, batch: Sequence[int]) -> Seen:
        facts, levels, unreadable = np.zeros(len(batch), FACTS), np.zeros((3, 256)), dict[int, str]()
        grey = np.zeros((len(batch), SIDE, SIDE), np.float32)
        for place, position in enumerate(batch):
            try:
                image = look_at_file(self.paths[position], self.background, facts[place])
            except Exception as error:  # Pillow raises nearly any exception on a broken file
                unreadable[place] = reason_of(error, self.paths[position])
                continue
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
            grey[place] = np.asarray(small, np.float32)
            if self.trains[position]:
                levels += np.reshape(image.histogram(), (3, 256)) / (image.width * image.height)
        facts["near"] = perceptual_hashes(grey)
        return Seen(facts, levels, unreadable)


def look_at_file(path: str, background: Sequence[int] | None, facts: Any) -> Image.Image:
    """Fill in what is known of a file, and return its image as RGB, upright.

    Raises:
        UnreadableImageError: it cannot be decoded.
        OSError: it cannot be read.
    """
    image = load_image(path, 3, background, LEAST_SIZE)
    look_at_header(path, facts)
    content = Path(path).read_bytes()
    facts["bytes"], facts["file"] = len(content), blake2b(content, digest_size=DIGEST_BYTES).digest()
    facts["pixels"] = blake2b(image.tobytes(), digest_size=DIGEST_BYTES, salt=shape_salt(*image.size)).digest()
    facts["is_readable"] = True
    return image


def look_at_header(path: str, facts: Any) -> None:
    """Fill in what a file says before its pixels, which decoding changes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow writes two lines about some images
        with open_image(path) as header:
            orientation = header.getexif().get(ORIENTATION, 1)
            lies = orientation in range(5, 9)  # its rows become columns
            facts["width"], facts["height"] = reversed(header.size) if lies else header.size
            facts["format"], facts["mode"] = (header.format or "").encode(), header.mode.encode()
            facts["is_transparent"] = header.has_transparency_data
            kinds = [str(tile[3]) for tile in header.tile]  # type: ignore[attr-defined]  # how the file holds its pixels
            facts["has_16_bits"] = header.mode.startswith("I") or any(";16" in kind for kind in kinds)
            facts["is_turned"] = orientation in range(2, 9)


def shape_salt(width: int, height: int) -> bytes:
    """Return what distinguishes the same bytes as images of two shapes."""
    return f"{width}x{height}".encode()[:16]


def reason_of(error: Exception, path: str) -> str:
    """Return why a file cannot be read, without its path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).removeprefix(f"{path} (").removesuffix(")") or type(error).__name__


# images in memory


def look_at_memory(images: Tensor, positions: Tensor, trains: bool) -> Seen:
    """Look at some images in memory.

    Args:
        images: uint8 (N, C, H, W).
        positions: int64, the images to look at.
        trains: whether they are training images.
    """
    chosen = images[positions]
    channels, height, width = chosen.shape[1:]
    facts = np.zeros(len(chosen), FACTS)
    facts["is_readable"], facts["width"], facts["height"] = True, width, height
    facts["mode"] = {1: b"L", 3: b"RGB"}.get(channels, f"{channels} ch.".encode())
    facts["pixels"] = list(pixel_digests(images, positions))
    facts["near"] = perceptual_hashes(small_grey(chosen))
    levels = np.zeros((channels, 256))
    if trains:
        for channel, pixels in enumerate(chosen.transpose(0, 1)):
            levels[channel] = pixels.flatten().bincount(minlength=256).numpy() / (width * height)
    return Seen(facts, levels, {})


def small_grey(images: Tensor) -> NDArray[np.float32]:
    """Reduce images to grey of `SIDE` pixels, (N, SIDE, SIDE)."""
    if images.shape[1] == 3:
        grey = (images.float() * torch.tensor(GREY_WEIGHTS).view(1, 3, 1, 1)).sum(1, keepdim=True)
    else:
        grey = images.float().mean(1, keepdim=True)
    return F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", antialias=True)[:, 0].numpy()
