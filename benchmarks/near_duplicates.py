"""How often the perceptual hash of check_data recognises changed copies, beside a difference hash (docs/data.md).

python benchmarks/near_duplicates.py <a folder of JPEG files> [number of files]
"""

import io
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reslab.data_checks.near import SIDE, near_pairs, perceptual_hashes

LIMITS = (0, 2, 4, 6, 8)
Change = Callable[[Image.Image], Image.Image]


def encoded(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def resized(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


CHANGES: dict[str, Change] = {
    **{f"JPEG of quality {quality}": encoded(quality) for quality in (75, 50, 30)},
    **{f"resized to {factor:.0%}": resized(factor) for factor in (2, 1.5, 0.75, 0.5)},
    "10% brighter": lambda image: image.point(lambda level: min(255, round(1.1 * level))),
    "one pixel cut from each side": lambda image: image.crop((1, 1, image.width - 1, image.height - 1)),
}


def grey(images: list[Image.Image], width: int, height: int) -> NDArray[np.float32]:
    small = (image.convert("L").resize((width, height), Image.Resampling.BILINEAR) for image in images)
    return np.stack([np.asarray(image, np.float32) for image in small])


def cosine_hashes(images: list[Image.Image]) -> NDArray[np.uint64]:
    return perceptual_hashes(grey(images, SIDE, SIDE))


def difference_hashes(images: list[Image.Image]) -> NDArray[np.uint64]:
    """Return a bit for each two neighbours in the rows of 9x8 pixels."""
    levels = grey(images, 9, 8)
    return np.packbits((levels[:, :, 1:] > levels[:, :, :-1]).reshape(len(images), 64), axis=1).view(">u8")[:, 0]


def main() -> None:
    files = sorted(Path(sys.argv[1]).rglob("*.jpg"))
    files = random.Random(0).sample(files, min(len(files), int(sys.argv[2]) if len(sys.argv) > 2 else 4000))
    images = [Image.open(file).convert("RGB") for file in files]
    print(f"{len(images):,} files; at most {', '.join(map(str, LIMITS))} bits differ")
    for name, hashes_of in {"cosine transform": cosine_hashes, "differences": difference_hashes}.items():
        hashes = hashes_of(images)
        print(f"\n{name}")
        for change, function in CHANGES.items():
            distances = np.bitwise_count(hashes_of([function(image) for image in images]) ^ hashes)
            print(f"{change:30}", *(f"{(distances <= limit).mean():8.2%}" for limit in LIMITS))
        pairs = np.concatenate([np.bitwise_count(hashes[at + 1 :] ^ hashes[at]) for at in range(len(hashes) - 1)])
        print(f"{f'of {len(pairs):,} pairs of files':30}", *(f"{(pairs <= limit).sum():8,}" for limit in LIMITS))
    print(f"\n{len(near_pairs(cosine_hashes(images))):,} pairs found by check_data")


if __name__ == "__main__":
    main()
