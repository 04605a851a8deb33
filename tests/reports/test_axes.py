import pytest

from reslab.reports.axes import positions, ticks


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 3, 2, 1], {"1": 0, "2": 0.5, "3": 1}),
        ([0.01, 1.0, 0.1], {"0.01": 0, "0.1": 0.5, "1.0": 1}),
        ([0.0, 100, 1], {"0.0": 0, "1": 0.01, "100": 1}),
        ([1, 51, 100], {"1": 0, "51": 50 / 99, "100": 1}),  # spans much, but evenly
        (["resnet20", "resnet8", "-"], {"-": 0, "resnet8": 0.5, "resnet20": 1}),
        ([True, False], {"false": 0, "true": 1}),
        ([0.1, None], {"0.1": 0, "null": 1}),
        (["-", 0.01, 0.001, "auto", 10], {"0.001": 0, "0.01": 0.25, "10": 0.5, "-": 0.75, "auto": 1}),
        ([5], {"5": 0}),
    ],
)
def test_positions_on_an_axis(values, expected):
    places = positions(values)
    assert list(places) == list(expected)
    assert places == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 3, 2], {0: "1", 0.5: "2", 1: "3"}),
        ([1, 100, 98, 50], {0: "1", 49 / 99: "50", 97 / 99: "98"}),  # no room for 100
        ([0.1, 0.12345678901], {0: "0.1", 1: "0.1235"}),
        (["resnet110_stochastic_depth", "resnet8"], {0: "resnet8", 1: "resnet110_…tic_depth"}),
        ([10 ** (-number / 3) for number in range(13)], {0: "0.0001", 0.25: "0.001", 0.5: "0.01", 0.75: "0.1", 1: "1"}),
        ([number / 7 for number in range(15)], {0: "0", 0.2: "0.4", 0.4: "0.8", 0.6: "1.2", 0.8: "1.6", 1: "2"}),
    ],
)
def test_ticks_on_an_axis(values, expected):
    found = ticks(values)
    assert list(found.values()) == list(expected.values())
    assert list(found) == pytest.approx(list(expected))
