import numpy as np
import pytest
import torch
from PIL import Image

from reslab.data.images import load_image
from reslab.data_checks import facts as facts_module
from reslab.data_checks.facts import FACTS, LEAST_SIZE, Files, look_at_file, look_at_memory


def looked_at(path, background=None):
    facts = np.zeros(1, FACTS)[0]
    image = look_at_file(str(path), background, facts)
    return facts, image


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_counted_at_all_of_it(tmp_path):
    noise(1200, 2100).save(tmp_path / "large.jpg")
    facts, image = looked_at(tmp_path / "large.jpg")
    assert image.size == (600, 1050)
    assert (facts["width"], facts["height"]) == (1200, 2100)
    assert load_image(tmp_path / "large.jpg", 3).size == (1200, 2100)
    noise(1023, 1500).save(tmp_path / "small.jpg")
    assert looked_at(tmp_path / "small.jpg")[1].size == (1023, 1500)  # half of it would be below the least size
    assert LEAST_SIZE == (512, 512)


def test_equal_pixels_have_one_digest_whatever_the_file(tmp_path):
    image = noise(30, 20)
    for name in ("a.png", "b.bmp", "c.ppm"):
        image.save(tmp_path / name)
    image.save(tmp_path / "d.png", compress_level=0)
    image.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "e.png")
    Image.frombytes("RGB", (20, 30), image.tobytes()).save(tmp_path / "f.png")  # the same bytes in another shape
    facts = [looked_at(file)[0] for file in sorted(tmp_path.iterdir())]
    first, *same, turned, reshaped = (each["pixels"] for each in facts)
    assert same == [first] * 3
    assert len({first, turned, reshaped}) == 3
    assert len({each["file"] for each in facts}) == 6
    assert [each["bytes"] for each in facts] == [file.stat().st_size for file in sorted(tmp_path.iterdir())]


@pytest.mark.parametrize(("orientation", "is_turned"), [(1, False), (3, True), (6, True), (0, False), (9, False)])
def test_an_image_is_turned_if_exif_says_so(tmp_path, orientation, is_turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(30, 20).save(tmp_path / "a.jpg", exif=exif)
    facts, image = looked_at(tmp_path / "a.jpg")
    assert facts["is_turned"] == is_turned
    assert image.size == ((20, 30) if orientation == 6 else (30, 20))
    assert (facts["width"], facts["height"]) == image.size


def test_16_bits_and_transparency_are_seen_in_any_mode(tmp_path):
    levels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(levels).save(tmp_path / "grey.png")
    Image.fromarray(levels).save(tmp_path / "grey.tiff")
    noise(30, 20).save(tmp_path / "plain.png")
    noise(30, 20).convert("P").save(tmp_path / "palette.png", transparency=3)
    kinds = {file.name: looked_at(file)[0] for file in tmp_path.iterdir()}
    assert {name for name, each in kinds.items() if each["has_16_bits"]} == {"grey.png", "grey.tiff"}
    assert {name for name, each in kinds.items() if each["is_transparent"]} == {"palette.png"}


def test_the_levels_are_of_the_training_images_each_with_the_same_weight(tmp_path):
    Image.new("RGB", (10, 10), (0, 50, 255)).save(tmp_path / "0.png")
    Image.new("RGB", (90, 40), (200, 50, 255)).save(tmp_path / "1.png")
    Image.new("RGB", (10, 10), (7, 7, 7)).save(tmp_path / "2.png")
    files = Files([str(tmp_path / f"{number}.png") for number in range(3)], np.array([True, True, False]), None)
    levels = files[[0, 1, 2]].levels
    assert {(channel, level): levels[channel, level] for channel, level in zip(*levels.nonzero(), strict=True)} == {
        (0, 0): 1, (0, 200): 1, (1, 50): 2, (2, 255): 2,
    }  # fmt: skip


def test_a_file_that_cannot_be_read_is_named_with_its_reason_and_spoils_no_other(tmp_path, monkeypatch):
    noise(30, 20).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no image")
    files = Files([str(tmp_path / name) for name in ("text.png", "gone.png", "good.png")], np.ones(3, bool), None)
    seen = files[[0, 1, 2]]
    assert seen.unreadable == {0: "not an image", 1: "the file is not there any more"}
    assert seen.facts["is_readable"].tolist() == [False, False, True]
    assert seen.levels.sum() == pytest.approx(3)
    monkeypatch.setattr(facts_module, "look_at_header", lambda path, facts: 1 / 0)
    assert files[[2]].unreadable == {0: "division by zero"}


def test_images_in_memory_are_seen_as_files_are(tmp_path):
    images = [noise(40, 40), noise(40, 40).transpose(Image.Transpose.FLIP_TOP_BOTTOM)]
    for number, image in enumerate(images):
        image.save(tmp_path / f"{number}.png")
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    in_memory = look_at_memory(pixels, torch.arange(2), trains=True)
    on_disk = Files([str(tmp_path / f"{number}.png") for number in range(2)], np.ones(2, bool), None)[[0, 1]]
    assert in_memory.levels.tolist() == pytest.approx(on_disk.levels)
    for name in ("width", "height", "mode", "is_readable"):
        assert in_memory.facts[name].tolist() == on_disk.facts[name].tolist()
    differing = np.bitwise_count(in_memory.facts["near"] ^ on_disk.facts["near"])
    assert differing.max() <= 2  # Pillow and torch round the reduced images differently
    assert in_memory.unreadable == {}
