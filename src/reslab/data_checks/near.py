"""Near duplicates: a hash of 64 bits that an image keeps when it is encoded again or resized, and the search for pairs.

The hash is the DCT hash (Zauner 2010, "pHash"): the signs of the 64 lowest frequencies about their median.
"""

import math
from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # pixels to which an image is reduced, whatever its shape
LOWEST = 8  # frequencies in each direction
# Measured by benchmarks/near_duplicates.py (docs/data.md): 98% of re-encoded and resized copies differ in at most
# 4 bits, as 3 of 8 million pairs of different files do.
MOST_BITS = 4
BANDS = 6  # hashes that differ in 4 bits agree in at least two of six bands
FLAT = 2.0  # standard deviation in grey levels, below which the signs would be those of noise
CHUNK = 1 << 20  # pairs that are compared at once


def cosines() -> NDArray[np.float32]:
    """Return the rows of the orthonormal DCT-II that belong to the lowest frequencies, (LOWEST, SIDE)."""
    frequencies, places = np.arange(LOWEST)[:, None], np.arange(SIDE)[None]
    rows = np.sqrt(2 / SIDE) * np.cos(math.pi * (places + 0.5) * frequencies / SIDE)
    rows[0] /= math.sqrt(2)
    return rows.astype(np.float32)


COSINES = cosines()


def perceptual_hashes(grey: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Return the hash of each image; 0 for one that is too flat to have one.

    Args:
        grey: float32 (N, SIDE, SIDE), levels from 0 to 255.
    """
    coefficients = (COSINES @ grey @ COSINES.T).reshape(len(grey), -1)  # (N, 64)
    bits = coefficients > np.median(coefficients[:, 1:], axis=1, keepdims=True)  # the first one is the mean
    hashes = np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)
    return np.where(grey.std((1, 2)) < FLAT, np.uint64(0), hashes)


def near_pairs(hashes: NDArray[np.uint64], most_bits: int = MOST_BITS) -> NDArray[np.int64]:
    """Return the pairs of hashes that differ in at most `most_bits` bits, without comparing each with each.

    Two such hashes agree in some of the bands, so that only hashes with the same bits there are compared.

    Args:
        hashes: uint64 (N,); 0 is near to nothing.
        most_bits: at most `MOST_BITS`.

    Returns:
        int64 (P, 2): positions, the smaller one first, each pair once and in order.
    """
    assert most_bits <= MOST_BITS
    known = np.flatnonzero(hashes)
    found = [np.empty((0, 2), np.int64)]
    for mask in masks():
        keys = hashes[known] & mask
        order = np.argsort(keys, kind="stable")
        for first, second in pairs_of_equal(keys[order]):
            pair = known[order[np.stack([first, second], 1)]]
            differing = np.bitwise_count(hashes[pair[:, 0]] ^ hashes[pair[:, 1]])
            found.append(pair[differing <= most_bits])
    return np.unique(np.sort(np.concatenate(found), 1), axis=0)


def masks() -> Iterator[np.uint64]:
    """Yield the bits of each choice of two bands."""
    bounds = [64 * band // BANDS for band in range(BANDS + 1)]
    bands = [(1 << end) - (1 << start) for start, end in pairwise(bounds)]
    for chosen in combinations(bands, BANDS - MOST_BITS):
        yield np.uint64(sum(chosen))


def pairs_of_equal(keys: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield the positions of equal keys, about `CHUNK` pairs at a time.

    Args:
        keys: sorted.
    """
    ends = np.searchsorted(keys, keys, side="right")
    partners = ends - np.arange(len(keys)) - 1  # that come after each key
    totals = np.cumsum(partners)
    start = 0
    while start < len(keys):
        before = totals[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(totals, before + CHUNK, side="right")))
        counts = partners[start:end]
        first = np.repeat(np.arange(start, end), counts)
        within = np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield first, first + within + 1
        start = end
