import json

import pandas as pd
import pytest
import torch
from hydra import compose
from pyarrow import parquet
from sklearn.metrics import accuracy_score, f1_score, log_loss

from reslab.errors import UserError
from reslab.inference.evaluation import evaluate
from reslab.inference.options import EVALUATE_SCHEMA
from reslab.inference.prediction import Predicted
from reslab.inference.prediction_file import prediction_file, write_answers_table
from reslab.training.answers import Answers

# predict


def write_predictions(output, classes, batches, top=3):
    """Write batches of paths and probabilities."""
    with prediction_file(output, classes, top) as write:
        for paths, probabilities in batches:
            write(Predicted(paths, torch.tensor(probabilities).log(), torch.tensor(probabilities)))


CLASSES = ["cat", 'a "dog"', "=frog"]
BATCHES = [(["a,b.png", "=1+1.png"], [[0.75, 0.25, 0.0], [0.0, 0.125, 0.875]]), (["c.png"], [[1.0, 0.0, 0.0]])]


def test_csv_byte_by_byte(tmp_path):
    write_predictions(tmp_path / "ranks.csv", CLASSES, BATCHES, top=2)
    assert (tmp_path / "ranks.csv").read_bytes().decode() == (
        "path,predicted_class,probability,class_2,probability_2\r\n"
        '"a,b.png",cat,0.75,"a ""dog""",0.25\r\n'
        '\'=1+1.png,\'=frog,0.875,"a ""dog""",0.125\r\n'
        'c.png,cat,1,"a ""dog""",0\r\n'
    )
    write_predictions(tmp_path / "all.csv", CLASSES, BATCHES, top="all")
    assert (tmp_path / "all.csv").read_bytes().decode() == (
        'path,predicted_class,probability,probability:cat,"probability:a ""dog""",probability:=frog\r\n'
        '"a,b.png",cat,0.75,0.75,0.25,0\r\n'
        "'=1+1.png,'=frog,0.875,0,0.125,0.875\r\n"
        "c.png,cat,1,1,0,0\r\n"
    )


def test_parquet_has_the_same_columns_with_names_as_they_are(tmp_path):
    write_predictions(tmp_path / "all.parquet", CLASSES, BATCHES, top="all")
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table.to_pydict() == {
        "path": ["a,b.png", "=1+1.png", "c.png"],
        "predicted_class": ["cat", "=frog", "cat"],
        "probability": [0.75, 0.875, 1.0],
        "probability:cat": [0.75, 0.0, 1.0],
        'probability:a "dog"': [0.25, 0.125, 0.0],
        "probability:=frog": [0.0, 0.875, 0.0],
    }
    assert {str(column.type) for column in table.schema} == {"string", "float"}


def test_json_is_what_is_returned(tmp_path):
    write_predictions(
        tmp_path / "classes.json", ["cat", "dog"], [(["a.png"], [[0.25, 0.75]]), (["b.png"], [[1.0, 0.0]])]
    )
    rows = [
        {"image": "a.png", "classes": [{"class": "dog", "probability": 0.75}, {"class": "cat", "probability": 0.25}]},
        {"image": "b.png", "classes": [{"class": "cat", "probability": 1.0}, {"class": "dog", "probability": 0.0}]},
    ]
    assert (tmp_path / "classes.json").read_text() == json.dumps(rows, indent=2) + "\n"


@pytest.mark.parametrize("name", ["classes.csv", "classes.json", "classes.parquet"])
def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path, name):
    (tmp_path / name).write_text("before")

    def batches():
        yield BATCHES[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(tmp_path / name, CLASSES, batches(), top="all")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "before"}
    with pytest.raises(UserError, match=r"^output=.* cannot be written: Is a directory$"):
        write_predictions(tmp_path, CLASSES, BATCHES)


def test_an_error_of_the_images_is_not_one_of_the_output(tmp_path):
    with pytest.raises(OSError, match=r"^another$"), prediction_file(tmp_path / "a.csv", CLASSES, 1):
        raise OSError("another")


# evaluate


ANSWERS = Answers(
    torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0], [float("nan"), 0.0, 0.0], [0.0, 0.0, 5.0]]),
    torch.tensor([0, 0, 0, 2]),
    torch.tensor([3, 4, 7, 9]),
    CLASSES,
)


def test_the_rows_are_those_of_the_answers_in_either_order(tmp_path):
    for sort, order in (("none", [0, 1, 2, 3]), ("loss", [2, 0, 1, 3])):
        write_answers_table(tmp_path / "answers.parquet", ANSWERS, sort)
        table = parquet.read_table(tmp_path / "answers.parquet").to_pydict()
        columns = ["path", "true_class", "predicted_class", "probability", "loss"]
        assert [*table] == [*columns, *(f"probability:{name}" for name in CLASSES)]
        assert table["path"] == [("test 3", "test 4", "test 7", "test 9")[row] for row in order]
        assert table["true_class"] == [CLASSES[(0, 0, 0, 2)[row]] for row in order]
        # Without a softmax the answer is wrong: any other class than the true one.
        assert table["predicted_class"] == [CLASSES[(1, 0, 1, 2)[row]] for row in order]
        expected = ANSWERS.logits.double().softmax(1)[order]
        for label, name in enumerate(CLASSES):
            assert table[f"probability:{name}"] == pytest.approx(expected[:, label].tolist(), nan_ok=True)
        assert table["loss"] == pytest.approx((-expected[range(4), ANSWERS.labels[order]].log()).tolist(), nan_ok=True)


def test_the_csv_has_all_digits_of_the_numbers(tmp_path):
    write_answers_table(tmp_path / "answers.csv", ANSWERS, "none")
    assert pd.read_csv(tmp_path / "answers.csv")["loss"].isna().tolist() == [False, False, True, False]
    answers = Answers(torch.randn(1000, 3) * 10, torch.randint(3, (1000,)), torch.arange(1000), CLASSES)
    write_answers_table(tmp_path / "answers.csv", answers, "none")
    read = pd.read_csv(tmp_path / "answers.csv", float_precision="round_trip").iloc[:, 4:].to_numpy().astype("float32")
    assert torch.equal(torch.tensor(read), torch.cat([answers.losses[:, None], answers.probabilities], 1))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_printed_metrics_are_those_of_the_file(composed, trained, tmp_path, suffix):
    path = tmp_path / f"predictions.{suffix}"
    options = [f"checkpoint={trained.folder}", "trainer=cpu", f"predictions={path}", "sort=loss"]
    metrics = evaluate(compose("evaluate", options))["metrics"]
    table = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    true, predicted = table["true_class"].astype(str), table["predicted_class"].astype(str)
    probabilities = table[[f"probability:{label}" for label in range(10)]].astype("float32")
    assert len(table) == 359
    assert table["loss"].is_monotonic_decreasing
    assert accuracy_score(true, predicted) == pytest.approx(metrics["test/accuracy"])
    assert f1_score(true, predicted, average="macro") == pytest.approx(metrics["test/f1_macro"])
    assert log_loss(true, probabilities, labels=list("0123456789")) == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert table["loss"].mean() == pytest.approx(metrics["test/loss"], rel=1e-5)
    assert (probabilities.to_numpy().max(1) == table["probability"].astype("float32")).all()
    top5 = probabilities.to_numpy().argsort(1)[:, -5:]
    assert (top5 == true.astype(int).to_numpy()[:, None]).any(1).mean() == pytest.approx(metrics["test/top5_accuracy"])
    assert sorted(table["path"]) == sorted(f"test {index}" for index in range(359))


@pytest.mark.slow
def test_a_limit_and_unreadable_files_leave_the_rows_of_the_tested_images(composed, trained, digit_files, tmp_path):
    folder, path = tmp_path / "images", tmp_path / "predictions.csv"
    for file in digit_files[:30]:
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / file.name).write_bytes(file.read_bytes())
    broken = next(folder.glob("3/*.png"))
    broken.write_bytes(b"broken")
    data = ["data=imagefolder", f"data.root={folder}", "data.num_workers=0", "data.on_error=skip"]
    options = [f"checkpoint={trained.folder}", "trainer=cpu", f"predictions={path}", *data]
    result = evaluate(compose("evaluate", options))
    table = pd.read_csv(path)
    files = sorted(f"{file.parent.name}/{file.name}" for file in digit_files[:30])
    files.remove(f"3/{broken.name}")
    assert table["path"].tolist() == files
    assert (table["true_class"] == table["path"].str[0].astype(int)).all()
    assert (table["true_class"] == table["predicted_class"]).mean() == pytest.approx(result["metrics"]["test/accuracy"])
    limited = evaluate(compose("evaluate", [*options, "trainer.limit_test_batches=2", "data.batch_size=5"]))
    assert len(pd.read_csv(path)) == limited["images"] in (9, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sort=loss"], "sort=loss is the order of a table: predictions=<a .csv or .parquet file> names it"),
        (
            ["predictions=a.json"],
            "predictions=a.json must be a file whose name ends in .csv or .parquet, or be left out",
        ),
        (["predictions=a.csv", "sort=path"], "sort=path must be one of none, loss"),
    ],
)
def test_a_wrong_option_is_one_line(composed, options, message):
    with pytest.raises(UserError) as error:
        EVALUATE_SCHEMA.check(compose("evaluate", ["checkpoint=none", *options]))
    assert str(error.value) == message


def test_a_place_where_no_file_can_be_is_one_line(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(UserError, match=r"^predictions=.*\.csv cannot be written: Is a directory$"):
        write_answers_table(tmp_path / "a.csv", ANSWERS, "none")
