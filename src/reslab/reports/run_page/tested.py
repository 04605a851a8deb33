"""What the answers of a test say: metrics with intervals, the scores of each class, and calibration."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from reslab.errors import UserError
from reslab.inference.evaluation import class_table
from reslab.reports.run_page.metrics import BOOTSTRAP, MEANINGS, Metric, proportion
from reslab.reports.run_page.resampling import (
    Floats,
    Interval,
    calibrated_errors,
    f1_resamples,
    intervals_of,
    mean_resamples,
)
from reslab.reports.statistics import CONFIDENCE, proportion_interval
from reslab.run import Result, tested_step
from reslab.training.answers import Answers
from reslab.training.confusion import Confusion
from reslab.training.metrics import BINS, CalibrationError, bins_of


class ClassScores(NamedTuple):
    """The scores of one class, each with its interval.

    Attributes:
        number: of the class.
        images: of the class, in the test.
        precision, recall: proportions, of the images predicted as the class and of those of the class; None of none.
        f1: None of a class without images that was never predicted.
        f1_interval: None where resampling does not vary the score.
        taken_for: the classes that its images are mistaken for most often, equally often, and in how many images each;
            None without mistakes.
    """

    number: int
    images: int
    precision: float | None
    precision_interval: Interval
    recall: float | None
    recall_interval: Interval
    f1: float | None
    f1_interval: Interval | None
    taken_for: tuple[list[int], int] | None


class Bin(NamedTuple):
    """The images whose confidence is in one interval, with how many of them are right, and their mean confidence."""

    low: float
    high: float
    images: int
    right: int
    confidence: float


@dataclass(frozen=True)
class AnsweredTest:
    """The answers of a run's test, and its result, which speak of the same weights and images."""

    answers: Answers
    result: Result

    @property
    def confusion(self) -> Confusion:
        return self.answers.confusion

    @cached_property
    def resampled_f1(self) -> Floats:
        """The F1 score of each class in resamples of the images, (resamples, C)."""
        true, predicted, counts = (
            each.numpy() for each in (self.confusion.true, self.confusion.predicted, self.confusion.counts)
        )
        return f1_resamples(true, predicted, counts, self.confusion.num_classes)

    def metrics(self) -> list[Metric]:
        """Return the metrics of the test that the result has."""
        n = len(self.answers)
        found = []
        for name in MEANINGS:
            if name not in self.result:
                continue
            value = float(self.result[name])
            if name.endswith("accuracy"):
                found.append(proportion(name, value, n))
                continue
            # Resampling makes the calibration error larger.
            interval = None if name == "test/calibration_error" else self.bootstrap_interval(name)
            found.append(Metric(name, value, interval, BOOTSTRAP if interval else ""))
        return found

    def bootstrap_interval(self, name: str) -> Interval | None:
        """Return the interval of the loss or of the macro F1 score."""
        estimate = np.array([self.result[name]])
        if name == "test/loss":
            (interval,) = intervals_of(mean_resamples(self.answers.losses.numpy())[:, None], estimate)
        else:  # every resample has some class
            (interval,) = intervals_of(np.nanmean(self.resampled_f1, axis=1, keepdims=True), estimate, highest=1)
        return interval

    def class_scores(self) -> list[ClassScores]:
        """Return the scores of each class."""
        confusion = self.confusion
        right, predicted = confusion.right().tolist(), confusion.by_predicted_class().tolist()
        most_taken_for = self.most_taken_for()
        table = class_table(confusion, list(self.answers.classes))
        f1 = np.array([row["f1"] for row in table], np.float64)  # NaN for None
        f1_intervals = intervals_of(self.resampled_f1, f1, highest=1)
        scores = []
        for number, row in enumerate(table):
            images = int(row["images"])
            scores.append(
                ClassScores(
                    number,
                    images,
                    row["precision"],
                    Interval(*proportion_interval(right[number], predicted[number])),
                    row["recall"],
                    Interval(*proportion_interval(right[number], images)),
                    row["f1"],
                    f1_intervals[number],
                    most_taken_for.get(number),
                )
            )
        return scores

    def mistaken_pairs(self) -> list[tuple[int, int, int]]:
        """Return the pairs of a true class, a predicted one, and how many images were confused so, the most first."""
        confusion = self.confusion
        columns = (each.tolist() for each in (confusion.true, confusion.predicted, confusion.counts))
        pairs = [pair for pair in zip(*columns, strict=True) if pair[0] != pair[1]]
        return sorted(pairs, key=lambda pair: -pair[2])

    def most_taken_for(self) -> dict[int, tuple[list[int], int]]:
        """Return for each class with mistakes the classes that it was answered as most often, and how often each."""
        found: dict[int, tuple[list[int], int]] = {}
        for true, predicted, count in self.mistaken_pairs():  # the most frequent first
            others, most = found.setdefault(true, ([], count))
            if count == most:
                others.append(predicted)
        return found

    @cached_property
    def bins(self) -> list[Bin]:
        """The bins of the calibration error, as the metric has them."""
        metric = CalibrationError()
        metric.update(self.answers.logits, self.answers.labels)
        columns = zip(metric.images.tolist(), metric.right.tolist(), metric.confidence.tolist(), strict=True)
        return [
            Bin(number / BINS, (number + 1) / BINS, images, right, confidence / images if images else 0.0)
            for number, (images, right, confidence) in enumerate(columns)
        ]

    def calibrated_limit(self) -> float:
        """Return the calibration error that a perfectly calibrated network would stay below in 95% of such tests."""
        confidence = self.answers.probabilities.max(1).values
        errors = calibrated_errors(confidence.numpy(), bins_of(confidence).numpy(), BINS)
        return float(np.quantile(errors, CONFIDENCE))


def require_same_test(answers: Answers, step: int, result: Mapping[str, Any]) -> None:
    """Raise UserError unless the answers are those of the test of the result: of the same weights and images."""
    tested = tested_step(result)
    right, n, accuracy = int(answers.right.sum()), len(answers), float(result["test/accuracy"])
    if step != tested:
        what = f"the answers are of step {step} and the result is of step {tested}"
    elif not n or not abs(accuracy - right / n) <= 0.5 / n:  # the accuracy may be NaN
        what = f"the answers are right for {right} of {n} images, and the accuracy of the result is {accuracy:.4f}"
    elif int(result.get("test/images", n)) != n:
        what = f"the answers are to {n} images and the result is of {result['test/images']:.0f}"
    else:
        return
    raise UserError(f"{what}: the page would mix two tests; train again, or resume the run, to write both anew")
