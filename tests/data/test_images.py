import os
import struct
import warnings

import numpy as np
import pytest
import torch
from bad_images import BAD, write_bad
from PIL import Image

from reslab.data.images import (
    MAX_PIXELS,
    UnreadableImageError,
    center_square,
    first_few,
    image_paths,
    read_image,
    report_unreadable,
)
from reslab.errors import UserError

COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [255, 255, 255], [0, 0, 0]], dtype=torch.uint8).T.view(3, 2, 2)


@pytest.fixture(autouse=True)
def no_warnings():
    """The warnings of Pillow would fill the terminal for a large data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # the kind that Pillow raises
        yield


# images that can be read


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK"])
def test_images_of_every_mode_have_the_right_colours(tmp_path, mode, channels):
    image = Image.fromarray(COLOURS.permute(1, 2, 0).numpy()).convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    grey = torch.tensor([[76, 150], [255, 0]], dtype=torch.uint8)  # 0.299 and 0.587 of 255
    if mode == "1":
        expected = torch.from_numpy(np.asarray(image) * np.uint8(255)).expand(channels, 2, 2)
    elif channels == 1 or mode in ("L", "LA"):
        expected = grey.expand(channels, 2, 2)
    else:
        expected = COLOURS
    assert torch.equal(read_image(path, channels), expected)


def test_a_cmyk_jpeg_is_not_inverted(tmp_path):
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "red.jpg", quality=100)
    mean = read_image(tmp_path / "red.jpg", 3).float().mean((1, 2))
    assert mean.tolist() == pytest.approx([255, 0, 0], abs=3)  # JPEG loses a little


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_grey_keeps_its_brightness(tmp_path, channels):
    values = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    expected = torch.tensor([[0, 0, 1, 1], [1, 128, 254, 255]], dtype=torch.uint8)  # divided by 257
    assert torch.equal(read_image(tmp_path / "deep.png", channels), expected.expand(channels, 2, 4))


UPRIGHT = {  # EXIF orientation: the operation that turns the stored pixels upright
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: np.rot90(stored, -1),  # clockwise
    7: lambda stored: np.rot90(stored, 2).transpose(1, 0, 2),
    8: lambda stored: np.rot90(stored, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photo_is_turned_as_its_exif_says(tmp_path, orientation):
    gradient = np.stack(np.meshgrid(np.arange(24) * 10, np.arange(16) * 15), axis=-1).astype(np.uint8)  # (16, 24, 2)
    photo = Image.fromarray(np.concatenate([gradient, gradient[..., :1] // 2], axis=-1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "plain.jpg")
    photo.save(tmp_path / "turned.jpg", exif=exif)
    stored = np.asarray(Image.open(tmp_path / "plain.jpg"))
    expected = UPRIGHT[orientation](stored)
    assert np.array_equal(read_image(tmp_path / "turned.jpg", 3).permute(1, 2, 0), expected)
    assert orientation == 1 or not np.array_equal(expected[:16, :16], stored[:16, :16])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mode", "transparent"), [("RGBA", None), ("LA", None), ("P", bytes([0, 128, 255, 7])),
                                                   ("P", 2), ("L", 255), ("RGB", (255, 0, 0))])  # fmt: skip
def test_colours_are_those_under_the_transparency(tmp_path, mode, transparent, channels):
    image = Image.fromarray(COLOURS.permute(1, 2, 0).numpy()).convert(mode.rstrip("A"))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8)))
        assert image.mode == mode
    image.save(tmp_path / "image.png", transparency=transparent)
    assert ("transparency" in Image.open(tmp_path / "image.png").info) == (transparent is not None)
    grey = torch.tensor([[76, 150], [255, 0]], dtype=torch.uint8)
    expected = grey.expand(channels, 2, 2) if channels == 1 or mode.startswith("L") else COLOURS
    assert torch.equal(read_image(tmp_path / "image.png", channels), expected)


@pytest.mark.parametrize(("name", "order"), [("deep.tif", "<u2"), ("deep_big.tif", ">u2"), ("deep.pgm", "<u2")])
def test_16_bit_grey_of_other_formats_keeps_its_brightness(tmp_path, name, order):
    values = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]], dtype=np.uint16)
    if order == ">u2":  # Pillow does not write this byte order: a header of 8 tags, then the pixels
        tags = [(256, 3, 1, 4 << 16), (257, 3, 1, 2 << 16), (258, 3, 1, 16 << 16), (259, 3, 1, 1 << 16),
                (262, 3, 1, 1 << 16), (273, 4, 1, 200), (278, 3, 1, 2 << 16), (279, 4, 1, 16)]  # fmt: skip
        head = struct.pack(">2sHIH", b"MM", 42, 8, len(tags)) + b"".join(struct.pack(">HHII", *tag) for tag in tags)
        (tmp_path / name).write_bytes(head.ljust(200, b"\0") + values.astype(order).tobytes())
    else:
        Image.fromarray(values).save(tmp_path / name)
    expected = torch.tensor([[0, 0, 1, 1], [1, 128, 254, 255]], dtype=torch.uint8)
    assert torch.equal(read_image(tmp_path / name, 1), expected[None])


def test_an_image_of_one_pixel_and_one_of_a_line_of_pixels(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    dot = read_image(tmp_path / "dot.png", 3)
    assert dot.flatten().tolist() == [1, 2, 3]
    assert torch.equal(center_square(dot, 5), dot.expand(3, 5, 5))
    line = torch.arange(1_999_999).remainder(256).byte().expand(3, 1, -1)  # resized by 224 it would take 301 GB
    assert torch.equal(center_square(line, 224)[:, :, 112], line[:, :1, 999_999].expand(3, 224))


def test_the_content_decides_the_format_and_any_name_is_read(tmp_path):
    names = ["a b.png", "ünï 猫.png", "two\nlines.png", os.fsdecode(b"\xff.png"), "jpeg.png", "#1 ${x}.png"]
    for number, name in enumerate(names):
        Image.new("L", (2, 2), number).save(tmp_path / name, "BMP")
    (tmp_path / "link.png").symlink_to("a b.png")
    assert [int(read_image(tmp_path / name, 1).max()) for name in [*names, "link.png"]] == [0, 1, 2, 3, 4, 5, 0]


def test_the_first_of_several_frames_is_read(tmp_path):
    frames = [Image.new("L", (2, 2), level) for level in (10, 20)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "film.gif", 1).flatten().tolist() == [10] * 4


def test_a_broken_exif_is_ignored(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "photo.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12")
    assert read_image(tmp_path / "photo.jpg", 1).shape == (1, 2, 3)


# images that cannot be read


@pytest.mark.parametrize("kind", BAD)
def test_an_unreadable_image_is_named_with_the_reason(tmp_path, kind):
    path = write_bad(tmp_path)[kind]
    with pytest.raises(UnreadableImageError) as caught:
        read_image(path, 3)
    line = str(caught.value)
    assert line.startswith(f"{path} (")
    assert BAD[kind][2] in line
    assert "\n" not in line
    assert not (tmp_path / "sprung").exists()


def test_an_image_with_too_many_pixels_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert MAX_PIXELS == 2**27
    with pytest.raises(UnreadableImageError, match="pixels, more than"):
        read_image(write_bad(tmp_path)["a bomb"], 3)


def test_the_largest_allowed_number_of_pixels_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("reslab.data.images.MAX_PIXELS", 6)
    for size in ((2, 3), (7, 1)):
        Image.new("L", size).save(tmp_path / f"{size[0]}.png")
    assert read_image(tmp_path / "2.png", 1).shape == (1, 3, 2)
    with pytest.raises(UnreadableImageError, match=r"7\.png \(7 x 1 pixels, more than 6\)$"):
        read_image(tmp_path / "7.png", 1)


@pytest.mark.parametrize(
    ("count", "names"), [(1, "a"), (3, "a, b, c"), (4, "a, b, c and 1 more"), (5, "a, b, c and 2 more")]
)
def test_the_first_three_are_named(count, names):
    assert first_few(list("abcde")[:count]) == names


def test_unreadable_images_are_an_error_or_a_warning(caplog):
    report_unreadable([], 0, "stop")
    report_unreadable([], 5, "skip")
    with pytest.raises(UserError, match=r"^cannot read a: remove it, or set data\.on_error=skip to leave it out$"):
        report_unreadable(["a"], 5, "stop")
    with pytest.raises(UserError, match=r"^cannot read a, b: remove them, or set on_error=skip to leave them out$"):
        report_unreadable(["a", "b"], 2, "stop", "on_error")
    with pytest.raises(UserError, match=r"^none of 2 images can be read: a, b$"):
        report_unreadable(["a", "b"], 2, "skip")
    assert caplog.messages == []
    report_unreadable(["a", "b"], 5, "skip")
    assert caplog.messages == ["left out 2 of 5 images, which cannot be read: a, b"]


# finding files


def test_images_below_a_folder_are_found_once_also_through_links(tmp_path):
    outside = tmp_path / "outside"
    for path in ("inside/b.png", "inside/deep/A.JPG", "outside/c.webp", "inside/.hidden.png", "inside/notes.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    inside = tmp_path / "inside"
    (inside / "there").symlink_to(outside)
    (inside / "deep" / "back").symlink_to(inside)
    (inside / "gone.png").symlink_to("absent")  # an error when it is read
    found = [str(path.relative_to(inside)) for path in image_paths(inside)]
    assert found == ["b.png", "deep/A.JPG", "gone.png", "there/c.webp"]
    (tmp_path / "link").symlink_to(inside)
    assert len(image_paths(tmp_path / "link")) == 4
    with pytest.raises(NotADirectoryError):
        image_paths(inside / "b.png")
