"""Test a trained network on its own or another data set: `reslab evaluate --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.configuration import as_list
from reslab.inference.options import EVALUATE_SCHEMA, accelerator_of
from reslab.interruption import signals
from reslab.machine import is_first_process, refuse_absent_gpu
from reslab.newest import require_path
from reslab.text import printable

HELP = """\
Tests a trained network: accuracy, loss, macro F1 score, calibration error, and
precision and recall of each class.

  python src/evaluate.py latest       the test images of the run's data set
  python src/evaluate.py outputs/resnet20-digits/2026-01-31_12-00-00
  python src/evaluate.py best.ckpt data=imagefolder data.root=photos
  python src/evaluate.py latest output=evaluation.json
  python src/evaluate.py latest predictions=predictions.csv sort=loss

checkpoint       a run's folder, which stands for its best checkpoint; a .ckpt
                 file; a folder of runs, which stands for the newest; latest.
                 A list [a,b] or a sweep's folder: the mean of all of them
data             one of conf/data; without it, that of the run. root=… is its
                 folder, if it has moved. Images are tested at the sizes of the
                 run, unless data.eval_size=… and data.resize=… ask for others
unknown_classes  refuse, skip (leave out their images) or by_position; otherwise
                 classes are matched by name
split            test, or val for the images that the run validated on
views            none, flip, shifts, crops or a list: average over copies
calibrated       true: use the temperature that calibrate.py has stored
coverage         e.g. 0.95: measure sets of classes that contain the true one
device           auto, cpu or gpu
trainer          trainer.precision=auto|32-true|bf16-mixed
output           a .json file for the metrics and the table of classes
predictions      a .csv or .parquet file with one row per image: path, true and
                 predicted class, loss, and the probability of each class
sort             sort=loss begins that file with the highest loss
"""  # not the docstring of this module, which python -OO removes


def run_evaluate(config: DictConfig) -> None:
    """Test a network and print its scores."""
    for path in as_list(config.checkpoint):
        require_path(path)
    refuse_absent_gpu(*accelerator_of(config))
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_evaluation
        from reslab.inference.evaluation import evaluate

    print_evaluation(evaluate(config))
    for file in (config.output, config.predictions):
        if file is not None and is_first_process():
            print(f"written: {printable(file)}")


def main() -> None:
    command(EVALUATE_SCHEMA, run_evaluate, HELP)


if __name__ == "__main__":
    main()
