import itertools
import logging

import pytest
from bad_images import BAD, noise, write_bad

from reslab.data import headers
from reslab.data.headers import check_headers, evenly_spaced
from reslab.data.images import UnreadableImageError, header_error, load_image
from reslab.errors import UserError

# What stands after the header of these is wrong, so that only reading their pixels shows it.
LATER = {"cut JPEG", "cut PNG", "cut GIF", "cut TIFF", "cut BMP", "corrupt JPEG", "corrupt PNG"}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_header_shows_most_of_what_reading_would_show(tmp_path, kind):
    path = write_bad(tmp_path)[kind]
    with pytest.raises(UnreadableImageError) as caught:
        load_image(path, 3)
    assert header_error(path) == (None if kind in LATER else str(caught.value))


def test_broken_files_are_named_in_the_order_of_the_files(tmp_path):
    bad = write_bad(tmp_path)
    shown = [path for kind, path in bad.items() if kind not in LATER]
    noise(good := tmp_path / "good.png")
    with pytest.raises(UserError) as caught:
        check_headers([*map(str, bad.values()), str(good)])
    assert str(caught.value).startswith(f"cannot read {shown[0]} (")
    assert str(caught.value).endswith(
        f" and {len(shown) - 3} more: remove them, or set data.on_error=skip to leave them out"
    )
    check_headers([str(good)])


def test_of_very_many_files_a_sample_is_looked_at_and_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(headers, "MOST_FILES", 5)
    (broken := tmp_path / "broken.png").touch()
    noise(good := tmp_path / "good.png")
    files = [str(good)] * 10
    files[1] = str(broken)
    with caplog.at_level(logging.INFO):
        check_headers(files)  # the files 0, 2, 4, 6 and 8
    assert [record.getMessage() for record in caplog.records] == ["looked for broken files among 5 of 10 images"]
    files[8] = str(broken)
    with pytest.raises(UserError, match="broken"):
        check_headers(files)


@pytest.mark.parametrize("count", [3, 4, 5, 100])
def test_a_sample_is_spread_over_all_files(count):
    names = [str(number) for number in range(count)]
    seen = evenly_spaced(names, 4)
    assert len(seen) == min(count, 4)
    steps = {int(after) - int(before) for before, after in itertools.pairwise(seen)}
    assert max(steps) - min(steps) <= 1
    assert seen[0] == "0"
