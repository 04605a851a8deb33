"""The values that each option of evaluate and predict may take. Nothing here imports torch."""

from typing import Literal, get_args

from reslab.data.options import DATA, OnError
from reslab.options import NULL, PATH, Kind, Schema, integer, one_of, one_or_list
from reslab.training.options import PRECISIONS, TRAINER

Top = int | Literal["all"]
UnknownClasses = Literal["refuse", "skip", "by_position"]

DEVICE = one_of("auto", "cpu", "gpu", "cuda", "mps")


def file_of(*endings: str) -> Kind:
    """Paths with one of these endings."""
    words = f"a file whose name ends in {' or '.join(endings)}"
    return Kind(words, lambda value: PATH.allows(value) and value.endswith(endings), is_path=True)


EVALUATE = {
    **{
        f"data.{name}": DATA[f"data.{name}"] | NULL
        for name in ("batch_size", "num_workers", "on_error", "test_fraction", "interpolation")
    },
    "unknown_classes": one_of(*get_args(UnknownClasses)),
    "trainer.precision": one_of("auto", *PRECISIONS, None),
    "checkpoint": PATH,
    "root": PATH | NULL,
    "device": DEVICE | NULL,
    "output": file_of(".json") | NULL,
}
PREDICT = {
    "checkpoint": PATH,
    "images": one_or_list(Kind("a path", lambda value: PATH.allows(value) or type(value) is int, is_path=True)),  # 2024
    "top": integer(1) | one_of("all"),
    "batch_size": DATA["data.batch_size"],
    "num_workers": DATA["data.num_workers"],
    "on_error": one_of(*get_args(OnError)),
    "device": DEVICE,
    "output": file_of(".csv", ".parquet", ".json") | NULL,
}

EVALUATE_SCHEMA = Schema("evaluate", DATA | TRAINER | EVALUATE, unnamed=("checkpoint",))
PREDICT_SCHEMA = Schema("predict", PREDICT, unnamed=("checkpoint", "images"))
