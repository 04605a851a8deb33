"""The console command: `reslab train model=resnet18`, `reslab predict …`, with the same code as src/*.py.

Nothing is imported here that takes long, so that Ctrl-C is handled before anything else is.
"""

import importlib
import os
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from types import FrameType, ModuleType

COMMANDS = {
    "train": "train a residual network on a data set, or a sweep of them (-m)",
    "evaluate": "test a trained network",
    "predict": "classify image files",
    "export": "write a trained network as a file for other programs",
    "calibrate": "make the probabilities of a trained network right on the average",
    "explain": "show which parts of images speak for a class",
    "report": "compare runs and sweeps",
    "find_label_errors": "list images whose label may be wrong, by a cross-validation",
    "benchmark": "measure the speed and memory of training, and the speed of inference",
    "check_data": "look at a data set before training: classes, copies, broken files",
}
PACKAGES = ("hydra", "omegaconf", "yaml", "lightning", "torch", "torchvision", "torchmetrics", "tensorboard")
USAGE = "usage: reslab <command> [<option>=<value> …]; --help shows examples, --version the versions\n\n" + "\n".join(
    f"  {name:19}{what}" for name, what in COMMANDS.items()
)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(USAGE)
    elif name == "--version":
        from reslab.commands.help import version_text

        print(version_text())
    elif name not in COMMANDS:
        from reslab.errors import suggest
        from reslab.text import printable

        print(f"error: there is no command {printable(name)}{suggest(name, list(COMMANDS), USAGE)}", file=sys.stderr)
        sys.exit(2)
    else:
        command = imported(name)
        from reslab.commands.entry import command_line

        # The other processes of a distributed run and the jobs of a sweep are started with this file.
        with command_line([str(command.__file__), *sys.argv[2:]]):
            command.main()


def run(name: str) -> None:
    """Run the command of this name with the command line of this process."""
    imported(name).main()


def imported(name: str) -> ModuleType:
    """Import the module of a command. Ctrl-C meanwhile ends the process at once, because nothing has begun."""
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    require_packages()
    return importlib.import_module(f"reslab.commands.{name}")


def require_packages() -> None:
    """End the process with one line if it is not the Python in which ResLab is installed."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        print(
            f"error: this Python, {sys.executable}, does not have {', '.join(missing)}: activate the environment in "
            "which ResLab is installed (. .venv/bin/activate), or install it (make .venv/installed)",
            file=sys.stderr,
        )
        sys.exit(2)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """End the process. An exception could be lost in a module that is being imported."""
    with suppress(OSError):  # standard error may be closed
        os.write(2, f"interrupted ({signal.Signals(number).name})\n".encode())
    os._exit(128 + number)
