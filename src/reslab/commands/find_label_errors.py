"""List images whose label may be wrong: `reslab find_label_errors --help`."""

from pathlib import Path

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.files import require_output_folder
from reslab.interruption import signals
from reslab.reports.options import LABEL_ERRORS_SCHEMA
from reslab.text import printable

HELP = """\
Lists images whose label may be wrong, by confident learning (arXiv:1911.00068).

  python src/train.py -m data=imagefolder data.root=photos \\
    data.folds=5 'data.fold=range(5)'
  python src/find_label_errors.py outputs/multirun/2026-01-31_12-00-00

It takes the folder of a cross-validated sweep: the network of each run answers
to the images that it was not trained on. Several seeds of a fold are averaged.

runs     the folder of the runs; latest stands for the newest sweep
root     the folder of the data set, if it has moved
device   auto, cpu or gpu: for a data set with test images of its own, whose
         folds are tested again
output   a folder for suspects.csv and suspects.html, a page with the images;
         without it, that of the runs

It needs the package cleanlab: pip install -e '.[label_errors]'
"""  # not the docstring of this module, which python -OO removes


def run_find_label_errors(config: DictConfig) -> None:
    """List the images whose labels may be wrong."""
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.report import folder_of
        from reslab.reports.label_errors import find_suspects, read_folds
        from reslab.reports.label_errors_page import PAGE, TABLE, summary, write_suspects

    folder = folder_of(config.runs, sweeps_only=True)
    output = Path(config.output or folder)
    require_output_folder(str(output))
    folds = read_folds(folder, config.root, config.device)
    suspects = find_suspects(folds)
    write_suspects(folds, suspects, output, config.root)
    print(summary(folds, suspects))
    print(f"written: {printable(output / PAGE)}, and all of them in {TABLE}")


def main() -> None:
    command(LABEL_ERRORS_SCHEMA, run_find_label_errors, HELP)


if __name__ == "__main__":
    main()
