"""The image files that the value of `images=` names."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from reslab.data.images import SYSTEM_FOLDERS, list_images, report_dead_links, report_not_read
from reslab.data.paths import Paths
from reslab.errors import UserError
from reslab.newest import LATEST
from reslab.run import require_text
from reslab.text import for_shell

Images = str | Path | Sequence[str | Path]


def find_images(images: Images) -> Paths:
    """Return the files of a path, a folder, a glob or a list of them.

    What a folder or a glob finds is left out if it was found before; a file that is named itself is not.

    Raises:
        UserError: one of them stands for no file.
    """
    return Paths(found_files(images))


def found_files(images: Images) -> Iterator[str]:
    """Yield the files that `find_images` returns."""
    names = [*images] if isinstance(images, Iterable) and not isinstance(images, str | bytes) else [images]
    if not names:
        raise UserError("images: the list is empty")
    seen, named_files = set[str](), list[str]()
    for named, following in zip(names, chain(islice(names, 1, None), [""]), strict=False):
        require_text(named, "images: each of them")
        pattern = os.path.expanduser(named)  # Path would drop the // of https://
        if os.path.isfile(pattern):
            named_files.append(pattern)
            yield str(Path(pattern))
            continue
        is_folder = os.path.isdir(pattern)
        files = files_below(Path(pattern)) if is_folder else list(files_of_glob(pattern))
        if not files:
            raise UserError(f"images={pattern}: {why_no_image(pattern, following)}")
        if len(names) == 1 and is_folder:  # it has no file twice, and may have very many
            yield from map(str, map(Path, files))
            return
        seen.update(map(os.path.abspath, named_files))  # only here, because it takes time for each of many files
        named_files.clear()
        for file in files:
            place = os.path.abspath(file)  # noqa: PTH100  # Path would resolve links too
            if place not in seen:
                yield str(Path(file))  # without the ./ of a folder
            seen.add(place)


def files_below(folder: Path) -> Sequence[str]:
    """Return the images below a folder. Files that look like images and are not read, and dead links, are logged."""
    files = list_images(folder)
    report_not_read(folder, files.not_read)
    report_dead_links(folder, files.dead_links)
    return files.paths


def files_of_glob(pattern: str) -> Iterator[str]:
    """Yield the files that a glob matches, and the images below each folder that it matches, as a shell names them.

    Those in a folder of the system that it does not name are left out.
    """
    read = set[Path]()
    unnamed = SYSTEM_FOLDERS - {part.lower() for part in Path(pattern).parts}
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207
        if not unnamed.isdisjoint(Path(name.lower()).parts):
            continue
        if os.path.isfile(name):
            yield name
        elif os.path.isdir(name) and read.isdisjoint(Path(name).parents):  # `**` also matches the folders in it
            read.add(Path(name))
            yield from files_below(Path(name))


def why_no_image(pattern: str, following: str | Path) -> str:
    """Say why the value of `images=` names no image, given the one that follows it."""
    if pattern == LATEST:
        return "the run comes before the images: latest photo.jpg"
    if os.path.isfile(spaced := f"{pattern} {following}"):
        return f"a name with blanks needs quotes: {for_shell(spaced)}"
    if re.match("https?://", pattern):
        return "download the image first, and give the file"
    if os.path.isdir(pattern):
        return "no image in this folder"
    return "no image there"
