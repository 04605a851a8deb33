"""The values that the options of export may take, and the packages of its formats. Nothing here imports torch."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from reslab.configuration import CONF
from reslab.errors import UserError
from reslab.options import NAME, NULL, PATH, TRUE_OR_FALSE, Schema, integer, one_of
from reslab.run import read_configuration

# The formats, each with the ending of its files.
FormatName = Literal["onnx", "torch_export", "torchscript", "int8"]
ENDINGS: dict[FormatName, str] = {"onnx": ".onnx", "torch_export": ".pt2", "torchscript": ".pt", "int8": ".onnx"}
SHARE = "share"  # the format that is a folder
ONNX = ("onnx", "onnxruntime", "onnxscript")
PACKAGES = {"onnx": ONNX, "int8": ONNX}  # those that are not of ResLab's own requirements

EXPORT = {
    "checkpoint": PATH,
    "format": one_of(*ENDINGS, SHARE),
    "output": PATH | NULL,
    "root": PATH | NULL,
    "verify": TRUE_OR_FALSE,
    "limit": integer(1) | NULL,
    "calibrated": TRUE_OR_FALSE,
    "calibration_images": integer(1),
    "license": NAME | NULL,
}


def check_together(values: dict[str, Any]) -> None:
    """Raise UserError if the name of the file does not say what is in it, or an option has no effect."""
    kind, output = values["format"], values["output"]
    if kind == SHARE:
        check_shared(values)
    elif values["license"] is not None:
        raise UserError("license= is for the card that format=share writes")
    if output is not None and not output.endswith(ENDINGS.get(kind, "")):
        raise UserError(f"output={output}: the name of a file of format={kind} ends in {ENDINGS[kind]}")
    if kind == "int8" and not values["verify"]:
        raise UserError(
            "format=int8 needs the images of the run, also for the accuracy that it keeps: leave verify out"
        )
    for name, what in {"limit": "a number of test images", "root": "the folder of the test images"}.items():
        if values[name] is not None and not values["verify"]:
            raise UserError(f"{name}= is {what}, and verify=false reads none: leave one of them out")
    in_conf = read_configuration(CONF / "export.yaml")
    if kind != "int8" and values["calibration_images"] != in_conf["calibration_images"]:
        raise UserError("calibration_images= is the number of training images that format=int8 reads: leave it out")


def check_shared(values: dict[str, Any]) -> None:
    """Raise UserError if the folder of format=share has no name, or would be asked to hold another network."""
    if values["output"] is None or Path(values["output"]).name in ("", ".."):
        raise UserError("format=share needs output=<a new folder>, whose name is that of the network")
    if values["calibrated"]:
        raise UserError(
            "format=share keeps the temperature beside the weights, for calibrated=true later: leave it out"
        )


def require_packages(kind: str, option: str = "format") -> None:
    """Raise UserError if a package that a format needs is not installed. It is a value of the option."""
    if missing := [name for name in PACKAGES.get(kind, ()) if find_spec(name) is None]:
        raise UserError(f"{option}={kind} needs {' and '.join(missing)}: pip install -e '.[onnx]'")


EXPORT_SCHEMA = Schema("export", EXPORT, check_together, unnamed=("checkpoint",))
