"""Finding the images that a labels file names: in which folder they are, and which file a name stands for."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from reslab.data.images import SUFFIXES, first_few, is_dead_link, is_folder, suffix_of
from reslab.errors import UserError
from reslab.text import counted


class Located(NamedTuple):
    """The images that a labels file names.

    Attributes:
        names: the path of each within the root of the data set, with slashes; `../` leads out of it.
        real_paths: the path of each without links.
    """

    names: list[str]
    real_paths: list[str]


class Folder:
    """The files in a folder, read once.

    Args:
        path: an absolute path.
        root: the absolute path of the root of the data set.
    """

    def __init__(self, path: str, root: str) -> None:
        self.path = path
        inner = os.path.relpath(path, root).replace(os.sep, "/")
        self.prefix = "" if inner == "." else f"{inner}/"
        self.real = os.path.realpath(path)
        self.is_link: dict[str, bool] = {}
        self.by_stem: dict[str, list[str]] | None = None
        if os.path.isdir(path):
            with os.scandir(path) as entries:
                self.is_link = {
                    entry.name: entry.is_symlink()
                    for entry in entries
                    if not is_folder(entry) and not is_dead_link(entry)
                }

    def find(self, name: str) -> str | None:
        """Return the file of this name, which may be without the suffix of an image. Raise UserError for two."""
        if name in self.is_link:
            return name
        if self.by_stem is None:
            self.by_stem = {}
            for file in self.is_link:
                if (suffix := suffix_of(file)) in SUFFIXES:
                    self.by_stem.setdefault(file[: -len(suffix)], []).append(file)
        found = self.by_stem.get(name, [])
        if len(found) > 1:
            raise UserError(
                f"{self.path}/{name} may be {' or '.join(sorted(found)[:2])}: give the name with its suffix"
            )
        return found[0] if found else None

    def real_path(self, file: str) -> str:
        path = f"{self.real}{os.sep}{file}"
        return os.path.realpath(path) if self.is_link[file] else path


def locate_images(names: Sequence[str], root: Path, file: Path) -> Located:
    """Return the images that a labels file names, in its order.

    Their paths are relative to the root of the data set or to the folder of the labels file, all of them to the same
    one: where more of them are. They may be without a suffix, and with backslashes, if no such file has other names.

    Raises:
        UserError: an image is missing, or a name without a suffix may be either of two.
    """
    bases = list(dict.fromkeys((root.absolute(), file.absolute().parent)))
    found = [[*locations(names, str(base), str(bases[0]))] for base in bases]
    best = max(found, key=lambda images: len(images) - images.count(None))
    if missing := [name for name, image in zip(names, best, strict=True) if image is None]:
        raise UserError(
            f"{file}: {counted(len(missing), 'image')} of {len(names):,} not found in {' or '.join(map(str, bases))}: "
            f"{first_few(missing)}"
        )
    return Located(*map(list, zip(*(image for image in best if image), strict=True)))


def locations(names: Sequence[str], base: str, root: str) -> "list[tuple[str, str] | None]":
    """Return the name within the root and the real path of each image; None for one that is not there."""
    folders: dict[str, Folder] = {}
    found: list[tuple[str, str] | None] = []
    for name in names:
        location = location_of(name, base, root, folders)
        if location is None and "\\" in name:
            location = location_of(name.replace("\\", "/"), base, root, folders)
        found.append(location)
    return found


def location_of(name: str, base: str, root: str, folders: dict[str, Folder]) -> tuple[str, str] | None:
    outer, slash, inner = name.rpartition("/")
    key = outer or slash
    if key not in folders:
        folders[key] = Folder(os.path.normpath(os.path.join(base, key)), root)  # noqa: PTH118
    file = folders[key].find(inner)
    return None if file is None else (folders[key].prefix + file, folders[key].real_path(file))
