"""The metrics of a test, and how far each may be off."""

from typing import NamedTuple

from reslab.reports.configurations import metric_text
from reslab.reports.run_page.resampling import Interval
from reslab.reports.statistics import proportion_interval
from reslab.run import Result

WILSON, BOOTSTRAP = "Wilson", "bootstrap"
MEANINGS = {  # of `options.TEST_METRICS`, in the order in which they are shown
    "test/accuracy": "images whose most probable class is the true one",
    "test/top5_accuracy": "images whose true class is among the five most probable ones",
    "test/f1_macro": "mean over the classes of the F1 score, which combines precision and recall",
    "test/loss": "mean cross-entropy",
    "test/calibration_error": "how far the confidence is from the share of right answers, on the average",
}


class Metric(NamedTuple):
    """A metric of the test.

    Attributes:
        name: as in result.json.
        interval: where it would be with other images; None where nothing says it.
        method: how the interval was computed; "" without one.
    """

    name: str
    value: float
    interval: Interval | None
    method: str


def proportion(name: str, value: float, images: int) -> Metric:
    """Return a metric that is a proportion of the test images, with its interval."""
    return Metric(name, value, Interval(*proportion_interval(round(value * images), images)), WILSON)


def metrics_without_answers(result: Result) -> list[Metric]:
    """Return the metrics of a test whose answers to the single images are not known.

    Only accuracies have intervals, if the result says of how many images they are, which older versions did not write.
    """
    values = {name: float(result[name]) for name in MEANINGS if name in result}
    images = int(result.get("test/images", 0))
    return [
        proportion(name, value, images)
        if name.endswith("accuracy") and images > 0 and 0 <= value <= 1
        else Metric(name, value, None, "")
        for name, value in values.items()
    ]


def interval_text(interval: Interval) -> str:
    return f"{metric_text(interval.low)} to {metric_text(interval.high)}"
