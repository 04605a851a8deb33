"""Classify image files with a trained network: `reslab predict --help`."""

from omegaconf import DictConfig

from reslab.commands.entry import command
from reslab.inference.options import PREDICT_SCHEMA


def predict(config: DictConfig) -> None:
    from reslab.commands.printing import print_predictions
    from reslab.configuration import as_list
    from reslab.inference.loading import find_checkpoint
    from reslab.inference.prediction import predict, write_predictions

    predictions = predict(
        find_checkpoint(config.checkpoint),
        [str(pattern) for pattern in as_list(config.images)],  # 2024 is a folder, though YAML reads a number
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
    command(PREDICT_SCHEMA, predict)


if __name__ == "__main__":
    main()
