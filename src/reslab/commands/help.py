"""`--version`, and `--help`: what a command does, with the choices of conf/.

Hydra's own help would first compose a configuration, and its version is not ResLab's.
"""

import platform
import shutil
import textwrap
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from reslab.configuration import CONF, own_folders
from reslab.errors import visible

CHOICES = "{choices}"  # stands for them in a command's help


def asks_for_help(arguments: Sequence[str]) -> bool:
    return not {"--help", "-h"}.isdisjoint(arguments)


def version_text() -> str:
    """Return the versions that a report of a fault needs."""
    packages = ", ".join(map(versioned, ("torch", "torchvision", "lightning", "hydra-core")))
    return f"{versioned('reslab')}; {packages}, Python {platform.python_version()}"


def versioned(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:  # ResLab runs in a checkout too
        return f"{package} (not installed)"


def help_text(text: str, arguments: Sequence[str]) -> str:
    """Return the help of a command.

    Args:
        text: the command's own text.
        arguments: a command line that may name the user's own folders of configuration.
    """
    width = shutil.get_terminal_size().columns
    lines = (textwrap.fill(line, width, subsequent_indent="    ") for line in choices(arguments))
    return text.rstrip().replace(CHOICES, "\n".join(lines))


def choices(arguments: Sequence[str]) -> list[str]:
    """Return a line for every group of conf/ and of the user's own folders: `optimizer: adam, adamw, sgd`."""
    groups: dict[str, list[str]] = {}
    for file in (file for folder in (CONF, *own_folders(arguments)) for file in folder.glob("*/*.yaml")):
        groups.setdefault(file.parent.name, []).append(file.stem)
    return [f"{group}: {', '.join(visible(groups[group]))}" for group in sorted(groups)]
