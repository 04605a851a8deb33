import torch
from fake_answers import make_answers

from reslab.reports.run_page.gallery import SHOWN, choose
from reslab.training.answers import Answers


def test_the_first_images_are_the_most_confident_mistakes_and_the_least_confident_right_answers():
    answers = make_answers(500)
    chosen, confidence = choose(answers), answers.confidence
    mistakes, right = (~answers.right).nonzero().flatten(), answers.right.nonzero().flatten()
    assert chosen.mistakes == mistakes[confidence[mistakes].argsort(descending=True)][:SHOWN].tolist()
    assert chosen.doubtful == right[confidence[right].argsort()][:SHOWN].tolist()
    assert set(chosen.mistakes + chosen.doubtful) <= set(chosen.all)
    assert len(chosen.all) == 500


def test_every_pair_of_classes_has_an_image_before_any_has_two_and_its_worst_one():
    answers = make_answers(2000, 6, scale=1)
    chosen = choose(answers, limit=160)
    assert len(chosen.all) == 160
    pairs = answers.labels * 6 + answers.predicted
    every = torch.tensor(chosen.all)
    for pair in pairs[~answers.right].unique():
        (of_pair,) = (pairs == pair).nonzero(as_tuple=True)
        assert int(of_pair[answers.losses[of_pair].argmax()]) in chosen.all
    shown = answers.right[every]
    assert int(shown.sum()) == 40  # a quarter


def test_with_more_cells_than_pictures_no_cell_of_mistakes_has_two_besides_the_galleries():
    answers = make_answers(3000, 30, scale=0)
    pairs = (answers.labels * 30 + answers.predicted)[~answers.right]
    assert len(pairs.unique()) > 800
    chosen = choose(answers, limit=500)
    assert len(chosen.all) == 500
    galleries = {*chosen.mistakes, *chosen.doubtful}
    rest = [each for each in chosen.all if each not in galleries]
    assert not answers.right[rest].any()
    cells = [(int(answers.labels[each]), int(answers.predicted[each])) for each in rest]
    of_galleries = {(int(answers.labels[each]), int(answers.predicted[each])) for each in chosen.mistakes}
    assert len({*cells}) == len(cells) == 500 - 2 * SHOWN
    assert not of_galleries & {*cells}


def test_an_image_without_a_softmax_is_a_mistake_and_others_come_before_it():
    logits = torch.tensor([[float("nan"), 0.0], [0.0, 5.0], [5.0, 0.0]])
    chosen = choose(Answers(logits, torch.tensor([0, 0, 0]), torch.arange(3), ["a", "b"]))
    assert (chosen.mistakes, chosen.doubtful, chosen.all) == ([1, 0], [2], [0, 1, 2])


def test_all_right_and_all_wrong():
    logits = torch.eye(3)
    right = choose(Answers(logits, torch.arange(3), torch.arange(3), list("abc")))
    wrong = choose(Answers(logits, torch.tensor([1, 2, 0]), torch.arange(3), list("abc")))
    assert (right.mistakes, len(right.doubtful), right.all) == ([], 3, [0, 1, 2])
    assert (len(wrong.mistakes), wrong.doubtful, wrong.all) == (3, [], [0, 1, 2])
