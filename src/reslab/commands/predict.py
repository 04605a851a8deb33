"""Classify image files with a trained network: `reslab predict --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.options import PREDICT_SCHEMA
from reslab.interruption import signals
from reslab.newest import require_checkpoint, require_path
from reslab.text import printable

HELP = """\
Classifies image files with a trained network.

  python src/predict.py latest photo.jpg more/
  python src/predict.py latest photos/*.jpg top=1 output=classes.csv
  python src/predict.py checkpoint=best.ckpt "images=[a.png,'photos/*.jpg']"

Arguments without a name are the checkpoint, then the images.
checkpoint  a run's folder, which stands for its best checkpoint; a .ckpt file;
            a folder of runs, which stands for the newest; latest
images      a file, a folder (all images below it), a glob in quotes, or a list
            of them
top         number of classes for each image
output      a .csv file (path, then class and probability by rank) or a .json
            file; without it, a table is printed
device      auto, cpu or gpu
batch_size  images that the network takes at a time
on_error    stop at images that cannot be read, or skip them
"""  # not the docstring of this module, which python -OO removes


def run_predict(config: DictConfig) -> None:
    """Classify images, and print or write the classes."""
    require_path(config.checkpoint)
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_predictions
        from reslab.configuration import as_list
        from reslab.inference.prediction import predict, write_predictions

    predictions = predict(
        require_checkpoint(config.checkpoint),
        [str(pattern) for pattern in as_list(config.images)],  # YAML reads a folder named 2024 as an integer
        top=config.top,
        batch_size=config.batch_size,
        on_error=config.on_error,
        device=config.device,
    )
    if config.output is None:
        print_predictions(predictions)
    else:
        write_predictions(predictions, config.output)
        print(f"written: {printable(config.output)} ({len(predictions)} images)")


def main() -> None:
    command(PREDICT_SCHEMA, run_predict, HELP)


if __name__ == "__main__":
    main()
