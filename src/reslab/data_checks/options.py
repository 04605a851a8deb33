"""The values that each option of check_data may take. Nothing here imports torch."""

from reslab.data.options import DATA
from reslab.options import NULL, PATH, TRUE_OR_FALSE, Schema, one_of
from reslab.training.options import RUN

CHECK_DATA = {"seed": RUN["seed"], "near": TRUE_OR_FALSE | one_of("auto"), "output": PATH | NULL}

CHECK_DATA_SCHEMA = Schema("check_data", DATA | CHECK_DATA, unnamed=("data.root",))
