"""Classify image files with a trained network: `reslab predict --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.options import PREDICT_SCHEMA
from reslab.interruption import signals


def run_predict(config: DictConfig) -> None:
    """Classify images, and print or write the classes."""
    with signals.deferred():  # an exception could be lost in a module that is being imported
        from reslab.commands.printing import print_predictions
        from reslab.configuration import as_list
        from reslab.inference.loading import find_checkpoint
        from reslab.inference.prediction import predict, write_predictions

    predictions = predict(
        find_checkpoint(config.checkpoint),
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


def main() -> None:
    command(PREDICT_SCHEMA, run_predict)


if __name__ == "__main__":
    main()
