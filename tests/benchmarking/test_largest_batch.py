import pytest

from reslab.benchmarking import largest_batch
from reslab.benchmarking.cases import Case
from reslab.benchmarking.largest_batch import find_largest_batch, search_largest


@pytest.mark.parametrize("start", [1, 7, 64])
@pytest.mark.parametrize("most", [0, 1, 2, 5, 63, 64, 100, 1000, 4097])
def test_the_largest_batch_is_found_to_within_a_sixteenth(start, most):
    tried = []
    largest, above = search_largest(lambda n: tried.append(n) or n <= most, start)
    assert largest <= most < above
    assert above - largest <= max(1, largest // 16)
    assert set(tried) >= {above, *([largest] if largest else [])}  # both answers were tried
    assert len(tried) == len(set(tried))


def test_a_batch_that_fits_with_a_graph_has_been_replayed(config, monkeypatch):
    steps = []

    def fake(settings):
        steps.append(settings["trainer"]["max_steps"])
        return {"status": "out of memory"}

    monkeypatch.setattr(largest_batch, "measure_in_own_process", fake)
    find_largest_batch(config(), Case("gpu", "auto", "contiguous", False, True, 1))
    assert steps == [5]  # three of warm-up, one that is recorded and one that is replayed


def test_the_search_says_what_stopped_it(config, monkeypatch):
    def fake(settings):
        assert settings["trainer"]["max_steps"] == 2
        known = {"accelerator": "cpu", "run": {"precision": "32-true"}, "images_per_second": 1.0}
        batch_size = settings["data"]["batch_size"]
        if batch_size > 40:
            return {"status": "out of memory"}
        return {"status": "finished", "peak_memory_mb": 10 * batch_size, **known}

    monkeypatch.setattr(largest_batch, "measure_in_own_process", fake)
    found = find_largest_batch(config(), Case("auto", "auto", "contiguous", False, "auto", 16))
    assert (found["batch_size"], found["peak_memory_mb"]) == (40, 400)
    assert (found["next"], found["reason"]) == (42, "out of memory")
    assert (found["accelerator"], found["memory_format"]) == ("cpu", "contiguous")
