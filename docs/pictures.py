"""Draw the pictures of these pages from what the code does: python docs/pictures.py [name …]."""

import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional

from reslab.data.augmentation import Augmentation
from reslab.data.datasets import FashionMNIST, read_idx
from reslab.data.options import Fit
from reslab.data.spec import ImageSpec

FOLDER = Path(__file__).parent / "pictures"
MARGIN, LINE = 8, 20  # pixels


def grid(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Return images in rows and columns on white, with a title above each column."""
    widths = [max(image.width for image in column) for column in zip(*rows, strict=True)]
    heights = [max(image.height for image in row) for row in rows]
    size = sum(widths) + MARGIN * (len(widths) + 1), sum(heights) + MARGIN * (len(heights) + 1) + LINE
    picture = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    left = MARGIN
    for number, (title, width) in enumerate(zip(titles, widths, strict=True)):
        draw.text((left, MARGIN), title, "black", font)
        top = MARGIN + LINE
        for row, height in zip(rows, heights, strict=True):
            picture.paste(row[number], (left, top))
            top += height + MARGIN
        left += width + MARGIN
    return picture


# augmentation

AUGMENTATIONS: list[dict[str, Any]] = [
    {},
    {"scale": 0.3}, {"scale": 0.3, "scale_aspect": [2, 3]}, {"crop": 8},
    {"flip": True}, {"vertical_flip": True}, {"right_angles": True},
    {"randaugment": 9}, {"trivial_augment": True}, {"color_jitter": 0.4}, {"color_jitter": [0, 0, 0, 0.5]},
    {"erasing": 1.0}, {"erasing": 1.0, "erasing_aspect": "uniform", "erasing_fill": 128},
]  # fmt: skip
SIDE, DRAWS = 112, 3  # pixels of a photograph, a multiple of Fashion-MNIST's 28; columns for each image


def augmentation() -> Image.Image:
    """Show several draws of each option of data.augment, for two photographs and a garment."""
    images = [square(photo) for photo in load_sample_images().images] + [garment()]
    rows = []
    for options in AUGMENTATIONS:
        augment = Augmentation(**{"crop": 0, "flip": False, "erasing": 0.0} | options)
        torch.manual_seed(12)
        draws = [drawn for image in images for drawn in augment(image.expand(DRAWS, -1, -1, -1))]
        rows.append([label(options), *(enlarged(drawn) for drawn in draws)])
    return grid(rows, ["data.augment.", *[""] * (DRAWS * len(images))])


def square(photo: Any) -> Tensor:
    """Return the centre of a photograph, uint8 (1, 3, SIDE, SIDE)."""
    image = Image.fromarray(photo)
    cut = functional.center_crop(image, [min(image.size)])
    return functional.pil_to_tensor(cut.resize((SIDE, SIDE), Image.Resampling.BICUBIC))[None]


def garment() -> Tensor:
    """Return a test image of Fashion-MNIST, a boot, uint8 (1, 1, 28, 28)."""
    return read_idx(FashionMNIST.debian_folder / "t10k-images-idx3-ubyte.gz")[:1, None]


def label(options: dict[str, Any]) -> Image.Image:
    image = Image.new("RGB", (150, SIDE), "white")
    text = "\n".join(f"{name}={value}".lower().replace(" ", "") for name, value in options.items())
    ImageDraw.Draw(image).multiline_text((0, 4), text or "null", "black", ImageFont.load_default(13))
    return image


def enlarged(image: Tensor) -> Image.Image:
    return functional.to_pil_image(image).convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)


# sizes


def sizes() -> Image.Image:
    """Show what data.fit and data.resize make of a wide and of a tall photograph."""
    choices: dict[str, tuple[Fit, int | None]] = {
        "crop": ("crop", None), "crop, resize=180": ("crop", 180), "pad": ("pad", None), "squash": ("squash", None),
    }  # fmt: skip
    rows = []
    for photo in load_sample_images().images:
        image = Image.fromarray(photo)
        image = image.transpose(Image.Transpose.ROTATE_270) if rows else image
        row = [image.resize((image.width // 3, image.height // 3))]
        for fit, resize in choices.values():
            spec = ImageSpec(["a"], 3, 142, [0.5] * 3, [0.5] * 3, [170, 200, 230], resize=resize, fit=fit)
            row.append(functional.to_pil_image(spec.fitting(training=False).of_file(image)))
        rows.append(row)
    return grid(rows, ["the file", *choices])


PICTURES = {"augmentation": augmentation, "sizes": sizes}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name]().save(FOLDER / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main()
