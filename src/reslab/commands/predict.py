"""Classify image files with a trained network: `reslab predict --help`."""

from contextlib import closing

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.configuration import as_list
from reslab.inference.options import PREDICT_SCHEMA
from reslab.interruption import signals
from reslab.machine import refuse_absent_gpu
from reslab.newest import require_checkpoint, require_path
from reslab.text import printable

HELP = """\
Classifies image files with a trained network.

  python src/predict.py latest photo.jpg more/
  python src/predict.py latest photos/*.jpg top=1 output=classes.csv
  python src/predict.py latest photos top=all output=predictions.parquet
  python src/predict.py checkpoint=best.ckpt "images=[a.png,'photos/*.jpg']"

Arguments without a name are the checkpoint, then the images.
checkpoint  a run's folder, which stands for its best checkpoint; a .ckpt file;
            a folder of runs, which stands for the newest; latest. A list
            [a,b] or a sweep's folder: the mean of all of them
images      a file, a folder (all images below it), a glob in quotes, or a list
            of them
top         number of classes for each image, or all
output      a .csv or .parquet table (path, predicted class, probability, then
            the next ranks, or each class with top=all) or a .json file; without
            it, one line per image is printed
views       none, flip, shifts, crops or a list: average over copies
calibrated  true: use the temperature that calibrate.py has stored
coverage    e.g. 0.95: also give a set of classes that contains the true one
device      auto, cpu or gpu
batch_size  images that the network takes at a time
num_workers processes that decode images
on_error    stop at images that cannot be read, or skip them
"""  # not the docstring of this module, which python -OO removes


def run_predict(config: DictConfig) -> None:
    """Classify images, and print or write the classes."""
    for path in as_list(config.checkpoint):
        require_path(path)
    refuse_absent_gpu(config.device, "device")
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_predictions
        from reslab.inference.ensemble import members_of
        from reslab.inference.prediction import Predictions, as_dictionaries
        from reslab.inference.prediction_file import prediction_file
        from reslab.text import counted
        from reslab.training.progress import with_bar

    predictions = Predictions(
        [require_checkpoint(member) for member in members_of(config.checkpoint)],
        [str(pattern) for pattern in as_list(config.images)],  # YAML reads a folder named 2024 as an integer
        batch_size=config.batch_size,
        num_workers=config.num_workers,
        on_error=config.on_error,
        device=config.device,
        views=config.views,
        calibrated=config.calibrated,
        coverage=config.coverage,
    )
    with closing(iter(predictions)) as batches:  # its worker processes end here, however the block ends
        if config.output is None:
            print_predictions(as_dictionaries(batch, predictions.classes, config.top) for batch in batches)
            return
        written = 0
        with prediction_file(config.output, predictions.classes, config.top) as write:
            for batch in with_bar(batches, "predict", len(predictions.paths), lambda batch: len(batch.paths)):
                write(batch)
                written += len(batch.paths)
    print(f"written: {printable(config.output)} ({counted(written, 'image')})")


def main() -> None:
    command(PREDICT_SCHEMA, run_predict, HELP)


if __name__ == "__main__":
    main()
