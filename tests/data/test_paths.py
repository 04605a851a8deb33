import os
import pickle

import pytest

from reslab.data.paths import Paths

LISTS = [
    [],
    ["a.png"],
    ["/photos/cat/1.png", "/photos/cat/2.png", "/photos/dog/1.png", "/1.png", "dog/é ü.png"],
    [os.fsdecode(b"cat/\xff\xfe.png"), "cat/\n.png"],
]


@pytest.mark.parametrize("paths", LISTS)
def test_it_is_a_sequence_of_the_paths(paths):
    held = Paths(paths)
    assert list(held) == paths
    assert [held[place] for place in range(-len(paths), len(paths))] == paths * 2
    assert list(held[1:]) == paths[1:]
    assert list(held[::-2]) == paths[::-2]
    assert list(pickle.loads(pickle.dumps(held))) == paths
    assert (held == paths, held == [*paths, "b"]) == (True, False)
    with pytest.raises(IndexError):
        held[len(paths)]


def test_joined_paths_have_the_order_of_the_parts():
    assert list(Paths.joined([LISTS[2], Paths(LISTS[1])])) == LISTS[2] + LISTS[1]


def test_a_path_takes_its_name_and_eight_bytes():
    paths = Paths(f"/a/long/name/of/a/folder/class{number // 100}/{number:06}.png" for number in range(10_000))
    assert paths.nbytes == 10_000 * (len("000000.png") + 8) + 4
    assert len(paths.folders) == 100
