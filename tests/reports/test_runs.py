import math
import os
import random
from pathlib import Path

import pytest
from fake_runs import make_run
from scipy import stats

from reslab.errors import UserError
from reslab.reports.runs import configurations, differing, find_runs, read_run, summarize, welch

# folders


def test_runs_are_found_below_a_folder_by_number(tmp_path, monkeypatch):
    for number in (10, 9, 0):
        make_run(tmp_path / "sweep" / f"{number}_seed={number}", accuracy=0.5)
    make_run(tmp_path / "single", accuracy=0.5)
    make_run(tmp_path / "sweep" / "speed", accuracy=0.5)
    (tmp_path / "sweep" / "speed" / "benchmark.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    found = find_runs([tmp_path / "sweep", Path("single"), Path("sweep/9_seed=9")])
    assert [run.folder.name for run in found] == ["0_seed=0", "9_seed=9", "10_seed=10", "single"]


def test_what_is_no_folder_of_runs_is_a_mistake(tmp_path):
    make_run(tmp_path / "resnet20-digits" / "a", accuracy=0.5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"^there is no folder .*/resnet2-digits: did you mean resnet20-digits\?$"):
        find_runs([tmp_path / "resnet2-digits"])
    with pytest.raises(UserError, match=r"/empty holds no run: a run's folder has \.hydra in it, "):
        find_runs([tmp_path / "resnet20-digits", tmp_path / "empty"])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.csv", "epoch,val/accuracy\n0,high"),
        ("metrics.csv", "epoch,val/accuracy\n0,0.5,0.7"),
        (".hydra/config.yaml", "a: ["),
        (".hydra/config.yaml", ""),
        (".hydra/config.yaml", "model: {name: resnet8}"),  # no seed
    ],
)
def test_a_broken_file_is_the_runs_status(tmp_path, file, text):
    folder = make_run(tmp_path / "run", accuracy=0.5, curve=[(0.5, 0.5)])
    assert read_run(folder).finished
    (folder / file).write_text(text)
    run = read_run(folder)
    assert not run.finished
    assert run.failure.startswith("unreadable: ")
    assert len(run.failure.splitlines()) == 1


@pytest.mark.parametrize("text", ["{", "7", "{}"])
def test_a_run_with_a_broken_result_is_unfinished(tmp_path, text):
    folder = make_run(tmp_path / "run", accuracy=0.5)
    (folder / "result.json").write_text(text)
    assert read_run(folder).failure == "unfinished: no result"


def test_a_run_without_a_result_is_unfinished(tmp_path):
    run = read_run(make_run(tmp_path / "run", curve=[(0.5, ""), (0.75, 0.7)]))
    assert run.failure == "unfinished: no result"
    assert run.epochs[0] == {"epoch": 0, "train/accuracy": 0.5}  # validation was not due
    assert run.epochs[1] == {"epoch": 1, "train/accuracy": 0.75, "val/accuracy": 0.7}


# configurations


def test_a_configuration_is_what_differs_in_more_than_the_seed(tmp_path):
    make_run(tmp_path / "0_a", accuracy=0.5, seed=1, objective="test/loss", data__root="x")
    make_run(tmp_path / "1_b", accuracy=0.75, seed=2, trainer__enable_progress_bar=False)
    make_run(tmp_path / "2_c", accuracy=0.7, seed=1, trainer__max_epochs=3)
    make_run(tmp_path / "3_d", seed=3)
    first, second = configurations(find_runs([tmp_path]))
    assert [run.folder.name for run in first.runs] == ["2_c"]
    assert [run.folder.name for run in second.runs] == ["0_a", "1_b"]
    assert second.best.folder.name == "1_b"
    assert second.summary("val/accuracy").mean == 0.625
    assert second.summary("val/loss") is None


def test_without_validation_the_test_accuracy_ranks(tmp_path):
    for number, accuracy in enumerate((0.3, 0.9, 0.6)):
        result = {"status": "finished", "test/accuracy": accuracy}
        make_run(tmp_path / f"{number}_", result=result, optimizer__lr=accuracy)
    assert [each.settings["optimizer.lr"] for each in configurations(find_runs([tmp_path]))] == [0.9, 0.6, 0.3]


def test_what_does_not_matter_makes_no_configuration(tmp_path):
    make_run(tmp_path / "a", accuracy=0.5, seed=1, resume="outputs/a", sweep={"stop_on_failure": True})
    make_run(tmp_path / "b", accuracy=0.5, seed=2, trainer__detect_anomaly=True)
    assert [len(each.runs) for each in configurations(find_runs([tmp_path]))] == [2]


def test_what_is_no_number_is_the_last(tmp_path):
    nan = float("nan")
    for number, accuracy in enumerate((nan, 0.2, 0.9, 0.3)):
        make_run(tmp_path / f"{number}_", accuracy=accuracy, test=0.5, seed=number // 2, optimizer__lr=number % 2 + 1)
    first, second = configurations(find_runs([tmp_path]))
    assert [run.folder.name for run in second.runs] == ["0_", "2_"]
    assert second.best.folder.name == "2_"
    assert first.best.folder.name == "3_"


def test_the_same_run_twice_is_no_second_seed(tmp_path):
    for number, accuracy in enumerate((0.5, 0.75)):
        make_run(tmp_path / f"{number}_", accuracy=accuracy)
    (configuration,) = configurations(find_runs([tmp_path]))
    assert [run.result["val/accuracy"] for run in configuration.runs] == [0.75]


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_of_runs_of_the_same_seed_the_newest_counts(tmp_path, newest):
    for number in range(3):
        folder = make_run(tmp_path / f"{number}_", accuracy=number / 4)
        os.utime(folder / "result.json", (0, 2_000 if number == newest else 1_000))
    (configuration,) = configurations(find_runs([tmp_path]))
    assert [run.result["val/accuracy"] for run in configuration.runs] == [newest / 4]


def test_a_number_is_the_same_with_and_without_a_point(tmp_path):
    for seed, (lr, betas) in enumerate([(1, [0, 0.5]), (1.0, [0.0, 0.5])]):
        make_run(tmp_path / f"{seed}_", accuracy=0.5, seed=seed, optimizer__lr=lr, optimizer__betas=betas)
    make_run(tmp_path / "2_", accuracy=0.25, optimizer__lr=True, optimizer__betas=[0, 0.5])
    runs = find_runs([tmp_path])
    assert [len(each.runs) for each in configurations(runs)] == [2, 1]
    assert differing([run.settings for run in runs[:2]]) == []
    assert differing([run.settings for run in runs]) == ["optimizer.lr"]


def image_folder_run(folder, root, seed, checksum):
    result = {"status": "finished", "val/accuracy": 0.5, "data_checksum": checksum}
    return make_run(folder, result=result, seed=seed, data__name="imagefolder", data__root=root)


def test_other_images_make_another_configuration(tmp_path):
    for number, root in enumerate(("cats", "dogs", "photos/raw", "photos/sharpened")):
        image_folder_run(
            tmp_path / f"{number}_", root, 1, "ab"[number // 2]
        )  # of the last two only the names are alike
    runs = find_runs([tmp_path])
    assert [each.settings["data.root"] for each in configurations(runs)] == [
        "cats", "dogs", "photos/raw", "photos/sharpened",
    ]  # fmt: skip
    assert differing([run.settings for run in runs]) == ["data.root"]


def test_images_that_have_moved_make_no_configuration(tmp_path):
    """What of seed 1 has the same checksum is a copy for the other seeds, which have a split and a checksum each."""
    places = [("/a/cats", 1, "x"), ("/b/cats", 2, "y"), ("cats/", 3, "z"), ("/b/cats", 1, "x"), ("/b/cats", 3, "z")]
    for number, place in enumerate(places):
        image_folder_run(tmp_path / f"{number}_", *place)
    image_folder_run(tmp_path / "5_", "/b/dogs", 2, "y")
    moved, other = configurations(find_runs([tmp_path]))
    assert [run.seed for run in moved.runs] == [1, 2, 3]
    assert len({run.settings["data.root"] for run in moved.runs}) == 1
    assert (len(other.runs), other.settings["data.root"]) == (1, "/b/dogs")


def test_parameters_that_come_with_a_choice_are_none_of_their_own():
    settings = [
        {"model": "resnet8", "model.layers": [1, 1, 1], "model.dropout": 0.0, "optimizer": "SGD", "optimizer.lr": 0.1},
        {"model": "resnet20", "model.layers": [3, 3, 3], "model.dropout": 0.1, "optimizer": "SGD", "optimizer.lr": 0.2},
        {"model": "resnet20", "model.layers": [3, 3, 3], "model.dropout": 0.0, "optimizer": "SGD", "optimizer.lr": 0.2},
    ]
    assert differing(settings) == ["model", "model.dropout", "optimizer.lr"]
    assert differing(settings[:2]) == ["model", "optimizer.lr"]
    assert differing(settings[1:]) == ["model.dropout"]
    assert differing([{"a": 1}, {}]) == ["a"]


def test_choices_are_called_by_their_names(tmp_path):
    assert read_run(make_run(tmp_path / "run", accuracy=0.5)).settings == {
        "model": "resnet8", "model.layers": [1, 1, 1], "data": "digits", "data.batch_size": 64, "optimizer": "SGD",
        "optimizer.lr": 0.1, "optimizer.momentum": 0.9, "trainer.max_epochs": 2,
    }  # fmt: skip


# statistics


def test_a_summary_of_nothing_of_one_and_of_two():
    assert summarize([]) is None
    assert summarize([0.5]) == (1, 0.5, None, None, None)
    assert list(map(str, summarize([0.5, math.nan]))) == ["2", "nan", "nan", "nan", "nan"]
    assert list(map(str, summarize([0.5, math.inf]))) == ["2", "inf", "nan", "nan", "nan"]
    n, mean, deviation, low, high = summarize([0.5, 0.7])
    assert (n, mean, deviation) == (2, pytest.approx(0.6), pytest.approx(0.1 * 2**0.5))
    assert (low, high) == pytest.approx(
        (0.6 - 12.7062 * 0.1, 0.6 + 12.7062 * 0.1), rel=1e-5
    )  # t of one degree: 12.7062


@pytest.mark.parametrize(("n", "m"), [(2, 2), (3, 5), (10, 4)])
def test_statistics_are_scipys(n, m):
    generator = random.Random(n)
    first = [generator.gauss(0.9, 0.01) for _ in range(n)]
    second = [generator.gauss(0.92, 0.03) for _ in range(m)]
    interval = stats.t.interval(0.95, n - 1, loc=sum(first) / n, scale=stats.sem(first))
    assert summarize(first)[3:] == pytest.approx(interval)
    tested, expected = welch(summarize(first), summarize(second)), stats.ttest_ind(second, first, equal_var=False)
    assert tested.p == pytest.approx(expected.pvalue)
    assert (tested.low, tested.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert tested.mean == pytest.approx(sum(second) / m - sum(first) / n)


def test_where_no_test_applies():
    spread, single, equal = summarize([0.5, 0.6]), summarize([0.5]), summarize([1.0, 1.0])
    assert welch(spread, single) is welch(single, spread) is welch(equal, summarize([0.9, 0.9])) is None
    for broken in (summarize([0.5, math.nan]), summarize([0.5, math.inf])):
        assert welch(spread, broken) is welch(broken, spread) is None
    assert welch(spread, equal).p == pytest.approx(stats.ttest_ind([0.5, 0.6], [1, 1], equal_var=False).pvalue)
