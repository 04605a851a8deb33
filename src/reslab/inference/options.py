"""The values that each option of evaluate and predict may take. Nothing here imports torch."""

from typing import get_args

from reslab.data.options import DATA, OnError
from reslab.options import NULL, OPTIONAL_GROUP, PATH, Kind, Schema, integer, one_of, one_or_list
from reslab.training.options import PRECISIONS, TRAINER

EVALUATE = {
    "data": OPTIONAL_GROUP,  # without it, the data set of the run is used
    "trainer.precision": one_of("auto", *PRECISIONS, None),
    "checkpoint": PATH,
    "root": PATH | NULL,
    "output": PATH | NULL,
}
PREDICT = {
    "checkpoint": PATH,
    "images": one_or_list(Kind("a path", lambda value: PATH.allows(value) or type(value) is int)),  # 2024 is a folder
    "top": integer(1),
    "batch_size": integer(1),
    "on_error": one_of(*get_args(OnError)),
    "device": one_of("auto", "cpu", "cuda"),
    "output": Kind(
        "a path that ends in .csv or .json", lambda value: PATH.allows(value) and value.endswith((".csv", ".json"))
    )
    | NULL,
}

EVALUATE_SCHEMA = Schema("evaluate", DATA | TRAINER | EVALUATE)
PREDICT_SCHEMA = Schema("predict", PREDICT)
