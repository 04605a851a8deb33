"""The values that each option of find_label_errors may take. Nothing here imports torch."""

from reslab.inference.options import DEVICE
from reslab.options import NULL, PATH, Schema

LABEL_ERRORS = {"runs": PATH, "root": PATH | NULL, "device": DEVICE, "output": PATH | NULL}

LABEL_ERRORS_SCHEMA = Schema("find_label_errors", LABEL_ERRORS, unnamed=("runs",))
