"""Look at a data set before training: `reslab check_data --help`."""

import re
import sys
from pathlib import Path

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.commands.resolvers import new_folder
from reslab.configuration import CONF
from reslab.data_checks.options import CHECK_DATA_SCHEMA
from reslab.errors import UserError
from reslab.files import require_output_folder
from reslab.interruption import signals

HELP = """\
Looks at a data set before training: how many images of each class the training,
the validation and the test have, their sizes and formats, files that cannot be
read, and copies of images, above all between the splits.

  python src/check_data.py photos               your own images
  python src/check_data.py data=cifar10         any of conf/data
  python src/check_data.py photos output=look   write the page there

The splits are those that src/train.py makes with the same options, such as
  seed=2                data.val_fraction=0.2         data.test_fraction=0.1

near      true: also find copies that were encoded again or resized; false: only
          identical images; auto: true for images of 32 pixels or more
output    a folder for the page, index.html, with pictures of copies and of each
          class, and check.json with every number; without it, a new folder in
          outputs/check_data

Exit status: 0; 1 if an image or a copy of it is in two splits; 2 for a mistake
in the options or the data set.
"""  # not the docstring of this module, which python -OO removes


def run_check_data(config: DictConfig) -> None:
    """Look at a data set, print what is wrong with it, and exit with status 1 if two splits share images."""
    refuse_names(config)
    parent = f"outputs/check_data/{config.data.name}"
    require_output_folder(config.output or parent)
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.data_checks.check import check_data
        from reslab.data_checks.terminal import print_check
        from reslab.data_checks.writing import write_check

    check = check_data(config)
    output = config.output or new_folder(parent, "output")
    write_check(check, output)
    print_check(check.result, output)
    if check.result["leaks"]:
        sys.exit(1)


def refuse_names(config: DictConfig) -> None:
    """Raise UserError for the name of a data set in place of a folder: `check_data.py digits`."""
    root = str(config.data.root)
    is_name = re.fullmatch(r"\w+", root) and (CONF / "data" / f"{root}.yaml").is_file()
    if config.data.name == "imagefolder" and is_name and not Path(root).exists():
        raise UserError(f"there is no folder {root}: data={root} is the data set of this name")


def main() -> None:
    command(CHECK_DATA_SCHEMA, run_check_data, HELP)


if __name__ == "__main__":
    main()
