"""The console command: `reslab train model=resnet18`, `reslab predict …`, with the same code as src/*.py."""

import importlib
import sys

from reslab.errors import suggest
from reslab.text import printable

COMMANDS = {
    "train": "train a residual network on a data set, or a sweep of them (-m)",
    "evaluate": "test a trained network",
    "predict": "classify image files",
    "report": "compare runs and sweeps",
    "benchmark": "measure the speed and memory of training",
}
USAGE = "usage: reslab <command> [<option>=<value> …]; reslab <command> --help shows examples\n\n" + "\n".join(
    f"  {name:11}{what}" for name, what in COMMANDS.items()
)


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(USAGE)
    elif name not in COMMANDS:
        print(f"error: there is no command {printable(name)}{suggest(name, list(COMMANDS), USAGE)}", file=sys.stderr)
        sys.exit(2)
    else:
        from reslab.commands.entry import command_line

        command = importlib.import_module(f"reslab.commands.{name}")
        # The other processes of a distributed run and the jobs of a sweep are started with this file.
        with command_line([str(command.__file__), *sys.argv[2:]]):
            command.main()
