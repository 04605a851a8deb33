"""A sequence of paths that takes less memory than a list, and that worker processes can share."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import add
from typing import overload

import numpy as np


class Paths(Sequence[str]):
    """Paths of files. Of each, it holds its name and the number of its folder, without an object of Python's own.

    A list of a million paths takes 150 MB, and each worker process that reads from it gets a copy of its own, because
    Python counts the references to an object in the object itself.

    Args:
        paths: the paths, in their order.

    Example:
        >>> paths = Paths(["cats/1.png", "cats/2.png", "3.png"])
        >>> len(paths), paths[0], paths[-1], list(paths[1:])
        (3, 'cats/1.png', '3.png', ['cats/2.png', '3.png'])
    """

    def __init__(self, paths: Iterable[str]) -> None:
        numbers: dict[str, int] = {}
        names, folders = list[str](), list[int]()
        for path in paths:
            start = path.rfind(os.sep) + 1
            folders.append(numbers.setdefault(path[:start], len(numbers)))
            names.append(path[start:])
        self.folders = list(numbers)
        self.folder_of = np.array(folders, np.uint32)
        self.names = os.fsencode("".join(names))
        lengths = map(len, names if self.names.isascii() else map(os.fsencode, names))
        self.ends = np.cumsum([0, *lengths], dtype=np.uint32 if len(self.names) < 2**32 else np.uint64)

    @classmethod
    def joined(cls, parts: "Iterable[Sequence[str]]") -> "Paths":
        """Return the paths of some sequences, one after the other."""
        return cls(chain.from_iterable(parts))

    @property
    def nbytes(self) -> int:
        """The bytes that the paths take, without their folders."""
        return len(self.names) + self.ends.nbytes + self.folder_of.nbytes

    def __len__(self) -> int:
        return len(self.folder_of)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> "Paths": ...

    def __getitem__(self, place: int | slice) -> "str | Paths":
        if isinstance(place, slice):
            return Paths(self[number] for number in range(*place.indices(len(self))))
        place = range(len(self))[place]  # from the end, or IndexError
        name = self.names[int(self.ends[place]) : int(self.ends[place + 1])]
        return self.folders[self.folder_of[place]] + os.fsdecode(name)

    def __iter__(self) -> Iterator[str]:
        ends = self.ends.tolist()
        slices = map(slice, ends, ends[1:])
        if self.names.isascii():  # a byte is a character
            names = map(self.names.decode().__getitem__, slices)
        else:
            names = map(os.fsdecode, map(self.names.__getitem__, slices))
        yield from map(add, map(self.folders.__getitem__, self.folder_of.tolist()), names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    __hash__ = None  # type: ignore[assignment]  # equal to a list, which has none
