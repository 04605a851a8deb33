import pytest
import torch
from fake_answers import STEP, make_answers, metrics_of
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from reslab.errors import UserError
from reslab.reports.run_page.metrics import MEANINGS
from reslab.reports.run_page.tested import AnsweredTest, require_same_test
from reslab.training.answers import Answers
from reslab.training.options import TEST_METRICS


@pytest.fixture(scope="module")
def tested():
    answers = make_answers(400, 6, scale=1.5)
    return AnsweredTest(answers, metrics_of(answers))


def test_the_metrics_are_those_of_the_result_and_lie_in_their_intervals(tested):
    metrics = {each.name: each for each in tested.metrics()}
    assert {name: each.value for name, each in metrics.items()} == {
        name: value for name, value in tested.result.items() if name != "test/images"
    }
    for name in ("test/accuracy", "test/top5_accuracy", "test/f1_macro", "test/loss"):
        assert metrics[name].interval.low < metrics[name].value < metrics[name].interval.high
    assert metrics["test/accuracy"].method == "Wilson"
    assert metrics["test/f1_macro"].method == "bootstrap"
    assert metrics["test/calibration_error"].interval is None
    assert tested.metrics() == AnsweredTest(tested.answers, tested.result).metrics()


def test_the_scores_of_the_classes_are_scikit_learns(tested):
    answers, scores = tested.answers, tested.class_scores()
    expected = precision_recall_fscore_support(answers.labels, answers.predicted)
    for column, name in enumerate(("precision", "recall", "f1", "images")):
        assert [getattr(each, name) for each in scores] == pytest.approx(expected[column].tolist())
    for each in scores:
        assert each.recall_interval.low < each.recall < each.recall_interval.high
        assert each.precision_interval.low < each.precision < each.precision_interval.high
        assert each.f1_interval.low < each.f1 < each.f1_interval.high


def test_the_pairs_are_those_of_scikit_learns_matrix(tested):
    answers = tested.answers
    matrix = torch.tensor(confusion_matrix(answers.labels, answers.predicted)).fill_diagonal_(0)
    pairs = tested.mistaken_pairs()
    assert {(true, predicted): count for true, predicted, count in pairs} == {
        (true, predicted): int(matrix[true, predicted]) for true, predicted in matrix.nonzero().tolist()
    }
    counts = [count for *_, count in pairs]
    assert counts == sorted(counts, reverse=True)
    assert [each.taken_for[1] for each in tested.class_scores()] == matrix.max(1).values.tolist()


def test_the_bins_give_the_calibration_error_of_the_result(tested):
    bins, n = tested.bins, len(tested.answers)
    assert sum(each.images for each in bins) == n
    assert sum(each.right for each in bins) == int(tested.answers.right.sum())
    error = sum(abs(each.right - each.images * each.confidence) for each in bins) / n
    assert error == pytest.approx(tested.result["test/calibration_error"], abs=1e-7)
    assert all(each.low <= each.confidence <= each.high for each in bins if each.images)


def test_the_metrics_of_the_page_are_those_of_a_test():
    assert {*MEANINGS} == {*TEST_METRICS}


def test_a_calibrated_network_is_below_the_limit_and_one_that_is_too_confident_above():
    answers = make_answers(2000, 3, scale=0)
    labels = answers.probabilities.multinomial(1, generator=torch.Generator().manual_seed(1))[:, 0]
    for factor, is_calibrated in ((1, True), (3, False)):
        found = Answers(factor * answers.logits, labels, answers.indices, answers.classes)
        error = metrics_of(found)["test/calibration_error"]
        assert (error < AnsweredTest(found, {}).calibrated_limit()) is is_calibrated


def test_without_a_mistake_there_is_an_interval_of_the_accuracy_and_none_of_what_does_not_vary():
    answers = make_answers(50, 3, scale=50)
    metrics = {each.name: each for each in AnsweredTest(answers, metrics_of(answers)).metrics()}
    low, high = metrics["test/accuracy"].interval
    assert (low, high) == (pytest.approx(50 / (50 + 1.959964**2)), 1.0)
    assert metrics["test/f1_macro"].interval is None
    assert AnsweredTest(answers, {}).most_taken_for() == {}


def test_a_class_that_is_equally_often_mistaken_for_several_has_all_of_them():
    predicted = torch.tensor([1, 1, 2, 2, 0, 1])
    answers = Answers(torch.eye(3)[predicted], torch.tensor([0, 0, 0, 0, 1, 1]), torch.arange(6), list("abc"))
    assert AnsweredTest(answers, {}).most_taken_for() == {0: ([1, 2], 2), 1: ([0], 1)}


def test_a_class_without_images_has_no_recall():
    answers = Answers(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 0, 0]), torch.arange(3), list("abc"))
    first, second, third = AnsweredTest(answers, {}).class_scores()
    assert (first.recall, first.precision, first.taken_for) == (pytest.approx(2 / 3), 1.0, ([1], 1))
    assert (second.recall, second.precision, second.f1) == (None, 0.0, 0.0)
    assert (third.recall, third.precision, third.f1, third.f1_interval) == (None, None, None, None)
    f1 = [each.f1 for each in (first, second, third) if each.f1 is not None]
    assert sum(f1) / 2 == pytest.approx(metrics_of(answers)["test/f1_macro"])


def test_nan_is_no_interval_and_no_error():
    logits = torch.tensor([[float("nan"), 0.0], [1.0, 0.0], [0.0, 1.0]])
    answers = Answers(logits, torch.tensor([0, 0, 1]), torch.arange(3), ["a", "b"])
    tested = AnsweredTest(answers, metrics_of(answers))
    assert [each.interval for each in tested.metrics() if each.name == "test/loss"] == [None]
    assert sum(each.images for each in tested.bins) == 3
    assert sum(each.right for each in tested.bins) == int(answers.right.sum()) == 2


def test_answers_of_another_test_are_refused():
    answers = make_answers(10)
    result = metrics_of(answers) | {"best_step": STEP, "steps": 60}
    require_same_test(answers, STEP, result)
    with pytest.raises(UserError, match=r"^the answers are of step 60 and the result is of step 40:"):
        require_same_test(answers, 60, result)
    with pytest.raises(
        UserError, match=r"^the answers are right for . of 10 images, and the accuracy of the result is"
    ):
        require_same_test(answers, STEP, result | {"test/accuracy": result["test/accuracy"] - 0.1})
    with pytest.raises(UserError, match="and the accuracy of the result is nan:"):
        require_same_test(answers, STEP, result | {"test/accuracy": float("nan")})
    with pytest.raises(UserError, match=r"^the answers are to 10 images and the result is of 9:"):
        require_same_test(answers, STEP, result | {"test/images": 9})
    require_same_test(answers, 60, result | {"best_step": None})
