import os
import re
import struct
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from bad_images import BAD, write_bad
from PIL import Image, features
from torchvision.transforms.v2.functional import pil_to_tensor

from reslab.data.images import (
    FORMATS,
    MAX_PIXELS,
    SUFFIXES,
    UnreadableImageError,
    first_few,
    has_transparent_parts,
    header_error,
    list_images,
    load_image,
    report_not_read,
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


def read_image(*arguments):
    return pil_to_tensor(load_image(*arguments))


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


LEVELS = np.array([[0, 128, 129, 257], [300, 32768, 65406, 65535]])
BRIGHTNESS = torch.tensor([[[0, 0, 1, 1], [1, 128, 254, 255]]], dtype=torch.uint8)


def write_tiff(path, content, *, order="<", bits=16, sample_format=1, photometric=1):
    """Write grey of 4 x 2 pixels. Pillow does not write all kinds: a header of 9 tags, then the pixels."""
    tags = {
        256: 4,
        257: 2,
        258: bits,
        259: 1,
        262: photometric,
        273: 200,
        278: 2,
        279: len(content),
        339: sample_format,
    }
    rows = [struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags.items()]
    mark = {"<": b"II", ">": b"MM"}[order]
    head = struct.pack(f"{order}2sHIH", mark, 42, 8, len(tags)) + b"".join(rows)
    path.write_bytes(head.ljust(200, b"\0") + content)


@pytest.mark.parametrize("name", ["deep.tif", "deep.pgm"])
def test_16_bit_grey_of_other_formats_keeps_its_brightness(tmp_path, name):
    Image.fromarray(LEVELS.astype(np.uint16)).save(tmp_path / name)
    assert torch.equal(read_image(tmp_path / name, 1), BRIGHTNESS)


@pytest.mark.parametrize(("order", "photometric"), [("<", 1), (">", 1), ("<", 0)])
def test_a_tiff_of_16_bits_has_either_byte_order_and_either_level_as_white(tmp_path, order, photometric):
    levels = LEVELS if photometric == 1 else 65535 - LEVELS
    write_tiff(tmp_path / "a.tif", levels.astype(f"{order}u2").tobytes(), order=order, photometric=photometric)
    assert torch.equal(read_image(tmp_path / "a.tif", 1), BRIGHTNESS)


def test_a_tiff_of_12_bits_keeps_its_brightness(tmp_path):
    levels = [0, 4095, 2048, 8, 9, 300, 4000, 4094]
    pairs = zip(levels[::2], levels[1::2], strict=True)
    write_tiff(tmp_path / "a.tif", b"".join((a << 12 | b).to_bytes(3, "big") for a, b in pairs), bits=12)
    assert read_image(tmp_path / "a.tif", 1).flatten().tolist() == [round(level * 255 / 4095) for level in levels]


@pytest.mark.parametrize(("bits", "sample_format", "kind"), [(32, 1, "32 bits"), (16, 2, "16 bits with a sign")])
def test_a_tiff_that_does_not_say_which_level_is_white_is_refused(tmp_path, bits, sample_format, kind):
    content = np.arange(8, dtype=f"<i{bits // 8}").tobytes()
    write_tiff(tmp_path / "a.tif", content, bits=bits, sample_format=sample_format)
    reason = rf"a\.tif \(grey of {kind}, whose range is not known: save it with 8 or 16 bits\)$"
    with pytest.raises(UnreadableImageError, match=reason):
        read_image(tmp_path / "a.tif", 1)
    assert re.search(reason, header_error(tmp_path / "a.tif"))


def test_an_image_of_one_pixel(tmp_path):
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "dot.png")
    assert read_image(tmp_path / "dot.png", 3).flatten().tolist() == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("name", "feature", "options"),
    [
        ("a.jfif", "jpg", {"quality": 100, "subsampling": 0}),
        ("a.JPE", "jpg", {"quality": 100, "subsampling": 0}),
        ("a.avif", "avif", {"quality": 100, "subsampling": "4:4:4"}),
        ("a.jp2", "jpg_2000", {"irreversible": False}),
        ("a.webp", "webp", {"lossless": True}),
        ("a.dib", None, {}),
        ("a.pbm", None, {}),
    ],
)
def test_more_formats_are_found_and_read_where_pillow_has_their_decoder(tmp_path, name, feature, options):
    suffix = name[1:].lower()
    if feature and not features.check(feature):
        assert suffix not in SUFFIXES
        return
    image = Image.new("RGB", (16, 8), (255, 0, 0))
    image.paste((0, 0, 0), (8, 0, 16, 8))
    if suffix == ".pbm":
        image = image.convert("L").point(lambda level: 255 * (level > 0)).convert("1")
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".pbm": "PPM"}
    image.save(tmp_path / name, formats.get(suffix), **options)
    assert list_images(tmp_path).paths == [str(tmp_path / name)]
    pixels = read_image(tmp_path / name, 3).float()
    expected = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).float()
    assert (pixels - expected).abs().max() <= 2  # JPEG and AVIF round


def test_no_format_of_pillow_that_runs_a_program_or_has_no_signature_is_opened():
    assert not {"EPS", "WMF", "TGA", "PCD", "PSD", "FITS", "HDF5"} & set(FORMATS)


# transparency

ALPHA = np.array([[0, 100], [200, 255]], dtype=np.uint8)
GROUND = [255, 128, 7]
COLOUR_ROWS = COLOURS.permute(1, 2, 0).numpy()


def laid_over(colours, alpha, ground):
    """Return colours (H, W, 3) over a ground, rounded, as (3, H, W)."""
    weight = np.asarray(alpha, dtype=np.float64)[..., None] / 255
    return torch.from_numpy(np.rint(colours * weight + np.array(ground) * (1 - weight)).astype(np.uint8)).permute(
        2, 0, 1
    )


@pytest.mark.parametrize("ground", [[255, 255, 255], [0, 0, 0], GROUND])
@pytest.mark.parametrize(
    ("name", "lossless"), [("a.png", {}), ("a.tif", {}), ("a.webp", {"lossless": True, "exact": True})]
)
def test_a_transparent_image_is_laid_over_the_background(tmp_path, name, lossless, ground):
    image = Image.fromarray(np.dstack([COLOUR_ROWS, ALPHA]))
    image.save(tmp_path / name, **lossless)
    expected = laid_over(COLOUR_ROWS, ALPHA, ground)
    assert torch.equal(read_image(tmp_path / name, 3, ground), expected)
    grey = np.rint(np.array([0.299, 0.587, 0.114]) @ expected.numpy().reshape(3, -1).astype(float)).reshape(1, 2, 2)
    assert np.abs(read_image(tmp_path / name, 1, ground).numpy() - grey).max() <= 1  # Pillow's weights have 16 bits
    assert torch.equal(read_image(tmp_path / name, 3), COLOURS)  # without a background, transparency is dropped


def test_a_black_shape_on_a_transparent_ground_is_seen(tmp_path):
    shape = np.zeros((9, 9), dtype=np.uint8)
    shape[4, :] = shape[:, 4] = 255
    for mode in ("RGBA", "LA"):
        image = Image.new(mode.rstrip("A"), (9, 9))
        image.putalpha(Image.fromarray(shape))
        image.save(tmp_path / f"{mode}.png")
        for channels in (1, 3):
            pixels = read_image(tmp_path / f"{mode}.png", channels, [255, 255, 255])
            assert torch.equal(pixels, torch.from_numpy(255 - shape).expand(channels, 9, 9))


@pytest.mark.parametrize(("mode", "error"), [("LA", 0), ("PA", 3), ("La", 1), ("RGBa", 1)])
def test_tiff_files_with_an_alpha_channel(tmp_path, mode, error):
    """The palette that Pillow makes is not exact, and neither are colours that are stored multiplied by alpha."""
    grey = np.array([[0, 50], [100, 200]], dtype=np.uint8)
    multiplied = np.rint(grey * (ALPHA / 255)).astype(np.uint8)
    bands = [Image.fromarray(multiplied if mode.endswith("a") else grey)] * (3 if mode == "RGBa" else 1)
    image = Image.merge("RGBA" if mode == "RGBa" else "LA", [*bands, Image.fromarray(ALPHA)])
    (image.convert("RGBA").convert("PA") if mode == "PA" else image).save(tmp_path / "a.tif")
    if mode.endswith("a"):  # Pillow does not write these: change the kind of the extra channel
        content = (tmp_path / "a.tif").read_bytes()
        kinds = [struct.pack("<HHII", 338, 3, 1, kind) for kind in (2, 1)]
        assert content.count(kinds[0]) == 1
        (tmp_path / "a.tif").write_bytes(content.replace(*kinds))
    expected = laid_over(np.dstack([grey] * 3), ALPHA, GROUND)
    assert (read_image(tmp_path / "a.tif", 3, GROUND).int() - expected.int()).abs().max() <= error


def test_an_alpha_channel_without_an_effect_is_no_transparency(tmp_path):
    for name, alpha in (("opaque.png", np.full((2, 2), 255, dtype=np.uint8)), ("clear.png", ALPHA)):
        Image.fromarray(np.dstack([COLOUR_ROWS, alpha])).save(tmp_path / name)
    Image.fromarray(COLOUR_ROWS).save(tmp_path / "photo.jpg")
    names = ("opaque.png", "clear.png", "photo.jpg")
    assert [has_transparent_parts(tmp_path / name) for name in names] == [False, True, False]


@pytest.mark.parametrize("transparent", [bytes([0, 128, 255, 7]), 2])
@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palettes_with_transparent_colours(tmp_path, suffix, transparent):
    image = Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8))
    image.putpalette(COLOUR_ROWS.tobytes())
    if suffix == "gif":
        transparent = 2  # the only kind that a GIF has
    image.save(tmp_path / f"a.{suffix}", transparency=transparent)
    alpha = np.array(list(transparent) if isinstance(transparent, bytes) else [255, 255, 0, 255]).reshape(2, 2)
    expected = laid_over(COLOUR_ROWS, alpha, GROUND)
    assert torch.equal(read_image(tmp_path / f"a.{suffix}", 3, GROUND), expected)
    assert torch.equal(read_image(tmp_path / f"a.{suffix}", 3), COLOURS)


def write_png(path, levels, bits, transparent):
    """Write a PNG of grey (H, W) or RGB (H, W, 3) with any number of bits and a transparent level. Pillow cannot."""
    height, width = levels.shape[:2]
    if bits == 16:
        rows = levels.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        digits = np.unpackbits(levels.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        rows = np.packbits(digits.reshape(height, -1), axis=1)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", width, height, bits, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    level = struct.pack(f">{np.size(transparent)}H", *np.atleast_1d(transparent).tolist())
    chunks = [(b"IHDR", head), (b"tRNS", level), (b"IDAT", content), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_the_transparent_level_of_grey_with_any_number_of_bits(tmp_path, bits):
    largest = 2**bits - 1
    levels = np.array([[0, largest], [largest // 2, largest]])
    eight = np.rint(levels * 255 / largest)
    for transparent in (0, largest):
        write_png(tmp_path / "a.png", levels, bits, transparent)
        expected = np.where(levels == transparent, 128, eight)
        assert read_image(tmp_path / "a.png", 1, [128, 128, 128])[0].tolist() == expected.tolist()
        assert read_image(tmp_path / "a.png", 1)[0].tolist() == eight.tolist()


@pytest.mark.parametrize("bits", [8, 16])
def test_the_transparent_colour_of_rgb(tmp_path, bits):
    levels = COLOUR_ROWS.astype(np.int64) * (257 if bits == 16 else 1)
    write_png(tmp_path / "a.png", levels, bits, levels[0, 1])
    alpha = np.array([[255, 0], [255, 255]])
    assert torch.equal(read_image(tmp_path / "a.png", 3, GROUND), laid_over(COLOUR_ROWS, alpha, GROUND))


def test_a_transparent_image_is_turned_as_its_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.dstack([COLOUR_ROWS, ALPHA])).save(tmp_path / "a.png", exif=exif)
    expected = np.rot90(laid_over(COLOUR_ROWS, ALPHA, GROUND), -1, (1, 2)).copy()
    assert torch.equal(read_image(tmp_path / "a.png", 3, GROUND), torch.from_numpy(expected))


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


@pytest.mark.parametrize(("count", "names"), [(1, "a"), (3, "a, b, c"), (4, "a, b, c, d"), (5, "a, b, c and 2 more")])
def test_the_first_three_are_named(count, names):
    assert first_few(list("abcde")[:count]) == names


def test_unreadable_images_are_an_error_or_a_warning(caplog):
    report_unreadable([], 0, "stop")
    report_unreadable([], 5, "skip")
    with pytest.raises(UserError, match=r"^cannot read a: remove it, or set data\.on_error=skip to leave it out$"):
        report_unreadable(["a"], 5, "stop")
    with pytest.raises(UserError, match=r"^cannot read a, b: remove them, or set on_error=skip to leave them out$"):
        report_unreadable(["a", "b"], 2, "stop", "on_error")
    gone = [f"{name} (the file is not there any more)" for name in "abcde"]
    with pytest.raises(UserError, match=r"^cannot read a \(the file .* and 2 more: put them back$"):
        report_unreadable(gone, 5, "stop")
    with pytest.raises(UserError, match=r"any more\), b: remove them, or set data\.on_error=skip to leave them out$"):
        report_unreadable([gone[0], "b"], 2, "stop")
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
    found = [os.path.relpath(path, inside) for path in list_images(inside).paths]
    assert found == ["b.png", "deep/A.JPG", "gone.png", "there/c.webp"]
    (tmp_path / "link").symlink_to(inside)
    assert len(list_images(tmp_path / "link").paths) == 4
    with pytest.raises(NotADirectoryError):
        list_images(inside / "b.png")


def test_an_image_that_was_removed_is_said_to_be_gone(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"^.*a\.png \(the file is not there any more\)$"):
        read_image(tmp_path / "a.png", 3)


def test_a_link_to_itself_is_an_image_that_cannot_be_read(tmp_path):
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert list_images(tmp_path).paths == [str(tmp_path / "loop.png")]
    with pytest.raises(UnreadableImageError, match="not a file, or a link to nothing"):
        read_image(tmp_path / "loop.png", 3)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_hidden_folders_and_those_of_the_system_are_left_out(tmp_path):
    copies = [
        ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/._1.png", "__MACOSX/1.png", "@eaDir/1.jpg/THUMB.jpg",
        "deep/.git/1.png", "deep/@eaDir/1.png", "$RECYCLE.BIN/1.png", "._1.png", "Thumbs.db", ".DS_Store",
    ]  # fmt: skip
    touch(tmp_path / ".root", "1.png", "deep/2.png", *copies)
    found = list_images(tmp_path / ".root")  # a hidden folder that is named is read
    assert [os.path.relpath(path, tmp_path / ".root") for path in found.paths] == ["1.png", "deep/2.png"]
    assert not found.not_read


def test_paths_are_in_the_order_of_the_names_at_every_level(tmp_path):
    names = ["b.png", "a.png", "a/2.png", "a-b/1.png", "a/10.png", "B.png", "a b.png", "ä/ö.png"]
    touch(tmp_path, *names)
    expected = sorted(tmp_path / name for name in names)  # by the parts of a path, not by its text
    assert list_images(tmp_path).paths == [str(path) for path in expected]


def test_a_link_to_a_folder_that_holds_it_is_not_followed(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "a" / "here").symlink_to(".")
    assert list_images(tmp_path / "a").paths == [str(tmp_path / "a" / "1.png")]
    assert list_images(tmp_path).paths == [str(tmp_path / "a" / "1.png"), str(tmp_path / "b" / "2.png")]


def test_each_folder_is_read_once(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "c").symlink_to("a")
    (tmp_path / "b" / "a").symlink_to("../a")
    assert list_images(tmp_path).paths == [str(tmp_path / "a" / "1.png"), str(tmp_path / "b" / "2.png")]


def test_real_paths_lead_through_no_link(tmp_path):
    touch(tmp_path, "real/1.png", "real/deep/2.png")
    (tmp_path / "real" / "3.png").symlink_to("deep/2.png")
    (tmp_path / "link").symlink_to("real")
    found = list_images(tmp_path / "link")
    real = (tmp_path / "real").resolve()
    assert found.real_paths() == [f"{real}/1.png", f"{real}/deep/2.png", f"{real}/deep/2.png"]


def test_files_that_look_like_images_and_are_not_read_are_counted_in_one_line(tmp_path, caplog):
    touch(tmp_path, "1.png", "a.HEIC", "b.heic", "c.svg", "deep/d.heic", "0001", "e.jpg_large", "notes.txt", "x.json")
    found = list_images(tmp_path)
    assert found.not_read == Counter({".heic": 3, ".svg": 1, "": 1, ".jpg_large": 1})
    report_not_read(tmp_path, Counter())
    assert caplog.messages == []
    report_not_read(tmp_path, Counter({".heic": 1200, "": 1}))
    assert caplog.messages == [
        f"left out 1,201 of the files in {tmp_path}, which are not read as images (1,200 .heic, 1 without a suffix): "
        "convert them to PNG or JPEG, or rename them"
    ]
