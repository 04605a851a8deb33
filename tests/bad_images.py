"""Files with the names of images that cannot be read, each kind with the reason that the error gives."""

import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image


def noise(path: Path, size: int = 64) -> bytes:
    """Write an image in the format of the suffix and return its bytes."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return path.read_bytes()


def cut(path: Path) -> None:
    content = noise(path)
    path.write_bytes(content[: len(content) // 2])


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(noise(path)[:20])


def without_tables(path: Path) -> None:
    """Write a JPEG with overwritten Huffman tables."""
    content = bytearray(noise(path))
    start = content.index(b"\xff\xc4")
    content[start + 4 : start + 24] = bytes([255] * 20)
    path.write_bytes(content)


def flipped_bits(path: Path) -> None:
    """Write a PNG with pixels that do not fit their checksum."""
    content = bytearray(noise(path))
    start = content.index(b"IDAT") + 100
    content[start : start + 200] = bytes(byte ^ 255 for byte in content[start : start + 200])
    path.write_bytes(content)


def bomb(path: Path) -> None:
    """Write a small PNG that decodes to 12,000 x 12,000 pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9999)))]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in [*chunks, (b"IEND", b"")]
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def large_bomb(path: Path) -> None:
    """Write a GIF of 65,535 x 65,535 pixels, which Pillow itself refuses."""
    path.write_bytes(b"GIF89a" + struct.pack("<HH", 65535, 65535) + bytes(3) + noise(path.with_suffix(".gif"), 8)[13:])


def float_pixels(path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)


def deep_pixels(path: Path) -> None:
    """Write levels from 0 to 63, which would be nearly black if white were 65,535."""
    Image.fromarray(np.arange(64, dtype=np.int32).reshape(8, 8)).save(path)


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


BAD: dict[
    str, tuple[str, Callable[[Path], object], str]
] = {  # kind: (suffix, the function that writes it, a part of the reason)
    "empty": (".jpg", Path.touch, "not an image"),
    "text": (".png", lambda path: path.write_text("no image"), "not an image"),
    "a page of the web": (".jpg", lambda path: path.write_text("<html>404</html>"), "not an image"),
    "zeros": (".png", lambda path: path.write_bytes(bytes(4096)), "not an image"),
    "an archive": (".webp", lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)), "not an image"),
    "PostScript": (
        ".png",
        lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"),
        "not an image",
    ),
    "a pickle": (".png", lambda path: path.write_bytes(pickle.dumps(Trap(path.with_name("sprung")))), "not an image"),
    "cut JPEG": (".jpg", cut, "truncated"),
    "cut PNG": (".png", cut, "truncated"),
    "cut GIF": (".gif", cut, "truncated"),
    "cut TIFF": (".tif", cut, ""),
    "cut BMP": (".bmp", cut, "truncated"),
    "cut WebP": (".webp", cut, ""),
    "a JPEG's header": (".jpg", cut_in_the_header, ""),
    "a PNG's header": (".png", cut_in_the_header, ""),
    "corrupt JPEG": (".jpg", without_tables, "broken data stream"),
    "corrupt PNG": (".png", flipped_bits, ""),
    "a bomb": (".png", bomb, "12,000 x 12,000 pixels, more than 134,217,728"),
    "a larger bomb": (".gif", large_bomb, "decompression bomb"),
    "floating point": (".tif", float_pixels, "floating point"),
    "32-bit grey": (".tif", deep_pixels, "grey of 32 bits with a sign, whose range is not known"),
    "a link to nothing": (".png", lambda path: path.symlink_to("absent.png"), "not a file, or a link to nothing"),
    "a pipe": (".png", os.mkfifo, "not a file, or a link to nothing"),
}


def write_bad(folder: Path) -> dict[str, Path]:
    """Write one file of each kind and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {kind: folder / f"{number:02}{suffix}" for number, (kind, (suffix, _, _)) in enumerate(BAD.items())}
    for kind, path in paths.items():
        BAD[kind][1](path)
    return paths
