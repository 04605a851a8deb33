import numpy as np

from reslab.data_checks import copies as copies_module
from reslab.data_checks.copies import Leak, find_copies, groups_of
from reslab.data_checks.facts import FACTS


def facts_of(contents, near=None):
    facts = np.zeros(len(contents), FACTS)
    facts["is_readable"] = True
    facts["pixels"] = [content.encode() for content in contents]
    facts["near"] = 0 if near is None else near
    return facts


def found(contents, splits, labels, near=None):
    arrays = np.array(splits), np.array(labels)
    return find_copies(facts_of(contents, near), *arrays, with_near=near is not None)


def lists(groups):
    return [group.tolist() for group in groups]


def test_identical_images_within_and_across_splits():
    copies = found("abcadbbe", splits=[0, 0, 0, 1, 1, 0, 2, 2], labels=[0, 1, 1, 0, 1, 1, 0, 1])
    assert copies.leaks == [Leak(split=2, earlier=0, identical=1, near=0), Leak(1, 0, 1, 0)]
    assert lists(copies.identical) == [[0, 3], [1, 5, 6]]
    assert (copies.other_labels, copies.extra, copies.near) == (3, [1, 0, 0], [])


def test_near_duplicates_are_counted_where_no_image_is_identical():
    near = [0b1, 0b11, 0b1, 1 << 40 | 0xFF0000, 0xFF0001FF]
    copies = found("abacd", splits=[0, 1, 1, 1, 1], labels=[0, 1, 0, 0, 0], near=near)
    assert copies.leaks == [Leak(split=1, earlier=0, identical=1, near=1)]
    assert lists(copies.identical) == [[0, 2]]
    assert lists(copies.near) == [[0, 1, 2]]
    assert (copies.other_labels, copies.near_other_labels) == (0, 3)


def test_a_chain_of_near_duplicates_is_one_group():
    chain = [0x1, 0x1F, 0x1FF, 0xF << 40]  # the first and the third differ in eight bits
    copies = found("abcd", splits=[0] * 4, labels=[0] * 4, near=chain)
    assert lists(copies.near) == [[0, 1, 2]]


def test_files_that_cannot_be_read_are_no_copies_of_one_another():
    facts = facts_of("xxyy")
    facts["is_readable"] = [False, False, True, True]
    facts["pixels"][:2] = b""
    copies = find_copies(facts, np.array([0, 1, 0, 1]), np.zeros(4, int), with_near=True)
    assert lists(copies.identical) == [[2, 3]]
    assert copies.leaks == [Leak(1, 0, 1, 0)]


def test_groups_are_in_the_order_of_their_first_images():
    assert lists(groups_of(np.array([5, 1, 5, 2, 1, 7]))) == [[0, 2], [1, 4]]


def test_images_of_one_hash_are_near_without_being_compared(monkeypatch):
    compared = []
    near_pairs = copies_module.near_pairs
    monkeypatch.setattr(copies_module, "near_pairs", lambda hashes: compared.append(len(hashes)) or near_pairs(hashes))
    contents = [f"{number:03}" for number in range(200)]
    copies = found(contents, splits=[0] * 150 + [1] * 50, labels=[0] * 199 + [1], near=[7] * 199 + [7 << 40])
    assert compared == [2]
    assert copies.leaks == [Leak(split=1, earlier=0, identical=0, near=49)]
    assert lists(copies.near) == [list(range(199))]
    assert copies.near_other_labels == 0


def test_flat_images_are_near_to_nothing_and_may_be_identical():
    copies = found("abac", splits=[0, 0, 1, 1], labels=[0, 0, 1, 0], near=[0, 0, 0, 0])
    assert copies.leaks == [Leak(1, 0, 1, 0)]
    assert (lists(copies.near), lists(copies.identical)) == ([], [[0, 2]])
    assert (copies.other_labels, copies.near_other_labels) == (2, 0)
