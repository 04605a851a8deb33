"""The files with a row per image: those of predict, and that of evaluate."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import torch

from reslab.files import valid_json, written_in_parts
from reslab.inference.options import Sort, Top
from reslab.inference.prediction import Predicted, Prediction, as_dictionaries, most_probable
from reslab.inference.tables import (
    LOSS,
    PATH,
    PREDICTED,
    PROBABILITY,
    ROW_GROUP_BYTES,
    TRUE,
    Column,
    Columns,
    probability_columns,
    table_file,
)
from reslab.training.answers import Answers

Write = Callable[[Predicted], None]
SET = "set"  # the column of the classes in the set of an image, as a list in JSON


@contextmanager
def prediction_file(output: str | Path, classes: Sequence[str], top: Top) -> Iterator[Write]:
    """Write predictions to a .json, .csv or .parquet file. It is there at the end of the block, or not at all.

    Args:
        output: the file.
        classes: the names of the classes.
        top: how many classes to write for each image; "all" for every class.

    Yields:
        A function that adds the predictions of a batch.

    Raises:
        UserError: the file cannot be written.
    """
    output = Path(output)
    if output.suffix == ".json":
        with written_in_parts(output, json_file) as write_rows:
            yield lambda batch: write_rows(as_dictionaries(batch, classes, top))
    else:
        with table_file(output) as write_columns:
            yield lambda batch: write_columns(columns_of(batch, classes, top))


@contextmanager
def json_file(path: Path) -> Iterator[Callable[[list[Prediction]], None]]:
    """Write one list of all predictions, with the bytes of `write_valid_json`."""
    with path.open("w", encoding="utf-8") as file:
        is_empty = True

        def write(rows: list[Prediction]) -> None:
            nonlocal is_empty
            for row in rows:
                file.write(("[\n" if is_empty else ",\n") + indent(valid_json(row), "  "))
                is_empty = False

        yield write
        file.write("[]\n" if is_empty else "\n]\n")


def columns_of(batch: Predicted, classes: Sequence[str], top: Top) -> Columns:
    """Return the columns path, predicted_class and probability of a batch, and those that `top` asks for.

    These are the probabilities of all classes, or class_2, probability_2, class_3, … as far as `top`.
    """
    best, order = most_probable(batch, 1 if top == "all" else top)
    ranks = zip(order.T.tolist(), best.T.contiguous(), strict=True)
    columns: dict[str, Column] = {PATH: batch.paths}
    for rank, (labels, probabilities) in enumerate(ranks, 1):
        names = (PREDICTED, PROBABILITY) if rank == 1 else (f"class_{rank}", f"{PROBABILITY}_{rank}")
        columns |= zip(names, ([classes[label] for label in labels], probabilities), strict=True)
    if batch.sets is not None:
        columns[SET] = set_column(batch.sets, classes)
    return columns | (probability_columns(classes, batch.probabilities) if top == "all" else {})


def set_column(sets: list[list[int]], classes: Sequence[str]) -> list[str]:
    """Return the names of the classes in the set of each image, as JSON."""
    return [json.dumps([classes[label] for label in labels], ensure_ascii=False) for labels in sets]


# evaluate


def write_answers_table(output: Path, answers: Answers, sort: Sort, sets: list[list[int]] | None = None) -> None:
    """Write a row per image of a test: path, true and predicted class, probability, loss, and that of all classes.

    Every value follows the rules of the test's metrics: see `Answers`.

    Args:
        output: a .csv or a .parquet file.
        answers: what the network answered.
        sort: "loss" for the highest loss first, "none" for the order of the data set.
        sets: the labels in the set of each image; None for no column of them.

    Raises:
        UserError: the file cannot be written.
    """
    order = torch.arange(len(answers))
    if sort == "loss":
        order = answers.losses.argsort(descending=True, stable=True)  # NaN comes first
    with table_file(output, "predictions") as write:
        for positions in order.split(ROW_GROUP_BYTES // 4 // len(answers.classes) + 1):
            chosen = None if sets is None else [sets[position] for position in positions.tolist()]
            write(columns_of_answers(answers.at(positions), chosen))


def columns_of_answers(answers: Answers, sets: list[list[int]] | None) -> Columns:
    classes, names = answers.classes, {TRUE: answers.labels, PREDICTED: answers.predicted}
    return {
        PATH: answers.names,
        **{name: [classes[label] for label in labels.tolist()] for name, labels in names.items()},
        PROBABILITY: answers.confidence,
        LOSS: answers.losses,
        **({} if sets is None else {SET: set_column(sets, classes)}),
        **probability_columns(classes, answers.probabilities),
    }
