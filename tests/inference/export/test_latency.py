import time

from reslab.inference.export.latency import FEWEST_ROUNDS, medians, milliseconds


def test_rounds_are_interleaved_and_the_first_ones_do_not_count():
    made = []
    times = milliseconds({name: lambda name=name: made.append(name) for name in "ab"}, seconds=0, warmup_rounds=2)
    assert "".join(made) == "ab" * (2 + FEWEST_ROUNDS)
    assert [len(each) for each in times.values()] == [FEWEST_ROUNDS, FEWEST_ROUNDS]


def test_a_median_is_in_milliseconds():
    found = medians({"short": lambda: None, "long": lambda: time.sleep(0.02)}, seconds=0)
    assert found["short"] < 5
    assert 20 <= found["long"] < 200
