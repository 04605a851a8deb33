from reslab.training.options import first_device


def test_one_device_is_the_first_that_was_chosen():
    """The user may have chosen it because another process uses the others."""
    assert [first_device(devices) for devices in ("auto", 4, [3], [2, 5])] == [1, 1, [3], [2]]
