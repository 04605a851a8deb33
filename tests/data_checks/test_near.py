import io

import numpy as np
import pytest
from PIL import Image

from reslab.data_checks.near import BANDS, FLAT, MOST_BITS, SIDE, masks, near_pairs, perceptual_hashes


def noise(count):
    return np.random.default_rng(0).uniform(0, 255, (count, SIDE, SIDE)).astype(np.float32)


def differing(first, second):
    return int(np.bitwise_count(first ^ second))


def test_the_hash_is_that_of_the_cosine_transform():
    fft = pytest.importorskip("scipy.fft")
    images = noise(3)
    lowest = fft.dctn(images, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(3, 64)
    bits = lowest > np.median(lowest[:, 1:], axis=1, keepdims=True)
    expected = [int("".join("01"[bit] for bit in row.astype(int)), 2) for row in bits]
    assert perceptual_hashes(images).tolist() == expected


def test_a_flat_image_has_no_hash():
    images = np.full((2, SIDE, SIDE), 100, np.float32)
    images[1, : SIDE // 2] += 2.1 * FLAT
    assert [value > 0 for value in perceptual_hashes(images).tolist()] == [False, True]


def test_encoding_again_and_resizing_keep_the_hash_and_another_image_does_not():
    rows, columns = np.mgrid[:96, :128]
    image = Image.fromarray((127 + 60 * np.sin(rows / 9 + columns / 17) + 60 * np.cos(columns / 5)).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    images = [
        image,
        Image.open(buffer),
        image.resize((64, 48)),
        image.resize((300, 200)),
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    ]
    small = np.stack([np.asarray(each.resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32) for each in images])
    first, *others = perceptual_hashes(small)
    near = [differing(first, other) <= MOST_BITS for other in others]
    assert near == [True, True, True, False]


@pytest.mark.parametrize("most_bits", [0, 2, MOST_BITS])
def test_the_pairs_are_those_of_comparing_each_with_each(most_bits):
    generator = np.random.default_rng(1)
    hashes = generator.integers(1, 2**64, 300, np.uint64, endpoint=False)
    copies = hashes[generator.integers(0, 300, 200)]
    for bits in range(6):  # and copies that differ in up to six bits
        flips = np.uint64(1) << generator.integers(0, 64, 200).astype(np.uint64)
        copies = np.where(generator.random(200) < 0.8, copies ^ flips, copies)
        hashes = np.append(hashes, copies[bits::6])
    hashes[[3, 250]] = 0
    expected = [
        [first, second]
        for first in range(len(hashes))
        for second in range(first + 1, len(hashes))
        if hashes[first] and hashes[second] and differing(hashes[first], hashes[second]) <= most_bits
    ]
    assert near_pairs(hashes, most_bits).tolist() == expected
    assert len(expected) > 10


def test_many_equal_hashes_are_compared_in_parts(monkeypatch):
    monkeypatch.setattr("reslab.data_checks.near.CHUNK", 7)
    assert len(near_pairs(np.full(30, 5, np.uint64))) == 30 * 29 // 2


def test_the_bands_cover_every_bit_equally():
    sums = sum(np.unpackbits(np.array([mask]).view(np.uint8)).astype(int) for mask in masks())
    assert set(sums.tolist()) == {BANDS - 1}
