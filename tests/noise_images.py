"""Image folders of noise or of plain colours, and the data modules of them."""

import random

import numpy as np
import torch
from PIL import Image

from reslab.training.build import build_data

SIZE = 16


def save_noise(path, size=(SIZE, SIZE), seed=0):
    """Write random pixels, others for every path, of this height and width, and return them as (3, H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *str(path).encode()]).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def fill(folder, counts, **options):
    """Write images of noise in class folders and return the pixels of each path."""
    paths = [folder / name / f"{number:03}.png" for name, count in counts.items() for number in range(count)]
    return {path: save_noise(path, **options) for path in paths}


def fill_with_colors(root, counts):
    """Write 8x8 images, each of one colour of its own, in class folders."""
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw = random.Random(f"{name}/{number}")
            Image.new("RGB", (8, 8), tuple(draw.randrange(256) for _ in range(3))).save(root / name / f"{number}.png")


def build(composed, root, *overrides, stages=("fit", "test")):
    options = (f"data.root={root}", f"data.image_size={SIZE}", "data.batch_size=2", "data.num_workers=0", *overrides)
    return build_data(composed("data=imagefolder", *options), stages)


def counts(split):
    return split.labels[split.indices].bincount().tolist()


def pixels_and_labels(loader):
    batches = list(loader)
    return torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])
