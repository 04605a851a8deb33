import os

import pytest
from fake_runs import make_run

from reslab.reports.configurations import group_by_settings, images_of, seconds_text
from reslab.reports.entries import read_entries
from reslab.reports.settings import differing_settings
from reslab.reports.statistics import Statistics, with_interval
from reslab.run import Run


def test_runs_of_one_configuration_differ_only_in_the_seed(tmp_path):
    make_run(tmp_path / "0_a", accuracy=0.5, seed=1, objective="test/loss", data__root="x")
    make_run(tmp_path / "1_b", accuracy=0.75, seed=2, trainer__enable_progress_bar=False)
    make_run(tmp_path / "2_c", accuracy=0.7, seed=1, trainer__max_epochs=3)
    make_run(tmp_path / "3_d", seed=3)
    first, second = group_by_settings(read_entries([tmp_path]))
    assert [entry.folder.name for entry in first.entries] == ["2_c"]
    assert [entry.folder.name for entry in second.entries] == ["0_a", "1_b"]
    assert second.best.folder.name == "1_b"
    assert second.statistics("val/accuracy").mean == 0.625
    assert second.statistics("val/loss") is None


def test_folds_are_runs_of_one_configuration_as_seeds_are(tmp_path):
    for number, (fold, seed) in enumerate([(0, 1), (1, 1), (2, 1), (0, 2), (1, 2), (2, 2)]):
        result = {"test/images": 100 + fold, "val/images": 50, "fold_split": "test"}
        options = {"data__fold": fold, "data__folds": 3, "data__val_fraction": 0.2, "optimizer__lr": 0.1, "seed": seed}
        make_run(tmp_path / f"{number}_", accuracy=0.8 + 0.01 * number, result=result, **options)
    make_run(tmp_path / "6_", accuracy=0.1, data__fold=0, data__folds=5)
    first, other = group_by_settings(read_entries([tmp_path]))
    assert (first.size, other.size) == ("3 folds x 2 seeds", "1 fold")
    assert first.statistics("test/accuracy").overlap == 1 / 2 / 0.8  # 1/3 of the images to 0.8 of the other 2/3
    assert other.statistics("test/accuracy").overlap == 0


@pytest.mark.parametrize(
    ("fold_split", "validate_on_test", "test", "val"),
    [
        ("test", False, 303, 50),
        ("test", True, 303, 150),
        ("val", False, 100, 150),
        (None, False, 100, 50),  # it is not known
    ],
)
def test_only_the_images_of_the_folds_themselves_are_added(tmp_path, fold_split, validate_on_test, test, val):
    """Images beside them are the same in each fold, so that five folds do not say more than one about other images."""
    for fold in range(3):
        result = {"test/images": 100 + fold, "val/images": 50} | ({"fold_split": fold_split} if fold_split else {})
        options = {"data__fold": fold, "data__folds": 3, "data__validate_on_test": validate_on_test}
        make_run(tmp_path / str(fold), accuracy=0.8, test=0.8, result=result, **options)
    (found,) = group_by_settings(read_entries([tmp_path]))
    images = {
        name: images_of(found.entries, name, adds_folds=found.is_of_fold(name))
        for name in ("test/accuracy", "val/accuracy")
    }
    assert images == {"test/accuracy": test, "val/accuracy": val}
    same = with_interval(Statistics(3, 0.8, 0.0), test)
    assert found.statistics("test/accuracy")[3:5] == pytest.approx(same[3:5])


@pytest.mark.parametrize(
    ("runs", "size"),
    [
        ([(None, 1), (None, 2)], "2"),
        ([(0, 1), (1, 1)], "2 folds"),
        ([(0, 1), (0, 2)], "1 fold x 2 seeds"),
        ([(0, 1), (1, 1), (0, 2)], "3 runs"),
    ],
)
def test_the_size_of_a_configuration_counts_folds_and_seeds(tmp_path, runs, size):
    for number, (fold, seed) in enumerate(runs):
        folds = {} if fold is None else {"data__fold": fold, "data__folds": 2}
        make_run(tmp_path / f"{number}_", accuracy=0.5, seed=seed, **folds)
    (configuration,) = group_by_settings(read_entries([tmp_path]))
    assert configuration.size == size


def test_without_validation_the_test_accuracy_ranks(tmp_path):
    for number, accuracy in enumerate((0.3, 0.9, 0.6)):
        result = {"status": "finished", "test/accuracy": accuracy}
        make_run(tmp_path / f"{number}_", result=result, optimizer__lr=accuracy)
    found = group_by_settings(read_entries([tmp_path]))
    assert [configuration.settings["optimizer.lr"] for configuration in found] == [0.9, 0.6, 0.3]


def test_options_that_do_not_change_the_result_do_not_make_a_configuration(tmp_path):
    make_run(tmp_path / "a", accuracy=0.5, seed=1, resume="outputs/a", sweep={"stop_on_failure": True})
    make_run(tmp_path / "b", accuracy=0.5, seed=2, trainer__detect_anomaly=True)
    assert [len(each.entries) for each in group_by_settings(read_entries([tmp_path]))] == [2]


def test_not_a_number_is_the_worst(tmp_path):
    nan = float("nan")
    for number, accuracy in enumerate((nan, 0.2, 0.9, 0.3)):
        make_run(tmp_path / f"{number}_", accuracy=accuracy, test=0.5, seed=number // 2, optimizer__lr=number % 2 + 1)
    first, second = group_by_settings(read_entries([tmp_path]))
    assert [entry.folder.name for entry in second.entries] == ["0_", "2_"]
    assert second.best.folder.name == "2_"
    assert first.best.folder.name == "3_"


def test_the_same_run_twice_is_not_a_second_seed(tmp_path):
    for number, accuracy in enumerate((0.5, 0.75)):
        make_run(tmp_path / f"{number}_", accuracy=accuracy)
    (configuration,) = group_by_settings(read_entries([tmp_path]))
    assert [entry.result["val/accuracy"] for entry in configuration.entries] == [0.75]


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_of_runs_with_the_same_seed_the_newest_counts(tmp_path, newest):
    for number in range(3):
        folder = make_run(tmp_path / f"{number}_", accuracy=number / 4)
        os.utime(folder / "result.json", (0, 2_000 if number == newest else 1_000))
    (configuration,) = group_by_settings(read_entries([tmp_path]))
    assert [entry.result["val/accuracy"] for entry in configuration.entries] == [newest / 4]


def test_a_run_is_as_new_as_its_weights(tmp_path):
    """A run that is resumed with nothing left to train writes another result."""
    for number in range(2):
        folder = make_run(tmp_path / f"{number}_", accuracy=number / 4)
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        os.utime(folder / "checkpoints" / "last.ckpt", (0, 1_000 + number))
        os.utime(folder / "result.json", (0, 3_000 - number))
    (configuration,) = group_by_settings(read_entries([tmp_path]))
    assert [entry.result["val/accuracy"] for entry in configuration.entries] == [1 / 4]


def test_a_run_ended_when_its_result_says_whatever_the_files_say(tmp_path):
    """A copy of a run, e.g. a clone of its repository, has files of the time of the copy."""
    for number in range(2):
        result = {"ended": f"2027-01-15T08:00:0{number}.500+00:00"}
        folder = make_run(tmp_path / f"{number}_", accuracy=number / 4, result=result)
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").touch()
        os.utime(folder / "checkpoints" / "last.ckpt", (0, 2_000_000_000 - number))
        os.utime(folder / "result.json", (0, 2_000_000_000 - number))
    assert [entry.ended_at for entry in read_entries([tmp_path])] == [1_800_000_000.5, 1_800_000_001.5]
    (configuration,) = group_by_settings(read_entries([tmp_path]))
    assert [entry.result["val/accuracy"] for entry in configuration.entries] == [1 / 4]


def test_files_of_a_shared_network_do_not_say_when_its_run_ended(tmp_path):
    folder = make_run(tmp_path / "shared", accuracy=0.5)
    (folder / "weights.safetensors").touch()
    assert Run(folder).ended_at == 0
    (folder / "weights.safetensors").unlink()
    assert Run(folder).ended_at == (folder / "result.json").stat().st_mtime


def test_a_number_is_the_same_with_and_without_a_decimal_point(tmp_path):
    for seed, (lr, betas) in enumerate([(1, [0, 0.5]), (1.0, [0.0, 0.5])]):
        make_run(tmp_path / f"{seed}_", accuracy=0.5, seed=seed, optimizer__lr=lr, optimizer__betas=betas)
    make_run(tmp_path / "2_", accuracy=0.25, optimizer__lr=True, optimizer__betas=[0, 0.5])
    entries = read_entries([tmp_path])
    assert [len(each.entries) for each in group_by_settings(entries)] == [2, 1]
    assert differing_settings([entry.settings for entry in entries[:2]]) == []
    assert differing_settings([entry.settings for entry in entries]) == ["optimizer.lr"]


@pytest.mark.parametrize(
    ("name", "values"),
    [("model__freeze", [True, 1, False]), ("trainer__limit_train_batches", [1, 1.0, 0.5])],
)
def test_values_that_python_calls_equal_make_configurations_of_their_own(tmp_path, name, values):
    for number, value in enumerate(values):
        make_run(tmp_path / f"{number}_", accuracy=0.9 - number / 10, **{name: value})
    entries, option = read_entries([tmp_path]), name.replace("__", ".")
    assert [each.settings[option] for each in group_by_settings(entries)] == values
    assert differing_settings([entry.settings for entry in entries[:2]]) == [option]


def test_seconds_have_four_digits():
    texts = [seconds_text(each) for each in (1.94, 2.0314, 0.23971, 12.5, 999.97, 1234.5, 86400.0, float("nan"))]
    assert texts == ["1.940", "2.031", "0.2397", "12.50", "1000", "1234", "86400", "nan"]


# image folders


def image_folder_run(folder, root, seed, checksum):
    result = {"status": "finished", "val/accuracy": 0.5, "data_checksum": f"of {seed}", "files_checksum": checksum}
    return make_run(folder, result=result, seed=seed, data__name="imagefolder", data__root=root)


def test_other_images_make_another_configuration(tmp_path):
    """Runs of older versions recorded only which files there are, which may be the same in folders of other images."""
    roots = "cats", "dogs", "raw/photos", "clean/photos"
    for number, root in enumerate(roots):
        image_folder_run(tmp_path / f"{number}_", root, 1, f"{number}" if number < 2 else None)
    entries = read_entries([tmp_path])
    assert [each.settings["data.root"] for each in group_by_settings(entries)] == [*roots]
    assert differing_settings([entry.settings for entry in entries]) == ["data.root"]


def test_two_paths_to_one_folder_do_not_make_a_configuration(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    roots = ("photos", str(tmp_path / "photos"), "./photos/", "link", "photos/../photos")
    for number, root in enumerate(roots):
        image_folder_run(tmp_path / "runs" / f"{number}_", root, number, f"split {number}")
    image_folder_run(tmp_path / "runs" / "9_", "elsewhere", 9, "split 9")
    one, other = group_by_settings(read_entries([tmp_path / "runs"]))
    assert [entry.seed for entry in one.entries] == [0, 1, 2, 3, 4]
    assert (one.settings["data.root"], other.settings["data.root"]) == ("photos", "elsewhere")


def test_images_that_were_moved_do_not_make_a_configuration(tmp_path):
    """Each fold has a checksum of its own. Folders with the same one for fold 0 are copies, also for other folds."""
    places = [("/a/cats", 1, "x"), ("/b/cats", 2, "y"), ("cats/", 3, "z"), ("/b/cats", 1, "x"), ("/b/cats", 3, "z")]
    for number, place in enumerate(places):
        image_folder_run(tmp_path / f"{number}_", *place)
    image_folder_run(tmp_path / "5_", "/b/dogs", 2, "another")
    moved, other = group_by_settings(read_entries([tmp_path]))
    assert [entry.seed for entry in moved.entries] == [1, 2, 3]
    assert len({entry.settings["data.root"] for entry in moved.entries}) == 1
    assert (len(other.entries), other.settings["data.root"]) == (1, "/b/dogs")
