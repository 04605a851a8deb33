"""Images that are in the training and in the test: what a run looks for at its start, within a second.

`reslab check_data` looks at every image instead, and also finds copies that were encoded again or resized.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import accumulate, chain
from typing import NamedTuple

from torch import Tensor

from reslab.data.asking import Answer, ask_each
from reslab.data.batches import FolderImages
from reslab.data.headers import evenly_spaced
from reslab.data.splits import Split, SplitName

DIGEST_BYTES = 16  # two different images with the same digest are not to be expected in any data set
MOST_FILES = 100_000  # of the training, and of the test, of which the sizes are looked at
MOST_READ, MOST_BYTES = 2_500, 100 << 20  # of each of them that are read; a local disk takes less than a second
SCRAMBLER = 2654435761  # Knuth's multiplicative hash


class Shared(NamedTuple):
    """How many test images are also in the training or validation, as far as was looked.

    Attributes:
        copies: test images that are.
        tests: how many test images there are.
        is_sample: whether there were too many files to read each that may be a copy, so that there may be more.
    """

    copies: int
    tests: int
    is_sample: bool


def shared_images(splits: Mapping[SplitName, Split | None]) -> Shared | None:
    """Compare the test images with those for training and validation; None where there is nothing to compare.

    Of images in memory, the pixels are compared. Of image files, it is the bytes, and only of files of the same size.
    """
    test, val = splits.get("test"), splits.get("val")
    seen = [split for split in (splits.get("train"), None if val is test else val) if split]
    if not test or not seen:
        return None
    if isinstance(test.images, FolderImages):
        return shared_files([path for split in seen for path in split.paths], test.paths)
    if any(isinstance(split.images, FolderImages) or split.images.shape[1:] != test.images.shape[1:] for split in seen):
        return None
    known = {digest for split in seen for digest in pixel_digests(split.images, split.indices)}  # type: ignore[arg-type]
    return Shared(sum(digest in known for digest in pixel_digests(test.images, test.indices)), len(test), False)


# images in memory


def pixel_digests(images: Tensor, indices: Tensor) -> Iterable[bytes]:
    """Yield the digest of the pixels of each of some images, which is the same for the same shape and pixels.

    Args:
        images: uint8 (N, C, H, W).
        indices: int64, the images.
    """
    array = images.contiguous().numpy()
    return (blake2b(array[index], digest_size=DIGEST_BYTES).digest() for index in indices.tolist())


# image files


def shared_files(seen: Sequence[str], tests: Sequence[str]) -> Shared:
    """Compare files by their bytes, where there are files of the same size on both sides."""
    asked = [evenly_spaced(paths, MOST_FILES) for paths in (seen, tests)]
    sizes, test_sizes = (dict(zip(paths, answers(file_size, paths), strict=True)) for paths in asked)
    common = set(sizes.values()) & set(test_sizes.values()) - {0}
    read, tests_read = ([path for path in each if each[path] in common] for each in (sizes, test_sizes))
    chosen, tests_chosen = affordable(read, sizes), affordable(tests_read, test_sizes)
    known = set(answers(file_digest, chosen)) - {None}
    count = sum(digest in known for digest in answers(file_digest, tests_chosen))
    is_sample = len(sizes) < len(seen) or len(test_sizes) < len(tests)
    return Shared(count, len(tests), is_sample or len(chosen) < len(read) or len(tests_chosen) < len(tests_read))


def answers(ask: Callable[[str], Answer], paths: Sequence[str]) -> Iterator[Answer]:
    return chain.from_iterable(ask_each(ask, paths))


def file_size(path: str) -> int:
    """Return the size of a file in bytes; 0 if it is not there."""
    try:
        return os.path.getsize(path)  # noqa: PTH202  # a Path for each file would take as long again
    except OSError:
        return 0


def affordable(paths: Sequence[str], sizes: Mapping[str, int]) -> Sequence[str]:
    """Return as many files as a run may read at its start.

    The files of a size are chosen together, because a file and its copy have the same. The order of the sizes is
    arbitrary: in that of the numbers, only the smallest images would be compared.
    """
    ordered = sorted(paths, key=lambda path: (sizes[path] * SCRAMBLER % 2**32, path))[:MOST_READ]
    totals = accumulate(sizes[path] for path in ordered)
    return [path for path, total in zip(ordered, totals, strict=True) if total <= MOST_BYTES]


def file_digest(path: str) -> bytes | None:
    """Return the digest of a file's bytes; None if it cannot be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            return blake2b(file.read(), digest_size=DIGEST_BYTES).digest()
    except OSError:
        return None
