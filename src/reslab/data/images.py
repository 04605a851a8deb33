"""Image files: finding them, reading their pixels, and reporting in one line those that cannot be read."""

import errno
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, overload

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.TiffImagePlugin import BITSPERSAMPLE as BITS_PER_SAMPLE
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, TiffImageFile
from PIL.TiffImagePlugin import SAMPLEFORMAT as SAMPLE_FORMAT

from reslab.errors import UserError
from reslab.machine import is_first_process
from reslab.text import counted

log = logging.getLogger(__name__)

# Formats by Pillow's name, each with the suffixes of its files. Any other is refused: Pillow would run Ghostscript for
# some, and others have no signature, so that any content would be an image.
FORMAT_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"),
}
DECODERS = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # those that a build of Pillow may lack
FORMATS = tuple(name for name in FORMAT_SUFFIXES if name not in DECODERS or features.check(DECODERS[name]))
SUFFIXES = frozenset(suffix for name in FORMATS for suffix in FORMAT_SUFFIXES[name])
# Suffixes of images that are not read. Their files are counted and reported.
OTHER_SUFFIXES = frozenset((
    ".heic", ".heif", ".hif", ".jxl", ".jxr", ".avifs", ".svg", ".svgz", ".tga", ".ico", ".icns", ".psd", ".xcf",
    ".eps", ".ai", ".wmf", ".emf", ".pcx", ".exr", ".hdr", ".dds", ".qoi", ".sgi", ".ras", ".xbm", ".xpm", ".pfm",
    ".fits", ".dcm", ".dicom", ".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf",
)).union(*FORMAT_SUFFIXES.values()) - SUFFIXES  # fmt: skip
COMMON_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".webp")
# Folders in which systems keep copies and thumbnails, in lower case: macOS, Synology, QNAP, Windows, Linux.
SYSTEM_FOLDERS = frozenset(
    ("__macosx", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information", "lost+found")
)
JPEG_SIGNATURE = b"\xff\xd8\xff"
MAX_PIXELS = 2**27  # half a GiB once decoded, at Pillow's four bytes each
LISTED_FILES = 3
WHITE = (255, 255, 255)
GREY_SCALES = {"L;2": 85, "L;4": 17}  # Pillow's factors from 2 and 4 bits to 8


# finding


class ImageFiles(NamedTuple):
    """The image files below a folder.

    Attributes:
        paths: their paths, in the order of the names at every level.
        folders: the real path of each folder that holds them, by the path under which it was read.
        links: the links to files and folders that were found.
        not_read: how many files have the suffix of an image that is not read, or none, by suffix.
        dead_links: the links to nothing that do not have the suffix of an image: they may have led to folders.
    """

    paths: Sequence[str]
    folders: dict[str, str]
    links: list[str]
    not_read: Counter[str]
    dead_links: list[str]

    @classmethod
    def none(cls) -> "ImageFiles":
        return cls([], {}, [], Counter(), [])

    def real_paths(self) -> list[str]:
        """Return each path without links."""
        links = set(self.links)
        places = ((path, *os.path.split(path)) for path in self.paths)
        return [
            os.path.realpath(path) if path in links else os.path.join(self.folders[folder], name)  # noqa: PTH118
            for path, folder, name in places
        ]


def list_images(folder: str | os.PathLike[str]) -> ImageFiles:
    """Return the image files below a folder.

    Links are followed, each folder is read once, and hidden files and folders are left out, except for `folder` itself.

    Raises:
        OSError: a folder cannot be read.
    """
    paths: list[str] = []
    found = ImageFiles.none()._replace(paths=paths)
    add_images(os.fspath(folder), os.path.realpath(folder), found, paths, set())
    return found


def add_images(folder: str, real: str, found: ImageFiles, paths: list[str], seen: set[str]) -> None:
    """Add the images below a folder to `paths` and what else there is to `found`, without the folders in `seen`."""
    seen.add(real)
    found.folders[folder] = real
    prefix, files, folders = f"{folder}{os.sep}", [], {}
    with os.scandir(folder) as entries:  # it knows the kinds of most entries without a system call for each
        for entry in entries:
            name, is_link = entry.name, entry.is_symlink()
            if is_folder(entry):
                if is_hidden(name):
                    continue
                folders[name] = os.path.realpath(entry.path) if is_link else f"{real}{os.sep}{name}"
            elif name[0] != ".":
                if is_link and is_dead_link(entry) and suffix_of(name) not in SUFFIXES:
                    found.dead_links.append(prefix + name)
                    continue
                files.append(name)
            if is_link:
                found.links.append(prefix + name)
    # This is suffix_of without a call for each of many files. A name without a dot gives its last letter.
    images = [name for name in files if name[name.rfind(".") :].lower() in SUFFIXES]
    if len(images) < len(files):
        found.not_read.update(suffix_of(name) for name in files if looks_like_an_unread_image(name))
    if not folders:
        paths.extend([prefix + name for name in sorted(images)])
        return
    for name in sorted([*images, *folders]):
        below = folders.get(name)
        if below is None:
            paths.append(prefix + name)
        elif below not in seen and not is_inside(real, below):
            add_images(prefix + name, below, found, paths, seen)


def is_folder(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a folder or a link to one. A link to itself is neither."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        return False


def is_dead_link(entry: "os.DirEntry[str]") -> bool:
    """Return whether an entry is a link to nothing, or to itself."""
    return entry.is_symlink() and not os.path.exists(entry.path)


def is_inside(folder: str, other: str) -> bool:
    """Return whether a folder is `other` or below it. Both are real paths."""
    return f"{folder}{os.sep}".startswith(other.rstrip(os.sep) + os.sep)


def is_hidden(name: str) -> bool:
    """Return whether a file or folder of this name is left out wherever images are looked for."""
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def suffix_of(name: str) -> str:
    _, dot, end = name.rpartition(".")
    return dot and dot + end.lower()


def looks_like_an_unread_image(name: str) -> bool:
    """Return whether a file may be an image that is not read: `a.heic`, and also `a.jpg_large` and `0001`."""
    suffix = suffix_of(name)
    return suffix not in SUFFIXES and (suffix in OTHER_SUFFIXES or not suffix or suffix.startswith(COMMON_SUFFIXES))


def report_not_read(folder: str | os.PathLike[str], not_read: Counter[str]) -> None:
    """Warn in one line about files that look like images and are not read, if there are any."""
    if not_read and is_first_process():
        suffixes = ", ".join(f"{count:,} {suffix or 'without a suffix'}" for suffix, count in not_read.most_common())
        log.warning(
            "left out %s of the files in %s, which are not read as images (%s): convert them to PNG or JPEG, or rename "
            "them", f"{not_read.total():,}", folder, suffixes,
        )  # fmt: skip


def report_dead_links(folder: str | os.PathLike[str], dead_links: Sequence[str]) -> None:
    """Warn in one line about links to nothing below a folder, if there are any."""
    if dead_links and is_first_process():
        log.warning(
            "left out %s in %s whose targets are not there: %s",
            counted(len(dead_links), "link"), folder, first_few(sorted(dead_links)),
        )  # fmt: skip


# reading


GONE = "the file is not there any more"


class UnreadableImageError(Exception):
    """An image file cannot be read. The message is `<file> (<reason>)`."""


def report_unreadable(unreadable: Sequence[str], total: int, on_error: str, option: str = "data.on_error") -> None:
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
        if all(file.endswith(f"({GONE})") for file in unreadable):
            raise UserError(f"cannot read {first_few(unreadable)}: put {them} back")
        raise UserError(f"cannot read {first_few(unreadable)}: remove {them}, or set {option}=skip to leave {them} out")
    if len(unreadable) == total:
        raise UserError(f"none of {total:,} images can be read: {first_few(unreadable)}")
    log.warning("left out %d of %d images, which cannot be read: %s", len(unreadable), total, first_few(unreadable))


def first_few(names: Sequence[str], count: int = LISTED_FILES) -> str:
    """Return the first names and how many more there are. A single one more is named, which takes no more space.

    Example:
        >>> first_few("abcd"), first_few("abcde")
        ('a, b, c, d', 'a, b, c and 2 more')
    """
    if len(names) <= count + 1:
        return ", ".join(names)
    return f"{', '.join(names[:count])} and {len(names) - count:,} more"


class FirstNames(Sequence[str]):
    """A sequence of names that holds the first ones and counts the others: enough for `first_few`.

    Example:
        >>> names = FirstNames()
        >>> names.extend("abcdefg")
        >>> len(names), first_few(names)
        (7, 'a, b, c and 4 more')
    """

    def __init__(self) -> None:
        self.first, self.total = list[str](), 0

    def extend(self, names: Iterable[str]) -> None:
        for name in names:
            self.total += 1
            if self.total <= LISTED_FILES + 1:
                self.first.append(name)

    def __len__(self) -> int:
        return self.total

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        return self.first[place]


def load_image(
    path: str | os.PathLike[str],
    channels: int,
    background: Sequence[int] | None = None,
    least: tuple[int, int] | None = None,
) -> Image.Image:
    """Read an image file.

    The image is turned upright as its EXIF orientation says. Grey of 16 bits is scaled to 8.

    Args:
        path: the file; the format is that of its content, whatever its suffix.
        channels: 1 for grey, 3 for RGB.
        background: RGB values from 0 to 255 that show through transparent parts; None drops the transparency, which
            keeps the colours under it.
        least: a width and a height; a larger JPEG is decoded at a half, a quarter or an eighth of its size, but not
            below them, in a fraction of the time. None: all images are decoded at their size.

    Returns:
        The image, of Pillow's mode L or RGB.

    Raises:
        UnreadableImageError: it is no image, is cut short, has too many pixels or a kind of pixels that has no range.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow writes two lines per image
            image = decode_image(path, least)
            if background is not None and image.has_transparency_data:
                image = compose(image, background)
            return image if image.mode == mode else image.convert(mode)  # convert always copies
    except Exception as error:  # Pillow's decoders raise nearly any exception on a broken file
        raise unreadable(path, error) from error


def has_transparent_parts(path: str | os.PathLike[str]) -> bool:
    """Return whether a background shows through any pixel of an image file."""
    with Path(path).open("rb") as file:
        if file.read(len(JPEG_SIGNATURE)) == JPEG_SIGNATURE:  # it has none; to ask Pillow would take 0.1 ms
            return False
    with open_image(path) as opened:
        may_have = opened.has_transparency_data  # which a photo's file has not, and need not be decoded for
    return may_have and decode_image(path).convert("RGBA").getextrema()[-1][0] < 255  # type: ignore[index]


def header_error(path: str | os.PathLike[str]) -> str | None:
    """Return why a file cannot be read, as far as what stands before its pixels shows it."""
    try:
        with open_image(path):
            return None
    except Exception as error:  # Pillow raises nearly any exception on a broken file
        return str(unreadable(path, error))


def unreadable(path: str | os.PathLike[str], error: Exception) -> UnreadableImageError:
    return UnreadableImageError(f"{os.fspath(path)} ({describe_image_error(error)})")


@contextmanager
def open_image(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image without reading its pixels, and close it at the end of the block."""
    if not os.path.lexists(path):
        raise ValueError(GONE)
    if not os.path.isfile(path):
        raise ValueError("not a file, or a link to nothing")
    with Image.open(path, formats=FORMATS) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width:,} x {opened.height:,} pixels, more than {MAX_PIXELS:,}")
        if kind := kind_without_range(opened):
            raise ValueError(f"grey of {kind}, whose range is not known: save it with 8 or 16 bits")
        yield opened


def kind_without_range(image: Image.Image) -> str | None:
    """Return what the pixels are, if it does not say which level is white; None for all other images."""
    if image.mode == "F":
        return "floating point"
    bits, is_signed = tiff_tag(image, BITS_PER_SAMPLE, 16), tiff_tag(image, SAMPLE_FORMAT, 1) == 2
    if not is_deep(image) or (bits <= 16 and not is_signed):
        return None
    return f"{bits} bits{' with a sign' if is_signed else ''}"


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey of more than 8 bits."""
    return image.mode.startswith("I")


def tiff_tag(image: Image.Image, tag: int, default: int) -> int:
    """Return the first value of a tag of a TIFF; the default where there is none, and for other formats."""
    values = image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default
    return int(values[0] if isinstance(values, tuple) else values)


def decode_image(path: str | os.PathLike[str], least: tuple[int, int] | None = None) -> Image.Image:
    with open_image(path) as opened:
        if least is not None:
            opened.draft(None, least)
        scale_transparent_level(opened)
        opened.load()
        ImageOps.exif_transpose(opened, in_place=True)
    image: Image.Image = opened
    if is_deep(image):  # Pillow's own conversion would clip at 255
        return grey_of_16_bits(image)
    return image.convert("LA") if image.mode == "La" else image  # Pillow converts La to nothing else


def grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Scale to 8 bits. Pixels of the transparent level become transparent."""
    levels = np.asarray(image)
    highest = 2 ** tiff_tag(image, BITS_PER_SAMPLE, 16) - 1  # a TIFF may have 12 bits; Pillow scales other formats
    brightness = highest - levels if tiff_tag(image, PHOTOMETRIC_INTERPRETATION, 1) == 0 else levels  # 0: white is 0
    grey = Image.fromarray((brightness / (highest / 255)).round().astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(levels == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def scale_transparent_level(image: Image.Image) -> None:
    """Scale the transparent level of a PNG, before its pixels are read.

    Pillow scales the pixels of some bit depths to 8 bits, but not the level that stands for transparency.
    """
    if image.format != "PNG" or "transparency" not in image.info:
        return
    level, kind = image.info["transparency"], image.tile[0][3]  # type: ignore[attr-defined]
    if kind in GREY_SCALES:
        image.info["transparency"] = level * GREY_SCALES[kind]
    elif kind == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in level)


def compose(image: Image.Image, background: Sequence[int]) -> Image.Image:
    """Lay an image over a ground of one colour. Return RGB."""
    image = image.convert("RGBA")
    ground = Image.new("RGB", image.size, tuple(background))
    ground.paste(image, mask=image)
    return ground


def describe_image_error(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
