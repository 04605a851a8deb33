import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_guarantee_names_a_test_that_exists():
    page = (TESTS.parent / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", page)
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (TESTS / file).is_file() or f"def {test}(" not in (TESTS / file).read_text(encoding="utf-8")
    ]
    assert named
    assert missing == []
